"""How sure an accuracy is, whether two checkpoints differ, and what a classifier takes for what.

Intervals are percentile bootstraps (Efron 1979) of rows within their domains: a domain's number of eval rows was
chosen, not drawn. Resampling n rows of which a share p is right is a binomial draw, and resampling pairs of answers a
multinomial one, so nothing is resampled row by row.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from balkit import frames
from balkit.errors import StudentError
from balkit.student.groups import groups

Doubles = npt.NDArray[np.float64]

DRAWS = 10_000


@dataclass(frozen=True)
class Interval:
    """An estimate and the ends of its interval, as fractions 0-1 (differences: -1 to 1)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Two checkpoints on the same rows. Differences are second minus first.

    `p_value` is McNemar's exact test (1947): how often rows that only one of them has right would be shared out as
    unevenly as this, or more so, if both were as good.
    """

    rows: int
    both: int
    only_first: int
    only_second: int
    neither: int
    p_value: float
    differences: dict[str, Interval]


def intervals(
    evaluations: pl.DataFrame,
    *,
    head: Set[str],
    counts: Mapping[str, int] | None = None,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Interval]:
    """`macro`, `micro`, `head` and `tail` accuracy of a checkpoint's EVALUATIONS, those that have a domain.

    With `counts` (train examples by domain) also `many`, `middle` and `few` (`groups`).
    """
    rows = frames.check(evaluations, frames.EVALUATIONS)
    domains = rows.group_by("domain").agg(right=pl.col("correct").sum(), rows=pl.len()).sort("domain")
    if domains.is_empty():
        return {}
    totals, right = domains["rows"].to_numpy(), domains["right"].to_numpy()
    drawn = np.random.default_rng(seed).binomial(totals, right / totals, size=(draws, len(totals)))
    names = domains["domain"].to_list()
    return over(names, totals, right / totals, drawn / totals, head=head, counts=counts, level=level)


def compare(
    first: pl.DataFrame,
    second: pl.DataFrame,
    *,
    head: Set[str],
    counts: Mapping[str, int] | None = None,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Comparison:
    """Two checkpoints' EVALUATIONS, row by row. Raises `StudentError` where they are not of the same examples."""
    one, two = (frames.check(each, frames.EVALUATIONS) for each in (first, second))
    paired = one.select("example_id", "domain", a="correct").join(
        two.select("example_id", b="correct"), on="example_id", how="full", coalesce=True
    )
    lacking = paired.filter(pl.any_horizontal(pl.col("a", "b").is_null()))
    if lacking.height or paired.is_empty():
        raise StudentError(
            f"{lacking.height} of {paired.height} examples were answered by only one of the two checkpoints; "
            "evaluate both on the same split, with the same evaluate.limit_per_domain"
        )
    a, b = pl.col("a"), pl.col("b")
    kinds = {"both": a & b, "only_first": a & ~b, "only_second": ~a & b, "neither": ~a & ~b}
    domains = paired.group_by("domain").agg(**{k: e.sum() for k, e in kinds.items()}, rows=pl.len()).sort("domain")
    totals = domains["rows"].to_numpy()
    shares = domains.select(*kinds).to_numpy() / totals[:, None]
    generator = np.random.default_rng(seed)
    drawn = np.stack([generator.multinomial(n, p, size=draws) for n, p in zip(totals, shares, strict=True)], axis=1)
    total = domains.select(pl.col(*kinds).sum()).row(0, named=True)
    return Comparison(
        rows=paired.height,
        **total,
        p_value=mcnemar(total["only_first"], total["only_second"]),
        differences=over(
            domains["domain"].to_list(),
            totals,
            shares[:, 2] - shares[:, 1],
            (drawn[..., 2] - drawn[..., 1]) / totals,
            head=head,
            counts=counts,
            level=level,
        ),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p-value: both tails of a binomial of `only_first + only_second` fair throws."""
    n, k = only_first + only_second, min(only_first, only_second)
    ways, total = 1, 1
    for i in range(k):
        ways = ways * (n - i) // (i + 1)
        total += ways
    return float(min(1.0, 2 * total / 2**n))


def wilson(right: int, rows: int, *, z: float = 1.959964) -> Interval:
    """A share of few rows with its interval (Wilson 1927), 95 % by default: 0 of 3 right is 0 to 56 %, not 0 to 0."""
    if not rows:
        return Interval(0.0, 0.0, 1.0)
    share, square = right / rows, z * z / rows
    middle = (share + square / 2) / (1 + square)
    half = z / (1 + square) * float(np.sqrt(share * (1 - share) / rows + square / (4 * rows)))
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))


def confusion(evaluations: pl.DataFrame, examples: pl.DataFrame) -> pl.DataFrame:
    """`reference, predicted, rows` of one checkpoint's EVALUATIONS, by EXAMPLES' references, most frequent first.

    `predicted` is null where an answer declared nothing. A right answer counts as its reference, however it is spelled.
    """
    return (
        _answered(evaluations, examples)
        .group_by("reference", "predicted")
        .agg(rows=pl.len())
        .sort("rows", "reference", "predicted", descending=[True, False, False], nulls_last=True)
    )


def macro_f1(evaluations: pl.DataFrame, examples: pl.DataFrame) -> float:
    """The mean F1 of the labels that EXAMPLES' references name; a label that was never predicted has 0."""
    found = _answered(evaluations, examples)
    given = found.group_by("reference").agg(given=pl.len(), right=pl.col("correct").sum())
    said = found.group_by("predicted").agg(said=pl.len())
    both = given.join(said, left_on="reference", right_on="predicted", how="left")
    mean = both.select((2 * pl.col("right") / (pl.col("given") + pl.col("said").fill_null(0))).mean()).item()
    return 0.0 if mean is None else float(mean)


def errors(evaluations: pl.DataFrame, examples: pl.DataFrame, *, count: int, seed: int = 0) -> pl.DataFrame:
    """So many wrong answers, drawn evenly over domains: `domain, prompt, reference, predicted, text, example_id`."""
    wrong = frames.check(evaluations, frames.EVALUATIONS).filter(~pl.col("correct")).sort("example_id")
    turn = pl.int_range(pl.len()).shuffle(seed=seed).over("domain")
    chosen = wrong.with_columns(turn=turn).sort("turn", "domain", "example_id").head(count)
    texts = examples.select("example_id", "prompt", "reference")
    return chosen.join(texts, on="example_id", maintain_order="left").select(
        "domain", "prompt", "reference", "predicted", "text", "example_id"
    )


def _answered(evaluations: pl.DataFrame, examples: pl.DataFrame) -> pl.DataFrame:
    found = frames.check(evaluations, frames.EVALUATIONS).join(
        examples.select("example_id", "reference"), on="example_id", how="inner"
    )
    spelled = {said.casefold(): said for said in sorted(examples["reference"].drop_nulls().unique(), reverse=True)}

    def alike(column: str) -> pl.Expr:  # letters of choices and labels are the same in either case
        return pl.col(column).replace({said: spelled[said.casefold()] for said in known if said.casefold() in spelled})

    known = {*found["reference"].drop_nulls(), *found["predicted"].drop_nulls()}
    said = pl.when("correct").then("reference").otherwise("predicted")
    return found.with_columns(predicted=said).with_columns(alike("reference"), alike("predicted"))


def over(
    domains: list[str],
    rows: Doubles,
    values: Doubles,
    drawn: Doubles,
    *,
    head: Set[str],
    counts: Mapping[str, int] | None,
    level: float,
) -> dict[str, Interval]:
    """Intervals of means over domains, over rows and over each group's domains; a group without any is left out.

    rows, values  (domains,) how many rows a domain has, and their mean
    drawn         (draws, domains) that mean in every draw
    """
    every = np.ones(len(domains))
    weights = {"macro": every, "micro": rows}
    for name, members in groups(domains, head=head, counts=counts).items():
        weights[name] = np.array([domain in members for domain in domains]) * every
    tail = (1 - level) / 2
    found = {}
    for name, weight in weights.items():
        if weight.sum():
            shares = weight / weight.sum()
            low, high = np.quantile(drawn @ shares, [tail, 1 - tail])
            found[name] = Interval(float(values @ shares), float(low), float(high))
    return found
