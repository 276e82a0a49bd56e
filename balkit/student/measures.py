"""How sure an accuracy is, whether two checkpoints differ, and what a classifier takes for what.

Intervals are percentile bootstraps (Efron 1979) of rows within their domains: a domain's number of eval rows was
chosen, not drawn. Resampling n rows of which a share p is right is a binomial draw, and resampling pairs of answers a
multinomial one, so nothing is resampled row by row.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from balkit import frames
from balkit.errors import StudentError

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
    evaluations: pl.DataFrame, *, head: Set[str], level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> dict[str, Interval]:
    """`macro`, `micro`, `head` and `tail` accuracy of a checkpoint's EVALUATIONS, those that have a domain."""
    rows = frames.check(evaluations, frames.EVALUATIONS)
    domains = rows.group_by("domain").agg(right=pl.col("correct").sum(), rows=pl.len()).sort("domain")
    if domains.is_empty():
        return {}
    counts, right = domains["rows"].to_numpy(), domains["right"].to_numpy()
    drawn = np.random.default_rng(seed).binomial(counts, right / counts, size=(draws, len(counts)))
    return _over(domains["domain"].to_list(), counts, right / counts, drawn / counts, head=head, level=level)


def compare(
    first: pl.DataFrame,
    second: pl.DataFrame,
    *,
    head: Set[str],
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
    counts = domains["rows"].to_numpy()
    shares = domains.select(*kinds).to_numpy() / counts[:, None]
    generator = np.random.default_rng(seed)
    drawn = np.stack([generator.multinomial(n, p, size=draws) for n, p in zip(counts, shares, strict=True)], axis=1)
    total = domains.select(pl.col(*kinds).sum()).row(0, named=True)
    return Comparison(
        rows=paired.height,
        **total,
        p_value=mcnemar(total["only_first"], total["only_second"]),
        differences=_over(
            domains["domain"].to_list(),
            counts,
            shares[:, 2] - shares[:, 1],
            (drawn[..., 2] - drawn[..., 1]) / counts,
            head=head,
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


def _over(
    domains: list[str], counts: Doubles, values: Doubles, drawn: Doubles, *, head: Set[str], level: float
) -> dict[str, Interval]:
    """Intervals of means over domains and rows; `drawn` is (draws, domains)."""
    is_head = np.array([domain in head for domain in domains])
    every = np.ones(len(domains))
    weights = {"macro": every, "micro": counts, "head": is_head * every, "tail": ~is_head * every}
    tail = (1 - level) / 2
    found = {}
    for name, weight in weights.items():
        if weight.sum():
            shares = weight / weight.sum()
            low, high = np.quantile(drawn @ shares, [tail, 1 - tail])
            found[name] = Interval(float(values @ shares), float(low), float(high))
    return found
