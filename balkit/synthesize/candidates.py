"""New examples on their way: written, not yet kept, and what they are checked against."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from balkit import verify
from balkit.recipe import Answers, Synthesis
from balkit.synthesize.asking import Example
from balkit.synthesize.demonstrations import Encode


@dataclass(frozen=True)
class Row:
    """A written example. `parents` are the demonstrations that its call showed."""

    example: Example
    parents: tuple[str, ...]
    mended: str | None = None  # what was mended in the JSON of its reply
    attributes: Mapping[str, str] = field(default_factory=dict)  # what its call asked for
    rationale: str | None = None  # the worked answer that came with it

    def note(self) -> str | None:
        """What is to be known of a row that passed, as JSON; None where there is nothing."""
        told = {name: value for name, value in (("attributes", self.attributes), ("mended", self.mended)) if value}
        return json.dumps(told, ensure_ascii=False) if told else None

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
    usual: dict[str, verify.Usual]
    encode: Encode | None
    pool: pl.DataFrame  # example_id, prompt of what the texts above belong to
    kept: dict[str, str] = field(default_factory=dict)  # prompt -> example_id of rows that passed
    vectors: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None  # of known and of evaluation

    def faults(
        self, rows: Sequence[Row], *, section: Synthesis, expected: Answers, labels: Sequence[str]
    ) -> pl.DataFrame:
        """DECISIONS of `verify` on the rows, with `other_id` in the detail; the kept ones are known from now on."""
        written = _frame(rows)
        vectors = self._vectors(written["prompt"].to_list())
        decisions = verify.new_examples(
            written,
            against=verify.Against(self.known, self.evaluation, vectors, self.usual),
            section=section,
            expected=expected,
            labels=labels,
        )
        passed = set(decisions.filter("kept")["example_id"])
        new = [at for at, one in enumerate(rows) if one.example.example_id in passed]
        new = list({rows[at].example.example_id: at for at in reversed(new)}.values())
        prompts = [rows[at].example.prompt for at in new]
        self.known = self.known.plus(prompts)
        self.kept |= {rows[at].example.prompt: rows[at].example.example_id for at in new}
        if vectors is not None:
            self.vectors = np.concatenate([vectors.known, vectors.new[new]]), vectors.evaluation
        return self._with_ids(decisions)

    def _vectors(self, prompts: Sequence[str]) -> verify.Vectors | None:
        """The eval split is encoded with the first row that there is."""
        if self.encode is None or not prompts:
            return None
        new = self.encode(prompts)
        if self.vectors is None:
            known, evaluation = (
                self.encode(texts) if texts else np.empty((0, new.shape[1]), np.float32)
                for texts in (self.known.prompts, self.evaluation.prompts)
            )
            self.vectors = known, evaluation
        return verify.Vectors(new, *self.vectors)

    def _with_ids(self, decisions: pl.DataFrame) -> pl.DataFrame:
        """The ids of the texts that rows collide with, where they are examples."""
        details = [json.loads(detail) if detail else {} for detail in decisions["detail"]]
        others = pl.Series([body["other"] for body in details if "other" in body], dtype=pl.String)
        found = self.pool.filter(pl.col("prompt").is_in(others.implode())).sort("example_id", descending=True)
        ids = self.kept | dict(found.select("prompt", "example_id").iter_rows())
        for body in details:
            if body.get("other") in ids:
                body["other_id"] = ids[body["other"]]
        told = [json.dumps(body, ensure_ascii=False) for body in details]
        return decisions.with_columns(detail=pl.Series(told, dtype=pl.String))


def detail(row: Row, **more: Any) -> str:
    """A refused row as JSON: its `prompt` and `answer`, what its call asked for, and why."""
    body: dict[str, Any] = {"prompt": row.example.prompt, "answer": row.example.reference}
    body |= {"attributes": dict(row.attributes)} if row.attributes else {}
    return json.dumps(body | {name: value for name, value in more.items() if value is not None}, ensure_ascii=False)


def _frame(rows: Sequence[Row]) -> pl.DataFrame:
    columns = ("example_id", "prompt", "reference", "domain")
    return pl.DataFrame(
        [[*(getattr(row.example, name) for name in columns), row.rationale] for row in rows],
        schema=dict.fromkeys((*columns, "rationale"), pl.String()),
        orient="row",
    )
