"""What a report reads of a pool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from balkit import frames, texts
from balkit.pool import Commit, Overview, Pool

RUN = "r" * 64


def scored(ids: str, values: dict[str, float]) -> pl.DataFrame:
    one = {"checkpoint": "c" * 64, "name": "ifd", "settings": "response=reference"}
    return frames.SCORES.of([one | {"example_id": name, "value": values[name], "reason": None} for name in ids])


def ranked(method: str, ids: str, *, reason: str) -> list[dict[str, Any]]:
    one = {"domain": "d", "step": "select", "method": method, "kept": False, "reason": reason}
    return [one | {"example_id": name} for name in ids]


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """Two stages scored by the same weights: stage 3's candidates b and c had their scores since stage 2."""
    made, values = Pool.create(tmp_path / "pool"), {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}
    rows = pl.DataFrame({"q": ["a", "b", "c", "d"], "a": ["x"] * 4, "d": ["d"] * 4})
    made.add(rows, prompt="q", answer="a", domain="d")
    ids = dict(made.examples().select("prompt", "example_id").iter_rows())

    def commit(stage: int, step: str, **frame: pl.DataFrame) -> None:
        real = {name: one.with_columns(pl.col("example_id").replace_strict(ids)) for name, one in frame.items()}
        made.commit(Commit(f"{stage} {step}", key=(RUN, stage, step), **real))

    commit(1, "data", decisions=frames.DECISIONS.of(ranked("k_center", "abcd", reason="below quota")))
    commit(1, "scores", scores=scored("abc", values))
    commit(2, "data", decisions=frames.DECISIONS.of(ranked("ifd", "abc", reason="below quota")))
    commit(2, "scores", scores=scored("bcd", values))
    told = [
        *ranked("ifd", "bcd", reason="below quota"),
        *ranked("ifd", "a", reason="unscored: not among the candidates"),
    ]
    commit(3, "data", decisions=frames.DECISIONS.of(told))
    return made


def test_a_candidate_that_was_scored_before_counts_in_every_stage_that_ranked_it(pool: Pool) -> None:
    found = Overview(pool.path).ifd_by_stage(RUN)
    assert {stage: sorted(part["ifd"]) for (stage,), part in found.group_by("stage")} == {
        2: [0.1, 0.2, 0.3],
        3: [0.2, 0.3, 0.4],
    }


def test_a_sample_of_what_was_refused_shows_the_answer_of_its_own_run(pool: Pool) -> None:
    example = pool.examples()["example_id"][0]
    for number, run_id in enumerate([RUN, "s" * 64]):
        text = f"worked out by run {number}"
        answer = {"example_id": example, "text": text, "answer": "y", "source": "t", "author": "t", "accepted": False}
        answer |= {"rationale_id": texts.rationale_id(example, text, "y", "t"), "reason": "wrong"}
        decision = {"example_id": example, "domain": "d", "step": "rationale", "method": "m", "kept": False}
        frame = frames.DECISIONS.of([decision | {"reason": "wrong"}])
        pool.commit(
            Commit("refused", key=(run_id, 9, "data"), rationales=frames.RATIONALES.of([answer]), decisions=frame)
        )
    for number, run_id in enumerate([RUN, "s" * 64]):
        found = Overview(pool.path).refused_samples(run_id, each=3, chars=50)
        assert found.filter(pl.col("reason") == "wrong")["text"].to_list() == [f"worked out by run {number}"]
