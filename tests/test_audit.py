"""The audit: each reason on the row that it is about, silence on sound rows, and what the command makes of it."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import balkit
from balkit.auditing import REASONS, audit
from balkit.cli import main
from balkit.errors import BalkitError, IngestError
from balkit.pool import Commit, Pool
from balkit.texts import rationale_id

pytest.importorskip("py3langid")
pytest.importorskip("rapidfuzz")
pytest.importorskip("math_verify")

Row = dict[str, Any]
Found = dict[str, list[int]]

FIELDS = (
    "a farmer near the river", "the old baker in town", "our school library", "a sailor off the coast", "two engineers",
    "the museum's night guard", "a gardener with little time", "the city's bus drivers", "an orchestra on tour",
    "the clockmaker's daughter", "a chess club", "some beekeepers", "the lighthouse crew", "a film student",
)  # fmt: skip
THINGS = ("pears", "stamps", "ropes", "violins", "maps", "lanterns", "bricks", "novels", "kites", "barrels", "coins")


def sums(count: int = 40) -> list[Row]:
    """Sound word problems with numbers for answers."""
    made = []
    for at in range(count):
        who, what, other = FIELDS[at % 14], THINGS[at % 11], THINGS[(at * 3 + 5) % 11]
        left, right = 3 + 7 * at, 11 + 5 * at
        prompt = f"At dawn {who} counts {left} {what}; by dusk {right} {other} have joined them. How many in all?"
        worked = f"There are {left} {what}. To these come {right} {other}, so {left} + {right} = {left + right}."
        made.append({"q": prompt, "a": str(left + right), "r": f"{worked}\nAnswer: {left + right}", "d": "sums"})
    return made


def topics() -> list[Row]:
    """Sound texts of three topics, with a rationale that declares the label."""
    words = {
        "ship": (
            "The tanker left port with a full hold",
            "A ferry met heavy seas off the cape",
            "Dockers unload cargo",
        ),
        "gold": ("Bullion rose to a new high in London", "The mine yields fine ore", "Jewellers buy less metal"),
        "rail": ("The express stood at the signal", "New track joins both stations", "A locomotive hauls the wagons"),
    }
    made = []
    for label, texts in words.items():
        for at in range(24):
            prompt = f"{texts[at % 3]}, {FIELDS[at % 14]} said, {THINGS[at % 11]} or not, on day {at} of the month."
            worked = f'{FIELDS[at % 14]} speaks of what the text is about. The most fitting label is "{label}".'
            made.append({"q": prompt, "a": label, "r": worked, "d": label})
    return made


def quiz(count: int = 24) -> list[Row]:
    """Sound multiple-choice questions."""
    made = []
    for at in range(count):
        options = [THINGS[(at + step * 2 + 1) % 11] for step in range(4)]
        right = at % 4
        listed = " ".join(f"({letter}) {text}" for letter, text in zip("ABCD", options, strict=True))
        prompt = f"On trip {at}, what does {FIELDS[at % 14]} carry when rain number {at * 13} comes? {listed}"
        worked = f"(A) is the first thought, yet only {options[right]} stay dry. The answer is ({'ABCD'[right]})."
        made.append({"q": prompt, "a": "ABCD"[right], "r": worked, "d": "quiz"})
    return made


def found(rows: list[Row], **given: Any) -> Found:
    """The rows by reason."""
    result = audit(pl.DataFrame(rows), prompt="q", answer="a", rationale="r", domain="d", **given)
    by_reason: Found = {}
    for reason, row in result.findings.select("reason", "row").iter_rows():
        by_reason.setdefault(reason, []).append(row)
    return by_reason


@pytest.mark.parametrize(("rows", "kind"), [(sums, "number"), (topics, "label"), (quiz, "choice")])
def test_sound_rows_give_no_finding_and_their_kind_is_told(rows: Callable[[], list[Row]], kind: str) -> None:
    result = audit(pl.DataFrame(rows()), prompt="q", answer="a", rationale="r", domain="d")
    assert (result.findings.to_dicts(), result.clean, result.summary["kind"]) == ([], True, kind)


def changed(rows: list[Row], at: int, **cells: Any) -> list[Row]:
    return [*rows[:at], rows[at] | cells, *rows[at + 1 :]]


@pytest.mark.parametrize(
    ("reason", "rows", "cells"),
    [
        ("answer_contradicts_rationale", sums, {"a": "7"}),
        ("missing_answer", sums, {"a": None}),
        ("unreadable_answer", sums, {"a": "it depends"}),
        ("empty_prompt", sums, {"q": "  "}),
        ("empty_rationale", sums, {"r": " "}),
        ("truncated_rationale", sums, {"r": "First we add what was there in the morning to the"}),
        ("refusal", sums, {"r": "I'm sorry, but I can't help with that."}),
        ("control_tokens", sums, {"q": "How many are 3 pears and 4 plums?<|im_end|>"}),
        ("control_tokens", sums, {"r": "It is 3.\x07"}),
        (
            "other_language",
            sums,
            {"q": "Ein Bauer zählt am Morgen viele Birnen. Wie viele sind es am Abend insgesamt?"},
        ),
        ("answer_not_among_choices", quiz, {"a": "F"}),
        ("answer_contradicts_rationale", quiz, {"a": "D"}),
        ("label_outside_set", topics, {"a": "weather"}),
        ("label_from_prose", topics, {"a": "rail", "r": 'A trail of smoke: the right label would be "ship".'}),
        ("answer_contradicts_rationale", topics, {"r": 'Though it speaks of a "ship", the correct label is "gold".'}),
    ],
)
def test_a_planted_defect_is_found_in_its_row(reason: str, rows: Callable[[], list[Row]], cells: Row) -> None:
    assert found(changed(rows(), 4, **cells), only=[reason]) == {reason: [4]}


def test_the_last_declaration_wins_and_only_what_is_offered_counts() -> None:
    rows = quiz()
    revised = "The answer is (A). No: on second thought the answer is (F), or rather the answer is (C)."
    assert found(changed(rows, 2, r=revised), only=["answer_contradicts_rationale"]) == {}  # row 2's is C
    assert found(changed(rows, 3, r=revised), only=["answer_contradicts_rationale"]) == {
        "answer_contradicts_rationale": [3]
    }


def test_a_choice_is_declared_by_its_text_too() -> None:
    rows = changed(quiz(), 0, q="What keeps dry? (A) wet sand (B) a sealed jar (C) open nets", a="A")
    worked = "Sand and nets let water in. The answer is: a sealed jar"
    assert found(changed(rows, 0, r=worked), only=["answer_contradicts_rationale"]) == {
        "answer_contradicts_rationale": [0]
    }
    assert found(changed(rows, 0, r=worked, a="B"), only=["answer_contradicts_rationale"]) == {}


def test_choices_that_say_the_same_are_found() -> None:
    rows = changed(
        quiz(), 5, q="What floats? (A) a cork (B) a stone (C) a cork", a="A", r="Stones sink. The answer is (A)."
    )
    assert found(rows) == {"repeated_choices": [5]}


def test_equal_numbers_and_expressions_do_not_contradict() -> None:
    rows = changed(sums(), 0, a="1,400", r="Twice 700 is 1400.\nAnswer: 1400.0")
    assert found(rows, only=["answer_contradicts_rationale"]) == {}
    maths = [
        {"q": f"Simplify $\\frac{{{n}}}{{{2 * n}}}$.", "a": r"\frac12", "r": "So it is $\\boxed{0.5}$.", "d": "m"}
        for n in range(3, 40)
    ]
    assert found(maths, only=["answer_contradicts_rationale"]) == {}
    assert found(changed(maths, 9, a=r"\frac13"), only=["answer_contradicts_rationale"]) == {
        "answer_contradicts_rationale": [9]
    }


def test_duplicates_are_exact_near_or_in_conflict() -> None:
    rows = sums()
    again = rows[3] | {"q": rows[3]["q"].upper()}
    other_words = rows[5] | {"q": rows[5]["q"].replace("At dawn", "At early dawn")}
    in_conflict = rows[7] | {"a": "1", "r": "So it is 1.\nAnswer: 1"}
    assert found([*rows, again, other_words, in_conflict]) == {
        "exact_duplicate": [40],
        "near_duplicate": [41],
        "conflicting_answers": [7, 42],
    }


def test_problems_that_differ_in_a_number_are_no_duplicates() -> None:
    rows = sums()
    variant = rows[3] | {"q": rows[3]["q"].replace("24", "25"), "a": "51", "r": "25 + 26 = 51.\nAnswer: 51"}
    assert found([*rows, variant]) == {}


class SameForAll:
    """An encoder to which all texts mean the same."""

    name, dim = "same", 4

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.full((len(texts), self.dim), 0.5, np.float32)


def test_no_one_is_no_number_that_tells_prompts_apart_and_a_number_word_is() -> None:
    asked = (
        "Nobody wanted the stale loaf.",
        "The stale loaf was wanted by no one.",
        "Two of us wanted the stale loaf.",
    )
    rows = [{"q": text, "a": "7", "r": "Answer: 7", "d": "bread"} for text in asked]
    assert found(rows, only=["semantic_duplicate"], encoder=SameForAll()) == {"semantic_duplicate": [1]}


def test_a_prompt_of_the_test_file_is_a_leak_in_the_train_file(tmp_path: Path) -> None:
    rows = sums()
    reworded = rows[9] | {"q": rows[9]["q"].replace("counts", "counts out")}
    write(tmp_path / "train.jsonl", rows)
    write(tmp_path / "test.jsonl", [rows[4], reworded, *sums(50)[45:]])
    result = audit([tmp_path / "train.jsonl", tmp_path / "test.jsonl"], prompt="q", answer="a", rationale="r")
    assert result.findings.select("file", "row", "reason").rows() == [
        (str(tmp_path / "train.jsonl"), 4, "leak_between_splits"),
        (str(tmp_path / "train.jsonl"), 9, "leak_between_splits"),
    ]


def test_a_split_column_tells_what_is_held_out() -> None:
    rows = [row | {"split": "test" if at == 39 else "train"} for at, row in enumerate(sums())]
    rows[39] |= {"q": rows[2]["q"], "a": rows[2]["a"], "r": rows[2]["r"]}
    assert found(rows) == {"leak_between_splits": [2]}


def test_a_test_file_whose_rows_all_say_train_is_held_out_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "corpus.jsonl", [row | {"split": "train"} for row in sums()])
    write(tmp_path / "test_corpus.jsonl", [row | {"split": "train"} for row in sums()[4:5]])
    files, named = [tmp_path / "corpus.jsonl", tmp_path / "test_corpus.jsonl"], {"prompt": "q", "answer": "a"}
    result = audit(files, **named)
    assert result.findings.select("row", "reason").rows() == [(4, "leak_between_splits")]
    assert "its column `split` says train in every row" in caplog.text
    assert audit(files, **named, split="split").by_reason()["reason"].to_list() == ["exact_duplicate"]


def test_a_long_row_is_measured_against_the_limit() -> None:
    rows = changed(sums(), 6, r="We add them one by one. " * 60 + sums()[6]["r"])
    assert found(rows, max_tokens=200) == {"too_long_for_student": [6]}
    assert found(rows) == {}


def test_a_domain_whose_prompts_are_all_alike_has_collapsed() -> None:
    jars = [
        {
            "q": f"A jar contains {a} red marbles and {b} blue marbles. What is the probability of drawing a red one?",
            "a": f"{a}/{a + b}",
            "r": f"There are {a + b} marbles, {a} of them red.\nAnswer: {a}/{a + b}",
            "d": "chance",
        }
        for a in range(2, 9)
        for b in range(3, 9)
    ]
    reasons = found([*sums(), *jars], kind="number")
    assert list(reasons) == ["diversity_collapse"]
    assert set(range(40, 82)) - set(reasons["diversity_collapse"]) == {40}


def test_a_label_that_no_neighbour_shares_is_likely_wrong() -> None:
    rows = changed(topics(), 30, a="ship", r='The most fitting label is "ship".')
    assert found(rows) == {"likely_wrong_label": [30]}


def test_findings_do_not_depend_on_other_reasons_being_looked_for() -> None:
    rows = changed(changed(sums(), 4, a="7"), 8, q=sums()[7]["q"])
    whole = found(rows)
    for reason in REASONS:
        assert found(rows, only=[reason]) == {key: value for key, value in whole.items() if key == reason}


def write(path: Path, rows: list[Row]) -> None:
    body = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(body.encode()) if path.suffix == ".gz" else body.encode())


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    def called(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["balkit", "audit", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return int(ended.value.code or 0), printed.out, printed.err

    return called


COLUMNS = ("--prompt", "q", "--answer", "a", "--rationale", "r", "--domain", "d")


def test_json_gives_rows_and_a_summary_and_the_exit_code_says_whether_any(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "sound.jsonl", sums())
    write(tmp_path / "bad.jsonl.gz", changed(sums(), 4, a="7"))
    code, out, _ = run("sound.jsonl", *COLUMNS, "--json")
    assert (code, json.loads(out)["rows"]) == (0, [])
    code, out, _ = run("bad.jsonl.gz", *COLUMNS, "--json")
    document = json.loads(out)
    assert (code, set(document)) == (3, {"rows", "summary"})
    (row,) = document["rows"]
    assert set(row) == {"row", "example_id", "reason", "detail"}
    assert (row["row"], row["reason"]) == (4, "answer_contradicts_rationale")
    assert document["summary"]["reasons"]["answer_contradicts_rationale"] == 1
    assert run("bad.jsonl.gz", *COLUMNS, "--exit-zero")[0] == 0
    assert run("bad.jsonl.gz", *COLUMNS, "--skip", "answer_contradicts_rationale")[0] == 0


def test_the_table_counts_reasons_with_an_example_and_lists_rows(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "bad.jsonl", changed(sums(), 4, a="7"))
    code, out, _ = run("bad.jsonl", *COLUMNS)
    assert code == 3
    assert "1 of 40 rows (number answers; prompt: q, answer: a, domain: d, rationale: r)" in out
    assert 'stored "7", declared "62"' in out
    code, out, _ = run("--reasons")
    assert (code, {line.split()[0] for line in out.splitlines()}) == (0, set(REASONS))


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet", "rows.tsv"])
def test_rows_of_tables_are_counted_from_0_below_the_header(run: Run, tmp_path: Path, name: str) -> None:
    frame = pl.DataFrame(changed(sums(), 4, a="7"))
    writers = {".csv": frame.write_csv, ".parquet": frame.write_parquet}
    writers.get(Path(name).suffix, lambda path: frame.write_csv(path, separator="\t"))(tmp_path / name)
    code, out, _ = run(name, *COLUMNS, "--json")
    assert (code, [row["row"] for row in json.loads(out)["rows"]]) == (3, [4])


def test_columns_are_found_by_their_names(run: Run, tmp_path: Path) -> None:
    names = {"q": "question", "a": "answer", "r": "rationale", "d": "subject"}
    write(
        tmp_path / "bad.jsonl", [{names[key]: value for key, value in row.items()} for row in changed(sums(), 4, a="7")]
    )
    code, out, _ = run("bad.jsonl", "--json")
    assert (code, [row["row"] for row in json.loads(out)["rows"]]) == (3, [4])


def test_chats_are_audited_by_their_last_turn(run: Run, tmp_path: Path) -> None:
    chats = [
        {"messages": [{"role": "user", "content": row["q"]}, {"role": "assistant", "content": row["r"]}]}
        for row in sums()
    ]
    chats[6]["messages"][1]["content"] = "As an AI language model I cannot count."
    write(tmp_path / "chats.jsonl", chats)
    code, out, _ = run("chats.jsonl", "--json")
    assert (code, [(row["row"], row["reason"]) for row in json.loads(out)["rows"]]) == (3, [(6, "refusal")])


@pytest.mark.parametrize(
    ("content", "arguments", "said"),
    [
        (b'{"q": "a"}\nnot json\n', ["--prompt", "q"], "bad.jsonl line 2: not JSON"),
        (b'{"q": "a"}\n', ["--prompt", "question"], "no column 'question'"),
        (b'{"x": "a"}\n', [], "name it with --prompt"),
        (b'{"q": {"b": 1}}\n', ["--prompt", "q"], "bad.jsonl line 1: 'q' is a dict"),
        (b"\xff\xfe\x00", ["--prompt", "q"], "UTF-16"),
        (b"", ["--prompt", "q"], "holds no rows"),
        (b'{"q": "a"}\n', ["--prompt", "{q"], "--prompt"),
        (b'{"q": "a"}\n', ["--prompt", "q", "--only", "duplicate"], "no reason 'duplicate'"),
        (b'{"q": "a"}\n', ["--prompt", "q", "--fix"], "balkit add"),
        (b'{"q": "a"}\n', ["--prompt", "q", "--semantic", "7"], "a cosine"),
    ],
)
def test_what_cannot_be_audited_is_said_with_its_place(
    run: Run, tmp_path: Path, content: bytes, arguments: list[str], said: str
) -> None:
    (tmp_path / "bad.jsonl").write_bytes(content)
    code, out, err = run("bad.jsonl", *arguments)
    assert (code, out) == (1, "")
    assert said in err


def test_a_missing_file_is_named(run: Run) -> None:
    code, _, err = run("nowhere.jsonl")
    assert (code, "nowhere.jsonl: no such file" in err) == (1, True)


def test_fix_retires_in_one_version_with_reasons_and_deletes_nothing(run: Run, tmp_path: Path) -> None:
    pool = Pool.create(tmp_path / "pool")
    pool.add(pl.DataFrame(changed(sums(), 4, a="none of them")), prompt="q", answer="a", domain="d")
    examples = pool.examples()
    target = examples.row(11, named=True)
    worked = {"example_id": target["example_id"], "text": "They are 5.\nAnswer: 5", "answer": "5", "source": "given"}
    worked |= {"accepted": True, "reason": None, "detail": None, "author": "teacher"}
    worked["rationale_id"] = rationale_id(worked["example_id"], worked["text"], "5", "given")
    pool.commit(Commit("a wrong rationale", rationales=pl.DataFrame([worked])))
    code, out, _ = run("pool", "--json")
    assert (code, len(json.loads(out)["rows"])) == (3, 2)
    assert pool.version == 2
    code, out, _ = run("pool", "--fix")
    assert (code, pool.version, pool.examples().height) == (0, 3, 38)
    assert "version 3: 2 examples retired" in out
    assert run("pool")[0] == 0
    assert pool.at(2).examples().height == 40
    told = pool.sql("SELECT message FROM versions ORDER BY version DESC LIMIT 1")["message"][0]
    assert told.startswith("retire: audit: ")
    assert "unreadable_answer 1" in told


def test_from_python_an_option_that_is_none_is_refused() -> None:
    frame = pl.DataFrame(sums())
    with pytest.raises(BalkitError, match="no option 'sort'"):
        balkit.audit(frame, prompt="q", sort=1)
    with pytest.raises(BalkitError, match="kind 'numbers'"):
        balkit.audit(frame, prompt="q", kind="numbers")
    with pytest.raises(IngestError, match="no file was given"):
        balkit.audit([])
