"""The policy `feedback` in the loop: dev steers, eval never does, and a killed run gives the same quotas."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from small import Rule, make_pool, make_recipe, rows

from balkit import Pool, Recipe, plan
from balkit.basis import Basis
from balkit.errors import RunError
from balkit.events import Event
from balkit.stages import run
from balkit.teacher import Request, Scripted

COLUMNS = {"prompt": "question", "answer": "answer", "domain": "topic"}


class Short(Rule):
    """Answers so briefly that a tiny student learns in a few steps to give the commonest one."""

    def __call__(self, request: Request) -> str:
        said = super().__call__(request)
        return said if request.purpose == "synthesis" else "So.\n" + said.splitlines()[-1]


class Killed(BaseException):
    """Stands in for the end of the process."""


def feedback(**changes: Any) -> Recipe:
    body = {
        "balance": {"policy": "feedback"},
        "select": {"first": "facility_location", "then": "k_center"},
        "train": {"epochs": 20, "max_steps": 20, "batch_size": 8, "max_length": 160, "threads": 1, "lr": 1e-2},
        "evaluate": {"max_new_tokens": 20},
    }
    return make_recipe(**body | changes)


def with_dev(folder: Path, *, eval_rows: int = 4) -> Pool:
    pool = make_pool(folder, eval_rows=eval_rows)
    dev = [row for domain, n in (("fruit", 12), ("tool", 12), ("bird", 3)) for row in rows(domain, n, seed=7)]
    pool.add(pl.DataFrame(dev), split="dev", **COLUMNS)
    return pool


def until(pool: Pool, *, stage: int, step: str) -> None:
    """Runs to the beginning of a step of a stage."""

    def notify(event: Event) -> None:
        if (event.stage, event.step) == (stage, step):
            raise Killed

    with pytest.raises(Killed):
        run(pool, feedback(), teacher=Scripted(Short()), notify=notify)


def second_stage(pool: Pool) -> dict[str, int]:
    return dict(pool.snapshot("latest").rows.filter(stage=2).group_by("domain").len().iter_rows())


@pytest.mark.long
def test_rows_move_to_where_dev_is_answered_wrong_also_after_a_kill(tmp_path: Path) -> None:
    pool = with_dev(tmp_path / "pool")
    until(pool, stage=1, step="evaluate dev")
    shutil.copytree(pool.path, tmp_path / "copy")
    until(pool, stage=2, step="train")
    told = pool.evaluations().filter(split="dev").group_by("domain").agg(pl.col("correct").mean())
    assert dict(told.iter_rows()) == {"fruit": 1, "tool": 0, "bird": 0}, "the student says fruit to everything"
    assert second_stage(pool) == {"fruit": 4, "tool": 6, "bird": 5}, "adaptive gives 5 to each"
    copy = Pool.open(tmp_path / "copy")
    until(copy, stage=2, step="train")
    assert copy.snapshot("latest").digest == pool.snapshot("latest").digest
    version = copy.version
    until(copy, stage=2, step="train")
    assert copy.version == version, "what was measured is not measured again"


@pytest.mark.slow
def test_eval_does_not_steer(tmp_path: Path) -> None:
    digests = set()
    for eval_rows in (2, 4):
        pool = with_dev(tmp_path / str(eval_rows), eval_rows=eval_rows)
        result = run(pool, feedback(), teacher=Scripted(Short()))
        digests.add(result.stages[-1].digest)
        assert result.stages[-1].quotas == {"fruit": 4, "tool": 6, "bird": 5}
        assert sum(one["rows"] for one in result.stages[-1].summary["per_domain"].values()) == 3 * eval_rows
    assert len(digests) == 1


def test_without_answers_on_dev_nothing_is_stored_or_paid(tmp_path: Path) -> None:
    pool, rule = make_pool(tmp_path / "pool"), Rule()
    for _ in range(2):
        with pytest.raises(RunError, match="no dev row with a reference answer"):
            run(pool, feedback(), teacher=Scripted(rule))
        with pytest.raises(RunError, match="no dev row with a reference answer"):
            plan(pool, feedback())
        pool.add(pl.DataFrame(rows("bird", 2, seed=7)), prompt="question", answer=None, domain="topic", split="dev")
    assert rule.keys == []
    assert not (pool.path / "runs").exists()
    assert plan(pool, feedback(stages=1)).stages == 1


def test_feedback_without_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="feedback needs a trained student"):
        run(with_dev(tmp_path / "pool"), feedback(), teacher=Scripted(Rule()), train=False)


def test_a_plan_says_that_later_quotas_depend_on_the_student(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool")
    pool.add(pl.DataFrame(rows("bird", 2, seed=7)), split="dev", **COLUMNS)
    made, adaptive = (plan(pool, feedback(balance={"policy": policy})) for policy in ("feedback", "adaptive"))
    assert made.rows.equals(adaptive.rows)
    (note,) = set(made.notes) - set(adaptive.notes)
    assert "2 dev rows" in note
    assert "keeps 50 % at least; no dev row tells of fruit, tool" in note


def test_what_stands_in_eval_is_not_asked_of_dev(tmp_path: Path) -> None:
    pool = with_dev(tmp_path / "pool")
    leak = rows("bird", 1, seed=2)[0]
    pool.add(pl.DataFrame([leak | {"question": leak["question"].upper()}]), split="dev", **COLUMNS)
    assert Basis.of(pool, feedback()).measured_dev.height == 27
