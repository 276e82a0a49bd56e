"""What teacher and reference do not agree on, and what a person said of it: stored, undone, used by the next run."""

from __future__ import annotations

import csv
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from once import copied
from small import Rule, make_pool, make_recipe

from balkit import frames, texts
from balkit.cli import main
from balkit.cli.talk import Talk
from balkit.errors import IngestError, PoolError
from balkit.pool import Commit, Pool
from balkit.results import RunResult
from balkit.review import Case, Verdict, cases, cases_of, judge, read_verdicts, undo, write_cases
from balkit.stages import run
from balkit.steps import annotate, validation_rows
from balkit.teacher import Request, Scripted


def rationale(example: str, text: str, answer: str | None, *, call: str, reason: str | None = None) -> dict[str, Any]:
    return {
        "rationale_id": texts.rationale_id(example, text, answer, call), "example_id": example, "text": text,
        "answer": answer, "accepted": reason is None, "reason": reason, "detail": None, "source": call, "author": "t",
    }  # fmt: skip


def ids(pool: Pool) -> dict[str, str]:
    return dict(pool.examples().select("prompt", "example_id").iter_rows())


Balkit = Callable[..., tuple[int, str, str]]


@pytest.fixture
def balkit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Balkit:
    """Runs a command in `tmp_path`; its exit code, stdout and stderr."""

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["balkit", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return command


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """Four sums. The teacher insists on 9 for 3 + 5, disagrees with itself on an open question, and tied on another."""
    return copied(disagreeing, tmp_path / "pool")


def disagreeing(folder: Path) -> None:
    made = Pool.create(folder)
    asked = [("3 + 5?", "8", "sums"), ("2 + 2?", "4", "sums"), ("Why?", None, "open"), ("Who?", None, "open")]
    rows = [{"q": prompt, "a": reference, "d": domain} for prompt, reference, domain in asked]
    made.add(pl.DataFrame(rows), prompt="q", answer="a", domain="d")
    known, wrong = ids(made), "answer_contradicts_reference"
    given = [
        rationale(known["3 + 5?"], "Count.\nAnswer: 9", "9", call="1", reason=wrong),
        rationale(known["3 + 5?"], "Count on.\nAnswer: 9.0", "9.0", call="2", reason=wrong),
        rationale(known["3 + 5?"], "Guess.\nAnswer: 7", "7", call="3", reason=wrong),
        rationale(known["2 + 2?"], "Guess.\nAnswer: 5", "5", call="4", reason=wrong),
        rationale(known["2 + 2?"], "Double.\nAnswer: 4", "4", call="5"),
        rationale(known["Why?"], "So.\nAnswer: yes", "yes", call="6"),
        rationale(known["Why?"], "Not so.\nAnswer: no", "no", call="7"),
        rationale(known["Who?"], "Me.\nAnswer: me", "me", call="8", reason="vote_tied"),
        rationale(known["Who?"], "You.\nAnswer: you", "you", call="9", reason="vote_tied"),
    ]
    made.commit(Commit(message="asked", rationales=frames.RATIONALES.of(given)))


def case(pool: Pool, prompt: str, **options: Any) -> Case:
    return next(one for one in cases(pool, **options) if one.prompt == prompt)


def accepted(pool: Pool) -> list[tuple[str, str | None]]:
    return pool.reviewed().accepted.select("text", "answer").rows()


# -- conflicts


def test_conflicts_say_who_disagrees_and_how_often(pool: Pool) -> None:
    found = pool.conflicts()
    told = found.select("prompt", "why", "reference", "answer", "said", "tries", "accepted", "others").rows()
    assert told[0] == ("3 + 5?", "contradicts_reference", "8", "9", 2, 3, 0, "7 (1)")
    assert ("2 + 2?", "contradicts_reference", "4", "5", 1, 2, 1, None) in told
    assert {(row[0], row[1]) for row in told[1:]} >= {("Why?", "accepted_disagree"), ("Who?", "vote_tied")}
    assert pool.conflicts(domain="sums")["prompt"].to_list() == ["3 + 5?", "2 + 2?"]


def test_a_vote_that_was_decided_later_and_answers_that_mean_the_same_are_no_conflict(pool: Pool) -> None:
    known = ids(pool)
    decided = [
        rationale(known["Who?"], "Surely me.\nAnswer: me", "me", call="10"),
        rationale(known["2 + 2?"], "Add.\nAnswer: 4.0", "4.0", call="11"),
    ]
    pool.commit(Commit(message="more", rationales=frames.RATIONALES.of(decided)))
    assert "Who?" not in pool.conflicts()["prompt"].to_list()
    assert dict(pool.conflicts().select("prompt", "why").iter_rows())["2 + 2?"] == "contradicts_reference"


def test_retired_examples_are_in_no_conflict(pool: Pool) -> None:
    pool.retire([ids(pool)["3 + 5?"]], reason="odd")
    assert "3 + 5?" not in pool.conflicts()["prompt"].to_list()


def test_the_command_lists_them_for_people_and_machines(balkit: Balkit, pool: Pool) -> None:
    code, out, _ = balkit("conflicts", "pool", "--domain", "sums")
    assert code == 0
    assert "contradicts_reference" in out
    assert json.loads(balkit("conflicts", "pool", "--json")[1]) == pool.conflicts().to_dicts()
    rows = list(csv.DictReader(balkit("conflicts", "pool", "--csv")[1].splitlines()))
    assert [row["example_id"] for row in rows] == pool.conflicts()["example_id"].to_list()


# -- verdicts


def test_an_accepted_answer_is_a_rationale_of_its_own_and_the_refused_one_stays(pool: Pool) -> None:
    one = case(pool, "3 + 5?")
    before = pool.rationales().height
    version = judge(pool, [(one, [Verdict(one.example_id, "accept", one.worked[0].rationale_id, note="base 7")])])
    assert version == pool.version
    assert pool.rationales().height == before + 1
    assert accepted(pool) == [(one.worked[0].text, one.worked[0].answer)]
    (made,) = pool.reviewed().accepted.to_dicts()
    assert (made["author"], made["source"]) == ("t", "review:accepted")
    (row,) = pool.decisions().filter(pl.col("step") == "review").to_dicts()
    assert (row["method"], row["kept"], row["reason"], row["version"]) == ("person", True, "accepted", version)
    assert json.loads(row["detail"])["note"] == "base 7"
    assert "3 + 5?" not in pool.conflicts()["prompt"].to_list()
    assert "3 + 5?" in pool.conflicts(settled=True)["prompt"].to_list()
    assert pool.check() == []


def test_a_rejected_answer_that_was_accepted_counts_no_more(pool: Pool) -> None:
    one = case(pool, "Why?")
    wrong = next(each for each in one.worked if each.answer == "no")
    judge(pool, [(one, [Verdict(one.example_id, "reject", wrong.rationale_id)])])
    standing = pool.reviewed().standing(pool.rationales())
    left = standing.filter(pl.col("example_id") == one.example_id)
    assert dict(left.select("answer", "accepted").iter_rows()) == {"yes": True, "no": False}
    assert dict(left.select("answer", "reason").iter_rows())["no"] == "rejected_by_person"


def test_a_fixed_answer_takes_the_place_of_the_last_line(pool: Pool) -> None:
    one = case(pool, "3 + 5?")
    which = next(each for each in one.worked if each.answer == "7")
    judge(pool, [(one, [Verdict(one.example_id, "fix", which.rationale_id, answer="8")])])
    assert accepted(pool) == [("Guess.\nAnswer: 8", "8")]
    assert pool.reviewed().accepted["author"].to_list() == ["person"]


def test_a_person_may_write_the_whole_of_it(pool: Pool) -> None:
    one = case(pool, "Who?")
    judge(pool, [(one, [Verdict(one.example_id, "fix", rationale="Think.", answer="they")])])
    assert accepted(pool) == [("Think.\nAnswer: they", "they")]


def test_a_fixed_reference_is_another_example_with_the_answers_that_agree(pool: Pool) -> None:
    one = case(pool, "3 + 5?")
    judge(pool, [(one, [Verdict(one.example_id, "fix", reference="9")])])
    new = pool.examples().filter(pl.col("prompt") == "3 + 5?").row(0, named=True)
    assert (new["reference"], new["domain"], new["split"], new["origin"]) == ("9", "sums", "train", "source")
    assert new["example_id"] == texts.example_id("3 + 5?", "9")
    reason = pool.sql("SELECT reason FROM retirements").item()
    assert new["example_id"] in reason
    made = pool.reviewed().accepted
    assert set(made["example_id"]) == {new["example_id"]}
    assert set(made["answer"]) == {"9", "9.0"}
    assert new["example_id"] not in pool.conflicts()["example_id"].to_list()
    with pytest.raises(PoolError, match="cannot be taken back"):
        undo(pool)
    assert pool.check() == []


def test_an_example_whose_domain_is_its_reference_moves_with_it(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "labels")
    row = pool.examples(split="train", domain="fruit").row(0, named=True)
    bad = rationale(row["example_id"], "A tool.\nAnswer: tool", "tool", call="1", reason="answer_contradicts_reference")
    pool.commit(Commit(message="asked", rationales=frames.RATIONALES.of([bad])))
    (one,) = cases(pool)
    with pytest.raises(PoolError, match="no domain 'vehicle'"):
        judge(pool, [(one, [Verdict(one.example_id, "fix", reference="vehicle")])])
    judge(pool, [(one, [Verdict(one.example_id, "fix", reference="tool")])])
    assert pool.examples().filter(pl.col("prompt") == one.prompt)["domain"].to_list() == ["tool"]


@pytest.mark.long
def test_the_last_verdict_on_a_text_counts_and_undoing_it_brings_back_the_one_before(pool: Pool) -> None:
    one = case(pool, "Why?")
    no = next(each.rationale_id for each in one.worked if each.answer == "no")
    states = []
    for verdict in ("accept", "reject", "accept"):
        again = case(pool, "Why?", settled=True)
        judge(pool, [(again, [Verdict(one.example_id, verdict, no)])])  # type: ignore[arg-type]
        states.append(accepted(pool))
    assert [len(state) for state in states] == [1, 0, 1]
    for expected in (states[1], states[0], []):
        taken = undo(pool)
        assert taken is not None
        assert taken.example_ids == (one.example_id,)
        assert accepted(pool) == expected
    assert undo(pool) is None
    assert "Why?" in pool.conflicts()["prompt"].to_list()


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ({"verdict": "accept"}, "say which one to accept"),
        ({"verdict": "accept", "rationale_id": "nope"}, "has no worked answer 'nope'"),
        ({"verdict": "accept", "answer": "8"}, "use fix"),
        ({"verdict": "fix"}, "neither another rationale"),
        ({"verdict": "fix", "answer": "8"}, "which worked answer the new answer is for"),
        ({"verdict": "fix", "rationale": "I think so"}, "declares no final answer"),
        ({"verdict": "fix", "rationale": "So.\nAnswer: 7", "answer": "8"}, "declares '7', and the new answer is '8'"),
        ({"verdict": "fix", "reference": " 8 "}, "is the one that it has"),
        ({"verdict": "fix", "reference": "  "}, "reference is empty"),
    ],
)
def test_a_verdict_that_cannot_be_is_refused_with_what_to_do(pool: Pool, verdict: dict[str, Any], said: str) -> None:
    one, before = case(pool, "3 + 5?"), pool.version
    with pytest.raises(PoolError, match=said):
        judge(pool, [(one, [Verdict(one.example_id, **verdict)])])
    assert pool.version == before


