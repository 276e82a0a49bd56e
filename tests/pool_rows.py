"""Small rows for the tests of the pool."""

from __future__ import annotations

import polars as pl

from balkit import frames, texts
from balkit.pool import Commit, Pool, SnapshotDraft


def examples(*prompts: str, domain: str = "a", split: str = "train", origin: str = "source") -> pl.DataFrame:
    """EXAMPLES with the answer "4"."""
    return frames.EXAMPLES.of(
        [
            {
                "example_id": texts.example_id(prompt, "4"),
                "prompt": prompt,
                "reference": "4",
                "domain": domain,
                "split": split,
                "origin": origin,
                "parents": [],
                "added_in": 0,
            }
            for prompt in prompts
        ]
    )


def rationales(of: pl.DataFrame, *, source: str = "key", accepted: bool = True) -> pl.DataFrame:
    """RATIONALES, one an example."""
    return frames.RATIONALES.of(
        [
            {
                "rationale_id": texts.rationale_id(row["example_id"], f"Since {row['prompt']}.", "4", source),
                "example_id": row["example_id"],
                "text": f"Since {row['prompt']}.",
                "answer": "4",
                "accepted": accepted,
                "reason": None if accepted else "answer differs",
                "detail": None,
                "source": source,
                "author": "teacher",
            }
            for row in of.iter_rows(named=True)
        ]
    )


def snapshot_rows(of: pl.DataFrame, worked: pl.DataFrame, *, stage: int = 1, copy: int = 0) -> pl.DataFrame:
    """SNAPSHOT_ROWS of one stage, in the order of `of`, positions from 0."""
    return frames.SNAPSHOT_ROWS.of(
        [
            {
                **{name: row[name] for name in ("example_id", "domain", "split", "origin", "prompt", "reference")},
                "position": position,
                "row_id": texts.digest([row["example_id"], stage, copy]),
                "stage": stage,
                "rationale_id": work["rationale_id"],
                "copy": copy,
                "rationale": work["text"],
                "answer": work["answer"],
                "author": work["author"],
            }
            for position, (row, work) in enumerate(
                zip(of.iter_rows(named=True), worked.iter_rows(named=True), strict=True)
            )
        ]
    )


def stage_commit(
    of: pl.DataFrame, *, stage: int = 1, parent: str | None = None, copy: int = 0, run: str = "run"
) -> Commit:
    """What a stage commits: its examples, one accepted rationale each, and a snapshot of them all."""
    worked = rationales(of)
    rows = snapshot_rows(of, worked, stage=stage, copy=copy)
    draft = SnapshotDraft(run_id=run, stage=stage, recipe_yaml="name: r\n", parent=parent, rows=rows, deficits=[])
    return Commit(f"stage {stage}", key=(run, stage, "data"), examples=of, rationales=worked, snapshot=draft)


def scores(of: pl.DataFrame, *, checkpoint: str = "c1", value: float | None = 0.5) -> pl.DataFrame:
    """SCORES of one checkpoint."""
    reason = None if value is not None else "too_long"
    rows = [
        {"example_id": name, "checkpoint": checkpoint, "name": "ifd", "settings": "s", "value": value, "reason": reason}
        for name in of["example_id"]
    ]
    return frames.SCORES.of(rows)  # type: ignore[arg-type]


def call(key: str, *, run: str = "run", domain: str = "a", **more: object) -> dict[str, object]:
    """One row of CALLS: 1 attempt, 10 + 20 tokens, 50 millionths of a dollar."""
    row = {
        "key": key, "run_id": run, "purpose": "rationale", "endpoint": "teacher", "model": "big", "domain": domain,
        "stage": 1, "example_id": None, "attempts": 1, "input_tokens": 10, "output_tokens": 20, "cost_microusd": 50,
        "status": "succeeded",
    }  # fmt: skip
    return row | more


def add(pool: Pool, *prompts: str, domain: str = "a", split: str = "train") -> list[str]:
    """Adds examples with the answer "4" through `Pool.add`; returns their ids."""
    frame = pl.DataFrame({"q": prompts, "a": ["4"] * len(prompts), "d": [domain] * len(prompts)})
    pool.add(frame, prompt="q", answer="a", domain="d", split=split)
    return [texts.example_id(prompt, "4") for prompt in prompts]
