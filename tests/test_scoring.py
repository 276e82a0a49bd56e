"""Scores of a pool: kept, reused, gone on with after a stop, and given by a small model in the student's place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from small import Rule, make_pool, make_recipe
from student_toys import pretrained_folder

from balkit import frames, scoring, stages, steps, student
from balkit.basis import Basis
from balkit.errors import RecipeError
from balkit.pool import Pool
from balkit.recipe import Recipe
from balkit.student import Journal
from balkit.teacher import Scripted

RECIPE = make_recipe(
    select={"then": "ifd", "response": "reference"},
    student={"layers": 1, "width": 16, "heads": 2, "vocabulary": 300, "context": 160},
    evaluate={"max_new_tokens": 4, "batch_size": 8},
)


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return make_pool(tmp_path / "pool", sizes={"fruit": 20, "tool": 12, "bird": 3})


def untrained(pool: Pool, recipe: Recipe = RECIPE) -> tuple[Path, pl.DataFrame]:
    """The recipe's base student and the examples of the pool."""
    basis = Basis.of(pool, recipe)
    return steps.untrained(pool, recipe=recipe, basis=basis), basis.real


def values(scores: pl.DataFrame) -> dict[tuple[str, str], float]:
    return {(row["example_id"], row["name"]): row["value"] for row in scores.to_dicts()}


def test_a_second_scoring_scores_nothing(pool: Pool) -> None:
    base, examples = untrained(pool)
    seen: list[int] = []
    first = scoring.score_pool(pool, base, examples, recipe=RECIPE, progress=lambda done, total: seen.append(done))
    version = pool.version
    again = scoring.score_pool(pool, base, examples, recipe=RECIPE, progress=lambda done, total: seen.append(-1))
    assert seen == [8, 16, 24, 32, 35]
    assert again.equals(first)
    assert pool.version == version
    assert pool.scores(checkpoint=student.digest(base)).height == 3 * 35
    assert not list((pool.path / "scoring").iterdir())


def test_what_is_new_is_scored_alone_and_as_all_at_once(pool: Pool) -> None:
    base, examples = untrained(pool)
    seen: list[tuple[int, int]] = []
    scoring.score_pool(pool, base, examples.head(10), recipe=RECIPE)
    found = scoring.score_pool(pool, base, examples, recipe=RECIPE, progress=lambda *at: seen.append(at))
    assert seen[0] == (18, 35)
    at_once = student.score(
        base, scoring._with_references(examples), response="reference", max_new_tokens=4, batch_size=64
    )
    assert values(found) == pytest.approx(values(at_once), abs=1e-5)


def test_a_score_that_is_not_asked_for_is_not_given(pool: Pool) -> None:
    base, examples = untrained(pool)
    loss = scoring.score_pool(pool, base, examples, recipe=RECIPE, names=("loss",))
    assert loss["name"].unique().to_list() == ["loss"]
    every = scoring.score_pool(pool, base, examples, recipe=RECIPE)
    assert every.height == 3 * 35
    assert every.filter(pl.col("name") == "loss").equals(loss)  # what is stored stays


def test_own_answers_and_references_are_kept_apart(pool: Pool) -> None:
    base, examples = untrained(pool)
    own = make_recipe(evaluate={"max_new_tokens": 2, "batch_size": 8})
    scoring.score_pool(pool, base, examples, recipe=RECIPE)
    assert scoring.score_pool(pool, base, examples, recipe=own)["reason"].unique().to_list() == ["too_long"]
    stored = pool.scores(checkpoint=student.digest(base))
    assert stored["settings"].value_counts().height == 2


KILLED = """
import os, signal, sys
from pathlib import Path
from test_scoring import RECIPE, untrained
from balkit import scoring
from balkit.pool import Pool
pool = Pool.open(Path(sys.argv[1]))
def stop(done, total):
    if done == 24:
        os.kill(os.getpid(), signal.SIGKILL if sys.argv[2] == "kill" else signal.SIGINT)
scoring.score_pool(pool, *untrained(pool), recipe=RECIPE, progress=stop)
"""


@pytest.mark.parametrize("how", ["kill", "interrupt"])
@pytest.mark.long
def test_a_scoring_that_was_stopped_goes_on_with_the_batch_it_was_at(pool: Pool, how: str) -> None:
    tests = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", KILLED, str(pool.path), how]
    done = subprocess.run(command, check=False, timeout=120, env=environment, capture_output=True)
    assert done.returncode == (-signal.SIGKILL if how == "kill" else -signal.SIGINT), done.stderr
    base, examples = untrained(pool)
    seen: list[int] = []
    found = scoring.score_pool(pool, base, examples, recipe=RECIPE, progress=lambda done, total: seen.append(done))
    assert seen == [32, 35]
    assert found.height == pool.scores().height == 3 * 35
    whole = student.score(
        base, scoring._with_references(examples), response="reference", max_new_tokens=4, batch_size=8
    )
    assert values(found) == pytest.approx(values(whole), abs=1e-5)


def test_a_line_that_was_cut_short_is_no_score(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "scoring" / "x.jsonl")
    assert journal.scores().is_empty()
    one = {"example_id": "a", "checkpoint": "c", "name": "ifd", "settings": "s", "value": 0.1 + 0.2, "reason": None}
    journal.add(frames.SCORES.of([one]))
    with journal.file.open("ab") as stream:
        stream.write(b'{"example_id": "b", "chec')
    journal.add(frames.SCORES.of([{**one, "example_id": "c"}, one]))
    assert journal.scores().rows(named=True) == [one, {**one, "example_id": "c"}]


# -- a small model in the student's place ------------------------------------------------------------------------------


@pytest.mark.long
def test_a_scorer_scores_in_the_students_place_and_nothing_has_to_be_trained(pool: Pool, tmp_path: Path) -> None:
    model = pretrained_folder(tmp_path / "model")
    select = {"first": "random", "then": "ifd", "response": "reference", "scorer": str(model), "candidates": "all"}
    recipe = make_recipe(select=select, fill=["real"], budget_rows=12)
    done = stages.run(pool, recipe, teacher=Scripted(Rule()), train=False)
    scores = pool.scores()
    assert scores["checkpoint"].unique().to_list() == [student.digest(scoring.scorer(pool, str(model)))]
    taken = pool.decisions(run_id=done.run_id).filter((pl.col("stage") == 2) & (pl.col("step") == "select"))
    gains = taken.filter(pl.col("method") == "ifd").join(
        scores.filter(pl.col("name") == "ifd"), on="example_id", how="inner"
    )
    assert gains.height > 0
    assert pool.snapshot(done.snapshot_id).rows.height == 12


def test_a_students_folder_scores_as_it_is(pool: Pool) -> None:
    base, _ = untrained(pool)
    assert scoring.scorer(pool, base) == base


def test_a_scorer_with_own_answers_is_refused() -> None:
    changes: dict[str, Any] = {"select": {"scorer": "org/small"}}
    with pytest.raises(RecipeError, match="set response: reference"):
        make_recipe(**changes)
