"""Sound rows of many shapes, which the audit must not accuse; and sources that must end in a message."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from balkit.auditing import audit
from balkit.errors import BalkitError, IngestError
from balkit.pool import Pool

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


def test_an_instruction_with_its_input_is_the_prompt() -> None:
    rows = [
        {"instruction": "Name what is sold here.", "input": row["prompt"], "output": f"A lot of {WHAT[at % 11]}."}
        for at, row in enumerate(sums())
    ]
    rows[3]["input"] = None
    result = audit(pl.DataFrame(rows))
    assert result.summary["columns"] == [{"prompt": "{instruction}\n\n{input}", "answer": "output"}]
    assert result.findings["reason"].to_list() == []


def test_long_free_texts_do_not_conflict_and_short_ones_do() -> None:
    told = [
        f"In week {at} the {who} said much about {what}."
        for at, (who, what) in enumerate(zip(WHO, WHAT[:10], strict=True))
    ]
    rows = [{"prompt": "Tell of a day at the market, please.", "answer": answer} for answer in told]
    assert found(rows, only=["conflicting_answers"], kind="text") == []
    names = [row | {"answer": WHO[at // 6]} for at, row in enumerate(rows)]
    assert [row for row, _ in found(names, only=["conflicting_answers"], kind="text")] == [6, 7, 8, 9]


def test_one_prompt_with_very_many_answers_is_audited() -> None:
    rows = [{"prompt": "Give a large number, any number.", "answer": f"{at},{at % 10:03}"} for at in range(1, 9000)]
    assert len(found(rows, only=["conflicting_answers"], kind="number")) == 8999
    maths = [row | {"answer": f"\\sqrt{{{at}}}"} for at, row in enumerate(rows[:300])]
    assert len(found(maths, only=["conflicting_answers"], kind="math")) == 300


def quiz(listed: str, answers: str) -> list[Row]:
    """Questions with the listed choices and the answers in turn."""
    return [
        {
            "prompt": f"{row['prompt']} {listed}",
            "answer": answers[at % len(answers)],
            "rationale": f"It is so for {WHO[at % 10]}s too. The answer is ({answers[at % len(answers)].upper()}).",
        }
        for at, row in enumerate(sums())
    ]


def test_small_letters_are_choices() -> None:
    assert found(quiz("(A) red (B) green (C) blue", "abc")) == []
    unlisted = [row | {"prompt": sums()[at]["prompt"]} for at, row in enumerate(quiz("", "abc"))]
    assert found(unlisted, kind="choice") == []


@pytest.mark.parametrize("listed", ["(A) C (B) C++ (C) C#", "(A) a-b (B) a+b (C) a*b"])
def test_choices_that_differ_in_a_sign_differ(listed: str) -> None:
    assert found(quiz(listed, "ABC")) == []


def test_a_choice_is_named_by_its_text_with_its_signs() -> None:
    rows = quiz("(A) C (B) C++ (C) C#", "B")
    assert found([row | {"answer": "C++"} for row in rows], only=["answer_contradicts_rationale"], kind="choice") == []


def test_expressions_that_differ_in_a_sign_are_two_prompts() -> None:
    rows = [{"prompt": f"Simplify a{sign}b as far as you can.", "answer": f"a{sign}b"} for sign in "+-*/"]
    assert found(rows, kind="math") == []


def test_a_set_in_many_languages_has_no_foreign_one() -> None:
    texts = (
        "How many pears does the farmer sell on the market in the morning?",
        "Wie viele Birnen verkauft der Bauer am Morgen auf dem Markt der Stadt?",
        "Combien de poires le fermier vend-il le matin sur le marché de la ville ?",
        "¿Cuántas peras vende el granjero por la mañana en el mercado del pueblo?",
        "Quante pere vende il contadino la mattina al mercato della sua città?",
        "Hoeveel peren verkoopt de boer 's morgens op de markt van het dorp?",
        "Ile gruszek sprzedaje rolnik rano na targu w swoim mieście rodzinnym?",
        "Kolik hrušek prodá zemědělec ráno na trhu ve svém rodném městě?",
    )
    rows = [{"prompt": f"{text} {at}", "answer": str(at)} for at in range(4) for text in texts]
    assert found(rows, only=["other_language"]) == []


@pytest.mark.parametrize(
    "reply",
    [
        "I'm sorry, but your parcel is late: it will be with you on Monday.",
        "I apologize, but the invoice was sent twice; please pay the first one only.",
        "As an AI engineer you should read the manual of the press first.",
    ],
)
def test_an_apology_is_no_refusal(reply: str) -> None:
    rows = [{"prompt": row["prompt"], "answer": reply} for row in sums(4)]
    assert found(rows, only=["refusal"], kind="text") == []


@pytest.mark.parametrize("token", ["<｜begin▁of▁sentence｜>", "<|im_end|>", "<unused12>", "\ufffd", "\x07", "<pad>"])
def test_control_tokens_of_any_template_are_found(token: str) -> None:
    rows = sums(6)
    rows[2]["rationale"] += token
    assert found(rows, only=["control_tokens"]) == [(2, "control_tokens")]


def test_a_folder_of_datasets_gives_its_columns(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"question": row["prompt"], "answer": row["answer"]} for row in sums()]
    rows[4]["answer"] = "none of them"
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "folder")
    result = audit(tmp_path / "folder")
    assert result.summary["columns"] == [{"prompt": "question", "answer": "answer"}]
    assert result.findings["row"].to_list() == [4]


def test_packed_parquet_gives_its_columns(tmp_path: Path) -> None:
    frame = pl.DataFrame([{"question": row["prompt"], "answer": row["answer"]} for row in sums()])
    frame.write_parquet(tmp_path / "rows.parquet")
    (tmp_path / "rows.parquet.gz").write_bytes(gzip.compress((tmp_path / "rows.parquet").read_bytes()))
    assert audit(tmp_path / "rows.parquet.gz").summary["columns"] == [{"prompt": "question", "answer": "answer"}]


def test_a_broken_line_is_named_where_columns_are_found_by_name(tmp_path: Path) -> None:
    lines = [json.dumps({"question": row["prompt"], "answer": row["answer"]}) for row in sums()]
    (tmp_path / "rows.jsonl").write_text("\n".join([*lines[:3], '{"question": ', *lines[3:]]))
    with pytest.raises(IngestError, match="line 4: not JSON"):
        audit(tmp_path / "rows.jsonl")


def test_a_hub_name_needs_the_names_of_its_columns() -> None:
    with pytest.raises(IngestError, match="hf:some/set: name its columns: --prompt"):
        audit("hf:some/set")


def test_a_pool_is_audited_alone(tmp_path: Path) -> None:
    Pool.create(tmp_path / "pool")
    pl.DataFrame(sums()).write_ndjson(tmp_path / "rows.jsonl")
    with pytest.raises(BalkitError, match="pool: is a pool; audit it alone"):
        audit([tmp_path / "pool", tmp_path / "rows.jsonl"])


def test_a_folder_tells_the_split_where_the_file_does_not(tmp_path: Path) -> None:
    for split, rows in (("train", sums()), ("test", sums(2))):
        (tmp_path / split).mkdir()
        pl.DataFrame(rows).write_ndjson(tmp_path / split / "data.jsonl")
    result = audit([tmp_path / split / "data.jsonl" for split in ("train", "test")])
    assert result.findings.select("row", "reason").rows() == [(0, "leak_between_splits"), (1, "leak_between_splits")]
