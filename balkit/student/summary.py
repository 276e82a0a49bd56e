"""What a checkpoint's evaluation comes to: accuracies over all rows, over domains, over head and tail."""

from __future__ import annotations

from collections.abc import Set
from typing import TypedDict

import polars as pl

from balkit import frames


class DomainAccuracy(TypedDict):
    """`accuracy` is a fraction 0-1 of `rows` evaluated examples."""

    accuracy: float
    rows: int


class Summary(TypedDict):
    """Accuracies as fractions 0-1; null where no evaluated domain counts.

    `macro_accuracy` is the mean of the domains' accuracies, `micro_accuracy` that over all rows;
    `head_accuracy` and `tail_accuracy` are means of the domains' accuracies inside head and tail.
    """

    macro_accuracy: float | None
    micro_accuracy: float | None
    head_accuracy: float | None
    tail_accuracy: float | None
    per_domain: dict[str, DomainAccuracy]


def summarise(evaluations: pl.DataFrame, *, head: Set[str]) -> Summary:
    """The accuracies of one checkpoint's EVALUATIONS; every domain outside `head` is tail."""
    rows = frames.check(evaluations, frames.EVALUATIONS)
    domains = rows.group_by("domain").agg(accuracy=pl.col("correct").mean(), rows=pl.len()).sort("domain")
    in_head = pl.col("domain").is_in(sorted(head))
    return Summary(
        macro_accuracy=_mean(domains["accuracy"]),
        micro_accuracy=_mean(rows["correct"]),
        head_accuracy=_mean(domains.filter(in_head)["accuracy"]),
        tail_accuracy=_mean(domains.filter(~in_head)["accuracy"]),
        per_domain={
            row["domain"]: DomainAccuracy(accuracy=row["accuracy"], rows=row["rows"]) for row in domains.to_dicts()
        },
    )


def _mean(values: pl.Series) -> float | None:
    return None if values.is_empty() else float(values.cast(pl.Float64).mean())  # type: ignore[arg-type]
