"""Sound rows of many shapes, which the audit must not accuse; and sources that must end in a message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from balkit.auditing import audit
from balkit.errors import IngestError

pytest.importorskip("py3langid")
pytest.importorskip("rapidfuzz")

Row = dict[str, Any]

WHO = ("farmer", "baker", "sailor", "engineer", "guard", "driver", "drummer", "beekeeper", "student", "clockmaker")
WHAT = ("pears", "stamps", "ropes", "violins", "maps", "lanterns", "bricks", "novels", "kites", "barrels", "coins")


def sums(count: int = 30, *, ending: str = "So there are {} of them in all.") -> list[Row]:
    """Sums with a worked answer that ends as told."""
    rows = []
    for at in range(count):
        left, right = 3 + 7 * at, 11 + 5 * at
        prompt = f"The {WHO[at % 10]} has {left} {WHAT[at % 11]} and buys {right} {WHAT[at * 3 % 11]}. How many in all?"
        worked = f"We add what is bought to what is there: {left} + {right}.\n{ending.format(left + right)}"
        rows.append({"prompt": prompt, "answer": str(left + right), "rationale": worked})
    return rows


def found(rows: list[Row], **given: Any) -> list[tuple[int, str]]:
    return audit(pl.DataFrame(rows), **given).findings.select("row", "reason").rows()


@pytest.mark.parametrize(
    "ending",
    [
        "**So it is {} in all.**",
        "*That makes {} of them, done.*",
        "<p>So it is {} in all.</p>",
        "<think>It is {} in all.</think>",
        "Answer: {}\n\n---",
        "It is {}; see https://example.org/sums/",
        "Then it is {}, as a program in C++",
    ],
)
def test_a_whole_text_is_not_truncated_whatever_closes_it(ending: str) -> None:
    assert found(sums(ending=ending), only=["truncated_rationale"]) == []


@pytest.mark.parametrize("ending", ["Now we add 3 +", "**So it is** the", "and then, ", "That is 5 *", "see (", "a /"])
def test_a_text_that_breaks_off_is_truncated(ending: str) -> None:
    rows = sums()
    rows[4]["rationale"] = f"We add what is bought.\n{ending}"
    assert found(rows, only=["truncated_rationale"]) == [(4, "truncated_rationale")]


def test_labels_that_the_texts_do_not_tell_are_not_likely_wrong() -> None:
    rows = [row | {"answer": ("red", "green", "blue")[at * at % 7 % 3]} for at, row in enumerate(sums(150))]
    assert found(rows, only=["likely_wrong_label"], kind="label") == []


@pytest.mark.parametrize("empty", [6, 15, 30])
def test_a_domain_of_empty_prompts_is_audited(empty: int) -> None:
    rows = [row | {"prompt": " "} if at < empty else row for at, row in enumerate(sums())]
    reasons = {reason for _, reason in found(rows)}
    assert "empty_prompt" in reasons
    assert "diversity_collapse" not in reasons


@pytest.mark.parametrize("named", [{"prompt": "nosuch"}, {"rationale": "nosuch"}, {"split": "nosuch"}])
@pytest.mark.parametrize("kind", ["rows.jsonl", "rows.csv", "rows.parquet", "rows.arrow", "frame"])
def test_a_missing_column_is_named_beside_columns_that_are_there(tmp_path: Path, kind: str, named: Row) -> None:
    frame = pl.DataFrame([row | {"split": "train"} for row in sums()])
    path = tmp_path / kind
    writers = {
        ".jsonl": frame.write_ndjson,
        ".csv": frame.write_csv,
        ".parquet": frame.write_parquet,
        ".arrow": frame.write_ipc,
    }
    if kind != "frame":
        writers[path.suffix](path)
    with pytest.raises(IngestError, match="no column 'nosuch'"):
        audit(frame if kind == "frame" else path, **named)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("prompt,answer,rationale\n", "holds no rows"),
        ('prompt,answer,rationale\na,b,c\nd,"e,f\n', "line 3"),
    ],
)
def test_a_broken_csv_with_a_rationale_is_told_by_its_place(tmp_path: Path, body: str, said: str) -> None:
    (tmp_path / "rows.csv").write_text(body)
    with pytest.raises(IngestError, match=said):
        audit(tmp_path / "rows.csv")
