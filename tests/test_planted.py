"""The audit on a small corpus with planted defects; tests/benchmarks/study_audit.py measures it on a large one."""

from __future__ import annotations

import polars as pl
import pytest
from planted import DEFECTS, KINDS, corpus, scores

from balkit.auditing import REASONS, audit

pytest.importorskip("py3langid")
pytest.importorskip("rapidfuzz")
pytest.importorskip("math_verify")


def test_every_reason_is_planted_in_some_kind() -> None:
    assert set(DEFECTS) == set(REASONS)


#: Rows with each defect; a collapse is one of many rows.
EACH = {reason: 24 if reason == "diversity_collapse" else 6 for reason in DEFECTS}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.long
def test_planted_defects_are_found_and_sound_rows_are_not_accused(kind: str) -> None:
    made = corpus(kind, sound_rows=300, per_defect=EACH, seed=1, skip=("semantic_duplicate",))  # hashing: no meaning
    found = audit(pl.DataFrame(made.rows))
    assert found.summary["kind"] == kind
    result = scores(made, list(zip(found.findings["row"], found.findings["reason"], strict=True)))
    planted = sum(score.planted for score in result.values())
    assert sum(score.found for score in result.values()) >= 0.95 * planted
    assert {reason: score.false for reason, score in result.items() if len(score.false) > 0.01 * score.others} == {}