def test_a_reference_is_not_fixed_to_that_of_a_retired_example(pool: Pool) -> None:
    one = case(pool, "3 + 5?")
    judge(pool, [(one, [Verdict(one.example_id, "fix", reference="9")])])
    (made,) = cases_of(pool, {ids(pool)["3 + 5?"]: "again"})
    with pytest.raises(PoolError, match="already, which is retired"):
        judge(pool, [(made, [Verdict(made.example_id, "fix", reference="8")])])
    assert "3 + 5?" in ids(pool)


def test_a_reference_is_not_fixed_to_that_of_an_eval_example(pool: Pool) -> None:
    pool.add(pl.DataFrame([{"q": "3 + 5?", "a": "9", "d": "sums"}]), prompt="q", answer="a", domain="d", split="eval")
    one = case(pool, "3 + 5?")
    with pytest.raises(PoolError, match="already, which is in use in split eval"):
        judge(pool, [(one, [Verdict(one.example_id, "fix", reference="9")])])
    assert accepted(pool) == []


# -- files


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_a_file_filled_in_is_applied_all_at_once(
    balkit: Balkit,
    pool: Pool,
    tmp_path: Path,
    ending: str,
) -> None:
    file = tmp_path / f"cases{ending}"
    code, out, _ = balkit("review", "pool", "--export", str(file), "--json")
    assert (code, json.loads(out)["lines"]) == (0, 9)
    filled = list(fill(file, {"Count.": {"verdict": "fix", "fixed_reference": "9"}, "Not so.": {"verdict": "reject"}}))
    assert len(filled) == 2
    code, out, _ = balkit("review", "pool", "--apply", str(file), "--json")
    assert (code, json.loads(out)) == (0, {"version": 3, "accept": 0, "reject": 1, "fix": 1})
    assert set(pool.conflicts()["prompt"]) == {"2 + 2?", "Who?"}


