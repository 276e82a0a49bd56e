"""What a checkpoint's evaluation comes to: accuracies over all rows, over domains, over head and tail."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import NotRequired, TypedDict

import polars as pl

from balkit import frames
from balkit.student.groups import groups


class DomainAccuracy(TypedDict):
    """`accuracy` is a fraction 0-1 of `rows` evaluated examples."""

    accuracy: float
    rows: int


class Summary(TypedDict):
    """Accuracies as fractions 0-1; null where no evaluated domain counts.

    `macro_accuracy` is the mean of the domains' accuracies, `micro_accuracy` that over all rows;
    `head_accuracy` and `tail_accuracy` are means of the domains' accuracies inside head and tail, the last three, there
    where train examples were counted, those of many-shot, middle and few-shot domains (`groups`).
    """

    macro_accuracy: float | None
    micro_accuracy: float | None
    head_accuracy: float | None
    tail_accuracy: float | None
    per_domain: dict[str, DomainAccuracy]
    many_accuracy: NotRequired[float | None]
    middle_accuracy: NotRequired[float | None]
    few_accuracy: NotRequired[float | None]


def summarise(evaluations: pl.DataFrame, *, head: Set[str], counts: Mapping[str, int] | None = None) -> Summary:
    """The accuracies of one checkpoint's EVALUATIONS; every domain outside `head` is tail.

    counts  train examples by domain, for `many`, `middle` and `few`
    """
    rows = frames.check(evaluations, frames.EVALUATIONS)
    domains = rows.group_by("domain").agg(accuracy=pl.col("correct").mean(), rows=pl.len()).sort("domain")
    means = {
        name: _mean(domains.filter(pl.col("domain").is_in(sorted(members)))["accuracy"])
        for name, members in groups(domains["domain"], head=head, counts=counts).items()
    }
    found = Summary(
        macro_accuracy=_mean(domains["accuracy"]),
        micro_accuracy=_mean(rows["correct"]),
        head_accuracy=means["head"],
        tail_accuracy=means["tail"],
        per_domain={
            row["domain"]: DomainAccuracy(accuracy=row["accuracy"], rows=row["rows"]) for row in domains.to_dicts()
        },
    )
    if counts is not None:
        found["many_accuracy"], found["middle_accuracy"] = means["many"], means["middle"]
        found["few_accuracy"] = means["few"]
    return found


def _mean(values: pl.Series) -> float | None:
    return None if values.is_empty() else float(values.cast(pl.Float64).mean())  # type: ignore[arg-type]
