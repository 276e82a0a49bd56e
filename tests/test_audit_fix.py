"""What `--fix` takes out of a pool: no more than is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from balkit import review
from balkit.auditing import audit, retire
from balkit.cli import main
from balkit.pool import Commit, Pool
from balkit.texts import rationale_id

pytest.importorskip("py3langid")
pytest.importorskip("rapidfuzz")

GOOD = "We add what is bought to what is there.\nAnswer: {}"
CUT = "We add what is bought to the"


def rows(count: int = 12) -> list[dict[str, str]]:
    who = ("farmer", "baker", "sailor", "engineer", "guard", "driver", "drummer", "beekeeper", "student", "cook")
    return [
        {"q": f"The {who[at % 10]} has {3 + 7 * at} pears and buys {11 + 5 * at}. How many?", "a": str(14 + 12 * at)}
        for at in range(count)
    ]


def pool_of(path: Path, given: list[dict[str, str]], *, split: str = "train") -> Pool:
    pool = Pool.create(path)
    pool.add(pl.DataFrame(given), prompt="q", answer="a", domain_is="sums", split=split)
    return pool


def explain(pool: Pool, prompt: str, *texts: str) -> str:
    """Accepted worked answers for the example of a prompt; its id."""
    example = pool.examples().filter(pl.col("prompt") == prompt).row(0, named=True)
    made = []
    for text in texts:
        own = {"example_id": example["example_id"], "text": text, "answer": example["reference"], "source": "given"}
        own |= {"accepted": True, "reason": None, "detail": None, "author": "teacher"}
        made.append(own | {"rationale_id": rationale_id(own["example_id"], text, own["answer"], "given")})
    pool.commit(Commit("worked answers", rationales=pl.DataFrame(made)))
    return str(example["example_id"])


def test_only_the_worked_answer_at_fault_is_rejected_where_another_one_stands(tmp_path: Path) -> None:
    pool = pool_of(tmp_path / "pool", rows())
    example = explain(pool, rows()[3]["q"], GOOD.format(50), CUT, f"Once more: {GOOD.format(50)}")
    found = audit(pool, only=["truncated_rationale"])
    assert found.findings["example_id"].to_list() == [example]
    before = pool.version
    done = retire(pool, found)
    assert (done.version, done.retired, done.rejected, done.left) == (before + 1, 0, 1, 0)
    assert pool.examples().height == 12
    standing = pool.reviewed().standing(pool.rationales()).filter("accepted")
    assert CUT not in standing["text"].to_list()
    assert standing.height == 2
    assert audit(pool, only=["truncated_rationale"]).clean
    assert pool.check() == []
    undone = review.undo(pool)
    assert undone is not None
    assert undone.example_ids == (example,)
    assert not audit(pool, only=["truncated_rationale"]).clean


def test_an_example_whose_worked_answers_are_all_at_fault_is_retired(tmp_path: Path) -> None:
    pool = pool_of(tmp_path / "pool", rows())
    explain(pool, rows()[3]["q"], CUT, f"So {CUT}")
    explain(pool, rows()[4]["q"], GOOD.format(62))
    done = retire(pool, audit(pool, only=["truncated_rationale"]))
    assert (done.retired, done.rejected, pool.examples().height) == (1, 0, 11)


def test_rows_of_eval_and_dev_stay_unless_asked_for(tmp_path: Path) -> None:
    given = rows()
    torn = [given[2] | {"a": "1"}, given[2] | {"a": "2"}]
    pool = pool_of(tmp_path / "pool", [*given[:2], *torn], split="eval")
    found = audit(pool, only=["conflicting_answers"])
    done = retire(pool, found)
    assert (done.version, done.retired, done.left, pool.examples().height) == (1, 0, 2, 4)
    assert retire(pool, found, held_out=True).retired == 2
    assert pool.examples().height == 2


def test_of_rows_that_repeat_a_retired_one_the_first_stays(tmp_path: Path) -> None:
    given = rows()
    again = [given[5] | {"q": given[5]["q"].upper()}, given[5] | {"q": given[5]["q"].replace("How", "Well, how")}]
    pool = pool_of(tmp_path / "pool", [*given, *again])
    found = audit(pool, only=["exact_duplicate", "near_duplicate"])
    (first,) = {finding.other for finding in found.found} - {finding.index for finding in found.found}
    explain(pool, found.rows.prompts[first or 0], CUT)
    both = audit(pool, only=["exact_duplicate", "near_duplicate", "truncated_rationale"])
    assert len(both.findings) == 3
    done = retire(pool, both)
    assert (done.retired, pool.examples().height) == (2, 12)
    assert audit(pool, only=["exact_duplicate", "near_duplicate", "truncated_rationale"]).clean


def test_json_tells_what_was_fixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pool_of(tmp_path / "pool", [*rows(), {"q": "How many pears are in the jar?", "a": "it depends"}])
    told: list[Any] = []
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["balkit", "audit", str(tmp_path / "pool"), "--fix", "--json"])
        with pytest.raises(SystemExit) as ended:
            main()
        told.append((ended.value.code or 0, json.loads(capsys.readouterr().out)["fixed"]))
    assert told == [
        (0, {"version": 2, "retired": 1, "rejected": 0, "left": 0}),
        (0, {"version": 2, "retired": 0, "rejected": 0, "left": 0}),
    ]
