"""What several answers drawn to each example come to: mean accuracy, pass@k and the answer of the majority."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from math import comb

import numpy as np
import polars as pl

from balkit import answers, frames, recipe
from balkit.student.measures import DRAWS, Doubles, Interval, over


@dataclass(frozen=True)
class Sampled:
    """Intervals by `macro`, `micro` and group of domains: of the mean accuracy, and of pass@k by k."""

    samples: int
    mean: dict[str, Interval]
    pass_at: dict[int, dict[str, Interval]]


def pass_at_k(samples: int, k: int) -> Doubles:
    """How likely one of k answers is right, if 0, 1, ... `samples` of so many are: (samples + 1,) float64.

    The unbiased estimator 1 - C(n - c, k) / C(n, k) of Chen et al. 2021 (Evaluating Large Language Models Trained on
    Code, equation 1).
    """
    return np.array([1 - comb(samples - right, k) / comb(samples, k) for right in range(samples + 1)])


def sampled(
    samples: Sequence[pl.DataFrame],
    *,
    head: Set[str],
    counts: Mapping[str, int] | None = None,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Sampled:
    """Mean accuracy and pass@k, for k of 1, 2, 4, ... and all, of EVALUATIONS of the same examples, a frame a sample.

    Intervals are bootstraps of examples within their domains, as in `measures`: how many examples have 0, 1, ... right
    answers is a multinomial draw.
    """
    n, rows = len(samples), pl.concat([frames.check(each, frames.EVALUATIONS) for each in samples])
    examples = rows.group_by("example_id", "domain").agg(right=pl.col("correct").sum())
    domains = sorted(examples["domain"].unique())
    right = [examples.filter(pl.col("domain") == domain)["right"].to_numpy() for domain in domains]
    totals = np.array([len(each) for each in right])
    shares = np.stack([np.bincount(each, minlength=n + 1) / len(each) for each in right])
    generator = np.random.default_rng(seed)
    drawn = np.stack(
        [generator.multinomial(total, p, size=draws) / total for total, p in zip(totals, shares, strict=True)], axis=1
    )

    def told(value: Doubles) -> dict[str, Interval]:
        return over(domains, totals, shares @ value, drawn @ value, head=head, counts=counts, level=level)

    ks = sorted({*(2**power for power in range(n.bit_length()) if 2**power <= n), n})
    return Sampled(n, told(np.arange(n + 1) / n), {k: told(pass_at_k(n, k)) for k in ks})


def majority(samples: Sequence[pl.DataFrame], *, kind: recipe.Kind) -> pl.DataFrame:
    """EVALUATIONS of the answer that most samples declare (self-consistency, Wang et al. 2023), by example_id.

    Answers that declare nothing do not vote; of answers with as many votes the one that was declared first is taken.
    """
    rows = pl.concat([frames.check(each, frames.EVALUATIONS) for each in samples])
    lists = rows.group_by("example_id", maintain_order=True).agg(pl.all()).sort("example_id")
    chosen = []
    for row, numbers in zip(
        lists.iter_rows(named=True), answers.grouped(lists["predicted"].to_list(), kind=kind), strict=True
    ):
        votes = Counter(number for number in numbers if number is not None)
        at = numbers.index(votes.most_common(1)[0][0]) if votes else 0  # of equals Counter names the first
        settings = f"{row['settings'][0].rsplit(' sample=', 1)[0]} majority of {len(samples)}"
        one = {name: row[name][at] for name in frames.EVALUATIONS.columns if name != "example_id"}
        chosen.append({**one, "example_id": row["example_id"], "settings": settings})
    return frames.EVALUATIONS.of(chosen)
