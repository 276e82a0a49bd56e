"""Experiments: equal rows and steps, resumed where they stopped, errors that name the arm."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from small import Rule, make_pool, make_recipe

from balkit import recipe as recipes
from balkit.comparing import Comparison, compare, differences, load, markdown, means
from balkit.comparing.measuring import needs_students
from balkit.comparing.summary import interval
from balkit.errors import RecipeError, RunError
from balkit.events import Event
from balkit.teacher import Scripted

ARMS: dict[str, Any] = {
    "base": "untrained",
    "random": {"balance.policy": "natural", "stages": 1, "fill": ["real"], "select.first": "random"},
    "ours": {"select.then": "ifd_coverage", "fill": ["real", "repeat"]},
}


@dataclass
class Bench:
    """A tiny pool, an experiment on it, and the teacher that its runs ask."""

    folder: Path
    teacher: Rule

    @property
    def file(self) -> Path:
        return self.folder / "experiment.yaml"

    def write(self, **changes: Any) -> Path:
        body = {"name": "tiny", "pool": "pool", "base": "base.yaml", "arms": ARMS, "seeds": [0, 1], "against": "ours"}
        self.file.write_text(yaml.safe_dump(body | changes, sort_keys=False))
        return self.file

    def compare(self, **options: Any) -> Comparison:
        quiet = {"say": lambda text: None, "teacher": Scripted(self.teacher)}
        return compare(self.file, out=self.folder / "out", **(quiet | options))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    make_pool(tmp_path / "pool")
    (tmp_path / "base.yaml").write_text(recipes.dump(make_recipe(budget_rows=16)))
    made = Bench(tmp_path, Rule())
    made.write()
    return made


@pytest.mark.long
def test_a_stopped_experiment_goes_on_with_equal_rows_and_steps(bench: Bench) -> None:
    said: list[str] = []

    def stop_at_third(text: str) -> None:
        said.append(text)
        if text.startswith("[2/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.compare(say=stop_at_third)
    kept = {file.name: file.read_bytes() for file in (bench.folder / "out" / "cells").iterdir()}
    assert set(kept) == {"base.16.s0.json", "random.16.s0.json"}
    asked = set(bench.teacher.keys)
    told: list[Event] = []
    done = bench.compare(say=said.append, notify=told.append)
    assert {event.part.split(":")[0] for event in told} == {f"cell {n} of 4" for n in (1, 2, 3, 4)}
    assert "6 cells, 2 of them there already" in said[3]
    assert asked.isdisjoint(bench.teacher.keys[len(asked) :]), "no reply is bought twice"
    assert {file.name: file.read_bytes() for file in (bench.folder / "out" / "cells").iterdir()}.items() >= kept.items()
    trained = [cell for cell in done.cells if cell["arm"] != "base"]
    assert {(cell["rows"], cell["steps"]) for cell in trained} == {(16, 2)}
    assert all(cell["real"] + cell["synthetic"] + cell["repeats"] == 16 for cell in trained)
    assert done.missing == ()
    again = bench.compare(notify=lambda event: pytest.fail("nothing is left to run"))
    assert again.cells == done.cells
    body = json.loads((bench.folder / "out" / "results.json").read_text())
    assert body["cells"] == done.cells
    assert {"balkit", "python", "torch"} <= set(body["versions"])
    assert "| ours " in (bench.folder / "out" / "results.md").read_text()
    assert (bench.folder / "out" / "figure.svg").read_bytes().startswith(b"<?xml")


@pytest.mark.long
def test_arms_and_seeds_are_chosen_and_wrong_names_said(bench: Bench) -> None:
    done = bench.compare(only=["base"], seeds=[1])
    assert [(cell["arm"], cell["seed"]) for cell in done.cells] == [("base", 1)]
    assert len(done.missing) == 5
    with pytest.raises(RunError, match="no arm is called 'randon'; did you mean 'random'"):
        bench.compare(only=["randon"])
    with pytest.raises(RunError, match="no seed 7; there are: 0, 1"):
        bench.compare(seeds=[7])
    assert bench.compare(run=False).cells == done.cells


def test_a_changed_recipe_runs_again_and_a_changed_pool_is_refused(bench: Bench) -> None:
    first = bench.compare(only=["base"], seeds=[0])
    bench.write(common={"student.width": 16})
    assert bench.compare(run=False).cells == []
    bench.write()
    cell = bench.folder / "out" / "cells" / "base.16.s0.json"
    cell.write_text(json.dumps(first.cells[0] | {"material": "others"}))
    with pytest.raises(RunError, match="the pool's examples were others then"):
        bench.compare(only=["base"])


@pytest.mark.long
def test_results_from_elsewhere_are_gone_on_with(bench: Bench) -> None:
    bench.compare(only=["base"], seeds=[0])
    elsewhere = (bench.folder / "out").rename(bench.folder / "elsewhere") / "results.json"
    said: list[str] = []
    done = bench.compare(only=["base"], results=[elsewhere], say=said.append)
    assert said[0] == f"{elsewhere}: 1 cells taken"
    assert "2 cells, 1 of them there already" in said[1]
    assert [(cell["arm"], cell["seed"]) for cell in done.cells] == [("base", 0), ("base", 1)]
    body = json.loads(elsewhere.read_text())
    assert done.cells[0] == body["cells"][0]
    assert done.body["head"] == body["head"]
    again = bench.compare(results=[elsewhere], run=False)
    assert again.cells == done.cells, "what is there already stays"
    body["cells"][0]["recipe_digest"] = "other"
    elsewhere.write_text(json.dumps(body))
    bench.compare(results=[elsewhere], run=False, say=said.append)
    assert said[-1] == f"{elsewhere}: 0 cells taken, 1 of another recipe are not"


STRANGE = {"arm": "base", "budget": 16, "seed": 0, "material": "others", "recipe_digest": "any"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"cells": [STRANGE], "head": {"16": []}}, "base.16.s0 is of other examples"),
        ({"cells": [{"arm": "base"}]}, "cannot be read as a results.json .KeyError"),
        ([1], "cannot be read as a results.json .TypeError"),
        (None, "cannot be read as a results.json .FileNotFoundError"),
    ],
)
def test_wrong_results_from_elsewhere_change_nothing(bench: Bench, body: Any, said: str) -> None:
    file = bench.folder / "results.json"
    if body is not None:
        file.write_text(json.dumps(body))
    with pytest.raises(RunError, match=said):
        bench.compare(results=[file])
    assert not (bench.folder / "out" / "cells").exists()


@pytest.mark.long
def test_unequal_rows_or_steps_are_refused(bench: Bench) -> None:
    bench.write(arms=ARMS | {"ours": ARMS["ours"] | {"fill": ["real"], "balance.policy": "uniform", "budget_rows": 90}})
    with pytest.raises(RunError, match="of 90 rows could be had, and arms are compared at equal rows"):
        bench.compare(only=["ours"], seeds=[0])
    bench.write(arms=ARMS | {"ours": ARMS["random"] | {"train.max_steps": 1}})
    with pytest.raises(RunError, match="arm ours, seed 0: 1 training steps, and 2 of random, seed 0"):
        bench.compare(only=["random", "ours"], seeds=[0])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"baseline": "randm"}, "no arm is called 'randm'; did you mean 'random'"),
        ({"also": {20: ["nobody"]}}, "no arm is called 'nobody'; there are: base, random, ours"),
        ({"against": "base"}, "base is not trained"),
        ({"seeds": [1, 1]}, "name each once"),
        ({"arms": ARMS | {"ours": {"select.thn": "ifd"}}}, "select.thn: unknown key; did you mean 'then'"),
        ({"sets": 1}, "sets: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_experiment_says_where(bench: Bench, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load(bench.write(**changes))


def test_paths_in_an_arm_count_from_the_experiments_folder(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    arms = ARMS | {
        "ours": {"select.first": "mine.py", "teacher.file": "replies.jsonl", "teacher.transport": "recorded"}
    }
    monkeypatch.chdir(bench.folder.parent)
    made = load(bench.write(arms=arms)).recipe("ours")
    assert made.select.first == str(bench.folder / "mine.py")
    assert made.teacher.file == bench.folder / "replies.jsonl"


def test_students_between_stages_are_trained_only_where_the_recipe_goes_by_them() -> None:
    by_ifd = {"then": "ifd", "response": "reference"}
    assert needs_students(make_recipe(select=by_ifd))
    assert not needs_students(make_recipe(select=by_ifd, stages=1))
    assert not needs_students(make_recipe(select={"then": "random"}))
    assert not needs_students(make_recipe(select=by_ifd | {"scorer": "org/small"}))
    assert needs_students(make_recipe(select=by_ifd | {"scorer": "org/small"}, balance={"policy": "feedback"}))


def test_the_interval_is_student_s() -> None:
    found = interval([1.0, 2.0, 3.0])
    assert found["mean"] == 2.0
    assert found["high"] == pytest.approx(2 + 4.303 / 3**0.5)  # t(0.975, 2) = 4.303
    assert interval([1.0]) == {"mean": 1.0, "low": None, "high": None}


def cell(arm: str, seed: int, macro: float) -> dict[str, Any]:
    counts = dict.fromkeys(("rows", "steps", "real", "synthetic", "repeats", "cost_usd", "seconds"), 1)
    return {"arm": arm, "budget": 10, "seed": seed, **counts, "macro": macro, "micro": macro, "head": None, "tail": 0.5}


def test_differences_are_paired_by_seed() -> None:
    cells = [
        cell("random", 0, 0.1),
        cell("random", 1, 0.5),
        cell("ours", 0, 0.3),
        cell("ours", 1, 0.6),
        cell("ours", 2, 0),
    ]
    found = [row for row in differences(cells, from_arms=["random"]) if row["measure"] == "macro"]
    assert [(row["arm"], row["seeds"]) for row in found] == [("ours", 2)]
    assert found[0]["mean"] == pytest.approx(0.15)
    text = markdown({"means": means(cells), "differences": differences(cells, from_arms=["random"])})
    assert "+15.0 (-48.5 to +78.5)" in text


def test_the_shipped_experiments_are_sound() -> None:
    for file in (Path(__file__).parent.parent / "recipes" / "evidence").glob("*.yaml"):
        plan = load(file)
        budgets = {one.recipe.budget_rows for one in plan.cells()}
        assert len(plan.cells()) == len({one.name for one in plan.cells()})
        assert budgets >= set(plan.also)