def fill(file: Path, by_text: dict[str, dict[str, str]]) -> Iterator[dict[str, Any]]:
    """Fills in the lines whose rationale begins with a key."""
    if file.suffix == ".csv":
        with file.open(newline="") as opened:
            rows = list(csv.DictReader(opened))
    else:
        rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        for start, values in by_text.items():
            if row["rationale"].startswith(start + "\n"):
                row |= values
                yield row
    if file.suffix == ".csv":
        with file.open("w", newline="") as opened:
            writer = csv.DictWriter(opened, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_everything_wrong_with_a_file_is_told_with_its_line_and_nothing_is_stored(pool: Pool, tmp_path: Path) -> None:
    one = case(pool, "3 + 5?")
    first, second = (each.rationale_id for each in one.worked[:2])
    lines: Sequence[Any] = [
        {"example_id": one.example_id, "rationale_id": first, "verdict": "accept"},
        {"example_id": one.example_id, "rationale_id": first, "verdict": "reject"},
        {"example_id": one.example_id, "rationale_id": second, "verdict": None},
        {"example_id": "nobody", "verdict": "reject"},
        {"example_id": one.example_id, "rationale_id": "none such", "verdict": "accept"},
        {"example_id": one.example_id, "verdict": "maybe"},
        {"example_id": one.example_id, "fixed_answer": "8"},
        {"example_id": one.example_id, "verdict": "reject", "comment": "typo"},
        {"example_id": one.example_id, "verdict": "fix", "fixed_answer": 8},
        ["no object"],
    ]
    file, before = tmp_path / "bad.jsonl", pool.version
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + "{broken\n")
    with pytest.raises(IngestError) as caught:
        read_verdicts(pool, file)
    told = "\n".join(caught.value.problems)
    for line, said in [
        (2, "reject is another verdict on the worked answer of line 1 (accept)"), (4, "no example 'nobody'"),
        (6, "verdict 'maybe' is none of accept, reject, fix"), (7, "fixed_answer is filled in, and verdict is not"),
        (8, "unknown column 'comment'"), (9, "fixed_answer is 8, not a text"), (10, "no JSON object"), (11, "no JSON"),
    ]:  # fmt: skip
        assert any(f":{line}: " in problem and said in problem for problem in caught.value.problems), (line, told)
    assert "no worked answer 'none such'" in told
    assert pool.version == before


