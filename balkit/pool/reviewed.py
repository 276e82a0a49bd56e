"""What people said of worked answers, as it stands at a version."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import polars as pl

from balkit import frames, texts

#: The step of DECISIONS that hold verdicts, and the reason of those that take an earlier version's back.
STEP, UNDONE = "review", "undone"

#: How `source` begins of rationales that a verdict made; they count as long as a verdict that stands names them.
SOURCE = "review"

#: The reason of a worked answer that a person refused.
REJECTED = "rejected_by_person"


@dataclass(frozen=True)
class Reviewed:
    """The verdicts that stand: the last one on every text, those left out that were undone.

    `accepted`: RATIONALES by example, then in the order of their verdicts. `refused`: (example_id, normalised text).
    `settled`: ids of the examples that have a verdict.
    """

    accepted: pl.DataFrame = field(default_factory=frames.RATIONALES.empty)
    refused: frozenset[tuple[str, str]] = frozenset()
    settled: frozenset[str] = frozenset()

    @classmethod
    def of(cls, reviews: pl.DataFrame, rationales: pl.DataFrame) -> Reviewed:
        """From the pool's verdicts in their order and the RATIONALES of their examples."""
        rows = {row["rationale_id"]: row for row in rationales.iter_rows(named=True)}
        said: dict[tuple[str, str], dict[str, Any] | None] = {}
        settled = set()
        for review in standing(reviews):
            settled.add(review["example_id"])
            row = rows.get(json.loads(review["detail"]).get("as") or "")
            if row is None:  # of the reference alone
                continue
            key = row["example_id"], texts.normalised(row["text"])
            said.pop(key, None)
            said[key] = row if review["kept"] else None
        accepted = frames.RATIONALES.of([row for row in said.values() if row is not None])
        refused = frozenset(key for key, row in said.items() if row is None)
        return cls(accepted.sort("example_id", maintain_order=True), refused, frozenset(settled))

    @cached_property
    def _accepted_ids(self) -> list[str]:
        return self.accepted["rationale_id"].to_list()

    def standing(self, rationales: pl.DataFrame) -> pl.DataFrame:
        """RATIONALES without those whose verdict was undone; what a person refused is not accepted any more."""
        overruled = {example for example, _ in self.refused}
        made = rationales.filter(
            ~pl.col("source").str.starts_with(SOURCE) | pl.col("rationale_id").is_in(self._accepted_ids)
        )
        if not overruled:
            return made
        doubtful = made["accepted"] & made["example_id"].is_in(list(overruled))
        refused = [
            doubt and (example, texts.normalised(text)) in self.refused
            for doubt, example, text in zip(doubtful, made["example_id"], made["text"], strict=True)
        ]
        is_refused = pl.Series(refused, dtype=pl.Boolean)
        return made.with_columns(
            accepted=pl.col("accepted") & ~is_refused,
            reason=pl.when(is_refused).then(pl.lit(REJECTED)).otherwise("reason"),
        )

    def preferred(self, rationales: pl.DataFrame) -> pl.DataFrame:
        """The accepted RATIONALES that stand; of an example with such as a person accepted, these alone."""
        own = pl.col("example_id").is_in(self.accepted["example_id"].unique().implode())
        return self.standing(rationales).filter(
            pl.col("accepted") & (~own | pl.col("rationale_id").is_in(self._accepted_ids))
        )


def standing(reviews: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """The verdicts in their order, without those of versions that were taken back."""
    undone = set()
    for review in reviews.filter(pl.col("reason") == UNDONE).iter_rows(named=True):
        undone.add(json.loads(review["detail"])["version"])
    return (
        review
        for review in reviews.iter_rows(named=True)
        if review["reason"] != UNDONE and review["version"] not in undone
    )
