"""New examples on their way: written, not yet kept, and what they are checked against."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from balkit import verify
from balkit.recipe import Answers, Synthesis
from balkit.synthesize.asking import Example
from balkit.synthesize.demonstrations import Encode
from balkit.vectors import most_similar

#: A written example may be so many times as long as the longest real one.
_LENGTHS = 2


@dataclass(frozen=True)
class Row:
    """A written example. `parents` are the demonstrations that its call showed."""

    example: Example
    parents: tuple[str, ...]
    mended: str | None  # what was mended in the JSON of its reply

    def stored(self) -> dict[str, object]:
        """As a row of EXAMPLES."""
        return {
            "example_id": self.example.example_id,
            "prompt": self.example.prompt,
            "reference": self.example.reference,
            "domain": self.example.domain,
            "split": "train",
            "origin": "synthetic",
            "parents": list(self.parents),
            "added_in": 0,
        }


@dataclass
class Checks:
    """What new rows are compared with; grows by every row that passes."""

    known: verify.Known
    evaluation: verify.Known
    max_chars: int | None
    encode: Encode | None
    vectors: NDArray[np.float32] | None = None  # (known, d), only with `encode`

    @classmethod
    def of(
        cls, demonstrations: pl.DataFrame, *, known: Sequence[str], evaluation: Sequence[str], encode: Encode | None
    ) -> Checks:
        chars = pl.col("prompt").str.len_chars() + pl.col("reference").fill_null("").str.len_chars()
        longest = demonstrations.select(chars.max()).item() if demonstrations.height else None
        limit = None if longest is None else _LENGTHS * longest
        return cls(verify.Known(known), verify.Known(evaluation), limit, encode)

    def faults(
        self, rows: Sequence[Row], *, section: Synthesis, expected: Answers, labels: Sequence[str]
    ) -> pl.DataFrame:
        """DECISIONS of `verify` on the rows; the kept ones are known from now on."""
        written = _frame(rows)
        prompts = written["prompt"].to_list()
        vectors = self.encode(prompts) if self.encode and prompts else None
        decisions = verify.new_examples(
            written,
            against=verify.Against(self.known, self.evaluation, self._similar(vectors), self.max_chars),
            section=section,
            expected=expected,
            labels=labels,
        )
        kept = set(decisions.filter("kept")["example_id"])
        new = [at for at, one in enumerate(rows) if one.example.example_id in kept]
        new = list({rows[at].example.example_id: at for at in reversed(new)}.values())
        self.known = self.known.plus([prompts[at] for at in new])
        if vectors is not None and self.vectors is not None:
            self.vectors = np.concatenate([self.vectors, vectors[new]])
        return decisions

    def _similar(self, new: NDArray[np.float32] | None) -> verify.Similar | None:
        if new is None or self.encode is None:
            return None
        if self.vectors is None:
            known = self.known.prompts
            self.vectors = self.encode(known) if known else np.empty((0, new.shape[1]), np.float32)
        nearest = most_similar(new, among=self.vectors)
        return verify.Similar(nearest.similarity, nearest.index, new @ new.T)


def detail(row: Row, **more: Any) -> str:
    body = {"prompt": row.example.prompt, "answer": row.example.reference}
    return json.dumps(body | {name: value for name, value in more.items() if value is not None}, ensure_ascii=False)


def _frame(rows: Sequence[Row]) -> pl.DataFrame:
    columns = ("example_id", "prompt", "reference", "domain")
    return pl.DataFrame(
        [[getattr(row.example, name) for name in columns] for row in rows],
        schema=dict.fromkeys(columns, pl.String()),
        orient="row",
    )