def test_cells_that_are_formulas_are_escaped_and_come_back(pool: Pool, tmp_path: Path) -> None:
    one = case(pool, "3 + 5?")
    odd = {**vars(one), "prompt": "=1+1"}
    write_cases([Case(**odd)], tmp_path / "cases.csv")
    rows = list(csv.DictReader((tmp_path / "cases.csv").open(newline="")))
    assert {row["prompt"] for row in rows} == {"'=1+1"}
    rows[0] |= {"verdict": "fix", "fixed_answer": "'-8"}
    with (tmp_path / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    ((_, (verdict,)),) = read_verdicts(pool, tmp_path / "cases.csv")
    assert verdict.answer == "-8"


@pytest.mark.parametrize("name", ["cases.xlsx", "no/such/folder/cases.jsonl"])
def test_a_file_that_cannot_be_is_named(balkit: Balkit, pool: Pool, name: str) -> None:
    for option in ("--export", "--apply"):
        code, _, err = balkit("review", "pool", option, name)
        assert code == 1
        assert name in err


def lines(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    file = tmp_path / "verdicts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.parametrize("verdict", ["accept", "reject", "fix"])
@pytest.mark.long
def test_a_file_may_be_applied_again_and_filled_in_further(pool: Pool, tmp_path: Path, verdict: str) -> None:
    file = tmp_path / "cases.csv"
    write_cases(cases(pool), file)
    said = {"verdict": verdict, "fixed_answer": "8" if verdict == "fix" else ""}
    list(fill(file, {"Guess.": said}))
    judge(pool, read_verdicts(pool, file))
    before = accepted(pool)
    list(fill(file, {"So.": {"verdict": "Accept "}}))
    judge(pool, read_verdicts(pool, file))
    assert set(accepted(pool)) == {*before, ("So.\nAnswer: yes", "yes")}
    assert pool.check() == []


def test_a_file_that_fixed_a_reference_says_so_when_it_comes_again(pool: Pool, tmp_path: Path) -> None:
    old = ids(pool)["3 + 5?"]
    file = lines(tmp_path, {"example_id": old, "verdict": "fix", "fixed_reference": "9"})
    judge(pool, read_verdicts(pool, file))
    with pytest.raises(IngestError) as caught:
        read_verdicts(pool, file)
    assert f"it is {ids(pool)['3 + 5?']} now" in caught.value.problems[0]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"note": "\ud800", "verdict": "reject"}, "the note of reject holds half of a surrogate pair"),
        ({"fixed_reference": "\ud800", "verdict": "fix"}, "the reference of fix holds half of a surrogate pair"),
        ({"rationale_id": "\ud800", "verdict": "reject"}, "rationale_id holds half of a surrogate pair"),
        ({"note": "no verdict"}, "no line says 'verdict'"),
    ],
)
def test_a_line_that_cannot_be_stored_is_told(pool: Pool, tmp_path: Path, line: dict[str, str], said: str) -> None:
    with pytest.raises(IngestError) as caught:
        read_verdicts(pool, lines(tmp_path, {"example_id": ids(pool)["3 + 5?"]} | line))
    assert said in "\n".join(caught.value.problems)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("deep.jsonl", "[" * 200_000, "is no JSON"),
        ("blank.csv", "", "is empty"),
        ("other.csv", "example_id,note\na,b\n", "no column 'verdict'"),
        ("marks.csv", "example_id;rationale_id;verdict\na;b;accept\n", "by commas, not by ';'"),
    ],
)
def test_a_file_of_no_verdicts_is_refused(
    balkit: Balkit, pool: Pool, tmp_path: Path, name: str, text: str, said: str
) -> None:
    (tmp_path / name).write_text(text)
    code, _, err = balkit("review", "pool", "--apply", name)
    assert (code, said in " ".join(err.split())) == (1, True), err


def test_a_cell_of_any_length_comes_back(pool: Pool, tmp_path: Path) -> None:
    one = case(pool, "3 + 5?")
    odd = {**vars(one), "prompt": "long " * 40_000}
    write_cases([Case(**odd)], tmp_path / "cases.csv")
    assert read_verdicts(pool, tmp_path / "cases.csv") == []


def test_a_domain_or_reason_that_nothing_has_is_no_good_news(balkit: Balkit, pool: Pool) -> None:
    for words in (["conflicts", "pool", "--domain", "nosuch"], ["review", "pool", "--reason", "nosuch"]):
        code, _, err = balkit(*words)
        assert (code, "'nosuch'; there are: " in " ".join(err.split())) == (1, True), err
    assert balkit("review", "pool", "--reason", "vote_thin", "--export", "none.csv")[0] == 0


# -- the talk


def talk(pool: Pool, *typed: str, edit: Callable[[str], str | None] | None = None) -> tuple[dict[str, object], str]:
    """A talk in which these lines are typed; what came of it, and all that was said."""
    lines, said = iter(typed), []

    def ask(prompt: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    return Talk(pool, cases(pool), say=said.append, ask=ask, edit=edit).go(), "\n".join(said)


def test_each_verdict_is_stored_before_the_next_case_is_shown(pool: Pool) -> None:
    versions = []

    def ask(prompt: str) -> str:
        versions.append(pool.version)
        if len(versions) == 4:
            raise KeyboardInterrupt
        return "r"

    with pytest.raises(KeyboardInterrupt):
        Talk(pool, cases(pool), say=lambda text: None, ask=ask).go()
    assert versions == [2, 3, 4, 5]
    assert len(cases(pool)) == 1


def test_a_talk_goes_on_where_the_last_one_stopped_and_skipped_cases_come_again(pool: Pool) -> None:
    first, _ = talk(pool, "a 1", "s", "r 1", "q")
    assert (first["accept"], first["skip"], first["reject"], first["left"]) == (1, 1, 1, 1)
    assert len(cases(pool)) == 2
    second, said = talk(pool, "s", "s")
    assert second["left"] == 0
    assert "1 of 2" in said


@pytest.mark.long
def test_undo_shows_the_case_again_and_reaches_into_earlier_talks(pool: Pool) -> None:
    talk(pool, "a 1", "q")
    done, said = talk(pool, "r", "u", "u", "u", "q")
    assert done["undo"] == 2
    assert "there is no verdict to undo" in said
    assert accepted(pool) == []
    assert len(cases(pool)) == 4


@pytest.mark.long
def test_fixes_are_typed_or_edited(pool: Pool) -> None:
    one = case(pool, "3 + 5?")
    nine = next(n for n, each in enumerate(one.worked, 1) if each.answer == "7")
    talk(pool, f"f answer {nine}", "8", "q")
    assert accepted(pool) == [("Guess.\nAnswer: 8", "8")]
    undo(pool)
    talk(pool, f"f text {nine}", "q", edit=lambda text: text.replace("Guess", "Count").replace("7", "8"))
    assert accepted(pool) == [("Count.\nAnswer: 8", "8")]
    undo(pool)
    _, said = talk(pool, f"f text {nine}", "q", edit=lambda text: None)
    assert "the text was not changed" in said


def test_a_new_reference_is_asked_twice(pool: Pool) -> None:
    _, said = talk(pool, "f reference", "", "n", "f reference", "", "y", "q")
    assert "nothing was changed" in said
    assert pool.examples().filter(pl.col("prompt") == "3 + 5?")["reference"].to_list() == ["9"]


def test_what_makes_no_sense_is_told_and_asked_again(pool: Pool) -> None:
    done, said = talk(pool, "", "x", "a", "a 99", "f", "f answer", "8", "q")
    for told in ("none of a, r, f", "say which one", "no worked answer 99", "fix what?", "which worked answer"):
        assert told in said, told
    assert done["left"] == 4


def test_control_characters_of_a_teacher_reach_no_terminal(pool: Pool) -> None:
    evil = rationale(
        ids(pool)["3 + 5?"], "\x1b[2J gone\nAnswer: 9", "9", call="x", reason="answer_contradicts_reference"
    )
    pool.commit(Commit(message="more", rationales=frames.RATIONALES.of([evil])))
    _, said = talk(pool, "q")
    assert "\x1b" not in said
    assert "\\x1b[2J gone" in said


def _at(terminal: int) -> None:
    """Makes it the terminal of this process, whose Ctrl-C it obeys."""
    os.login_tty(terminal)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """`balkit` in a terminal of its own, which is given up after three minutes."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "balkit", *arguments]
        env = {**os.environ, "TERM": "dumb", **environment}
        self.process = subprocess.Popen(command, env=env, pass_fds=[theirs], preexec_fn=lambda: _at(theirs))
        os.close(theirs)
        self.side, self.deadline, self.seen = ours, time.monotonic() + 180, ""

    def until(self, text: str) -> None:
        """Reads until the text comes."""
        while text not in self.seen:
            ready, _, _ = select.select([self.side], [], [], max(0.0, self.deadline - time.monotonic()))
            if not ready:
                self.process.kill()
                pytest.fail(f"{text!r} did not come; there was: {self.seen[-2000:]}")
            try:
                self.seen += os.read(self.side, 65536).decode(errors="replace")
            except OSError:
                pytest.fail(f"it ended before {text!r}; there was: {self.seen[-2000:]}")
        self.seen = self.seen.partition(text)[2]

    def type(self, text: str) -> None:
        os.write(self.side, text.encode())

    def end(self) -> int:
        try:
            return self.process.wait(max(1.0, self.deadline - time.monotonic()))
        finally:
            self.process.kill()
            os.close(self.side)


@pytest.mark.long
def test_a_person_at_a_terminal_fixes_in_an_editor_undoes_and_loses_nothing_by_ctrl_c(
    pool: Pool, tmp_path: Path
) -> None:
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/Answer: .*/Answer: 8/' \"$1\"\n")
    editor.chmod(0o755)
    there = Terminal("review", str(pool.path), "--domain", "sums", VISUAL="", EDITOR=str(editor))
    there.until("1 of 2")
    there.until("quit, ? help > ")
    there.type("f text 1\n")
    there.until("version 3")
    there.until("quit, ? help > ")
    there.type("u\n")
    there.until("version 3 is taken back")
    there.until("1 of 2")
    there.until("quit, ? help > ")
    there.type("f text 1\n")
    there.until("2 of 2")
    there.until("quit, ? help > ")
    there.type("\x03")
    there.until("What was done is kept")
    assert there.end() == 130
    assert [answer for _, answer in accepted(pool)] == ["8"]
    assert [one.prompt for one in cases(pool, domain="sums")] == ["2 + 2?"]


# -- the next run


class Counted(Rule):
    """Is wrong about apples, as `Rule` is; tells samples apart, and counts worked answers to each prompt."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.answered: list[str] = []

    def __call__(self, request: Request) -> str:
        said = super().__call__(request)
        if request.purpose != "rationale":
            return said
        self.answered.append(request.subject)
        return f"Try {request.sample}. {said}"


class Stopping(Rule):
    """Is stopped in stage 2."""

    def __call__(self, request: Request) -> str:
        if request.stage == 2:
            raise KeyboardInterrupt
        return super().__call__(request)


def run_data(pool: Pool, teacher: Rule, *, new: bool = False) -> RunResult:
    recipe = make_recipe(
        select={"first": "random", "then": "random"}, fill=["real"], stages=1, budget_rows=18,
        rationale={"max_tokens": 64, "tries": 2},
    )  # fmt: skip
    return run(pool, recipe, teacher=Scripted(teacher), train=False, new=new)


@pytest.mark.long
def test_the_next_run_takes_what_a_person_accepted_pays_nothing_for_it_and_never_what_they_refused(
    tmp_path: Path,
) -> None:
    pool = make_pool(tmp_path / "run")
    first = run_data(pool, Counted(wrong="apple"))
    drawn = pool.snapshot(first.snapshot_id).rows
    wrong = cases(pool)
    assert wrong
    first_choice = pool.decisions().filter((pl.col("reason") == "chosen") & (pl.col("rank") == 0))
    refused = drawn.join(first_choice, on="example_id", how="semi").row(0, named=True)
    for one in wrong:
        right = Verdict(one.example_id, "fix", one.worked[0].rationale_id, answer=one.reference)
        judge(pool, [(one, [right])])
    (other,) = cases_of(pool, {refused["example_id"]: "looked at"})
    judge(pool, [(other, [Verdict(other.example_id, "reject", refused["rationale_id"])])])
    teacher = Counted(wrong="apple")
    second = run_data(pool, teacher, new=True)
    rows = pool.snapshot(second.snapshot_id).rows
    fixed = rows.filter(pl.col("author") == "person")
    assert set(fixed["example_id"]) & {one.example_id for one in wrong} == set(fixed["example_id"]) != set()
    assert not set(teacher.answered) & {one.prompt for one in wrong}
    again = rows.filter(pl.col("example_id") == refused["example_id"])
    assert again["rationale"].to_list() == [refused["rationale"].replace("Try 0", "Try 1")]
    assert pool.check() == []


@pytest.mark.long
def test_verdicts_that_come_while_a_run_is_under_way_change_nothing_of_it(tmp_path: Path) -> None:
    plain, judged = (make_pool(tmp_path / name) for name in ("plain", "judged"))
    digests = []
    for pool in (plain, judged):
        recipe = make_recipe(select={"first": "random", "then": "random"}, fill=["real"], stages=2, budget_rows=24)
        with pytest.raises(KeyboardInterrupt):
            run(pool, recipe, teacher=Scripted(Stopping(wrong="apple")), train=False)
        if pool is judged:
            for one in [*cases(pool)]:
                judge(pool, [(one, [Verdict(one.example_id, "accept", one.worked[0].rationale_id)])])
            assert pool.reviewed().accepted.height
        digests.append(run(pool, recipe, teacher=Scripted(Rule(wrong="apple")), train=False).stages[-1].digest)
    assert digests[0] == digests[1]


@pytest.mark.long
def test_validation_rows_are_those_that_a_person_accepted(tmp_path: Path) -> None:

    pool = Pool.create(tmp_path / "dev")
    rows = pl.DataFrame([{"q": f"apple {n} or  pear?", "a": "fruit", "d": "fruit"} for n in range(3)])
    pool.add(rows, prompt="q", answer="a", domain="d", split="dev")
    pool.add(rows.with_columns(q=pl.col("q") + " train"), prompt="q", answer="a", domain="d")
    annotate(pool, make_recipe(), split="dev", teacher=Scripted(Counted()))
    example = pool.examples(split="dev")["example_id"][0]
    (one,) = cases_of(pool, {example: "looked at"})
    judge(pool, [(one, [Verdict(example, "fix", rationale="By eye.\nAnswer: fruit")])])
    found = validation_rows(pool, at=pool.version)
    assert dict(found.select("example_id", "author").iter_rows())[example] == "person"
    assert found.height == 3
    undo(pool)
    judge(pool, [(one, [Verdict(example, "reject", one.worked[0].rationale_id)])])
    assert validation_rows(pool, at=pool.version).height == 2
    again = annotate(pool, make_recipe(), split="dev", teacher=Scripted(Counted()))
    assert again["accepted"].to_list() == [False, True]
    assert validation_rows(pool, at=pool.version).height == 3
