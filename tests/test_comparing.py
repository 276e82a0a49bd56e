"""Experiments: equal rows and steps, resumed where they stopped, errors that name the arm."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from small import Rule, make_pool, make_recipe
from typer.testing import CliRunner

from balkit import recipe as recipes
from balkit.cli import app
from balkit.comparing import Comparison, compare, differences, load, markdown, means
from balkit.comparing.elsewhere import read, taken
from balkit.comparing.experiment import Cell
from balkit.comparing.measuring import needs_students
from balkit.comparing.running import versions
from balkit.comparing.summary import interval, natural
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


def measured(plan: Cell, **changes: Any) -> dict[str, Any]:
    """A cell as results.json has it."""
    numbers: dict[str, Any] = dict.fromkeys(("real", "synthetic", "repeats"), 8)
    numbers |= dict.fromkeys(("macro", "micro", "head", "tail", "cost_usd", "seconds"), 0.5)
    numbers |= {"rows": 16, "steps": 2} if plan.trained else {"rows": 0, "steps": 0}
    who = {"arm": plan.arm, "budget": plan.recipe.budget_rows, "seed": plan.recipe.seed}
    domains = {"rare": {"accuracy": 0.5}, "big": {"accuracy": 1.0}}
    same = {"recipe_digest": plan.recipe.run_digest(), "material": "these", "per_domain": domains}
    return who | same | numbers | changes


def results(file: Path, *cells: dict[str, Any], **changes: Any) -> Path:
    body = {"cells": cells, "head": {"16": ["big"]}, "versions": versions()}
    file.write_text(json.dumps(body | changes))
    return file


@pytest.mark.long
def test_results_from_elsewhere_are_gone_on_with(bench: Bench) -> None:
    bench.compare(only=["base"], seeds=[0])
    elsewhere = (bench.folder / "out").rename(bench.folder / "elsewhere") / "results.json"
    body = json.loads(elsewhere.read_text())
    arguments = ["compare", str(bench.file), "--out", str(bench.folder / "out"), "--results", str(elsewhere), "--table"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert f"{elsewhere}: 1 of 1 cells taken" in " ".join(done.output.split())
    again = json.loads((bench.folder / "out" / "results.json").read_text())
    assert {name: again[name] for name in ("cells", "head")} == {name: body[name] for name in ("cells", "head")}
    said: list[str] = []
    more = bench.compare(only=["base"], say=said.append)
    assert "2 cells, 1 of them there already" in said[0]
    assert more.cells[0] == body["cells"][0]


def test_cells_are_taken_where_none_is_and_the_recipe_is_the_same(bench: Bench, tmp_path: Path) -> None:
    plan = {cell.name: cell for cell in load(bench.file).cells()}
    base, random, ours = (plan[f"{name}.16.s0"] for name in ("base", "random", "ours"))
    gone = measured(base, arm="gone", material="others")
    other = measured(ours, recipe_digest="another recipe")
    file = results(tmp_path / "a.json", measured(base, macro=0.25), measured(random), other, gone)
    there = {base.name: measured(base, head_domains=["big"])}
    found = read(file)
    new = taken(found, list(plan.values()), done=there, material="these")
    assert new == {random.name: measured(random, head_domains=["big"])}
    assert found.told(new, versions=versions()) == (
        f"{file}: 1 of 4 cells taken; the others are there already, or of no cell of this experiment as it is now"
    )
    told = found.told(new, versions=versions() | {"torch": "1"})
    assert told.endswith(f"; measured with torch {versions()['torch']}, which is not what is here")


@pytest.mark.parametrize(
    ("changes", "head", "said"),
    [
        ({"material": "others"}, ["big"], "random, 16 rows, seed 1 is of other examples than this pool's"),
        ({"steps": 3}, ["big"], "arm random, seed 1: 3 training steps, and 2 of ours, seed 0"),
        ({}, ["rare"], "arm base, seed 0: other domains are head than for ours, seed 0"),
    ],
)
def test_cells_that_do_not_compare_are_refused_before_any_is_taken(
    bench: Bench, tmp_path: Path, changes: dict[str, Any], head: list[str], said: str
) -> None:
    plan = {cell.name: cell for cell in load(bench.file).cells()}
    there = {"ours.16.s0": measured(plan["ours.16.s0"], head_domains=["big"])}
    wrong = measured(plan["random.16.s1"], **changes)
    file = results(tmp_path / "a.json", measured(plan["base.16.s0"]), wrong, head={"16": head})
    with pytest.raises(RunError, match=f"{file}: {said}"):
        taken(read(file), list(plan.values()), done=there, material="these")
    assert set(there) == {"ours.16.s0"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"cells": [', "no JSON"),
        ("[1]", "lacks `cells`, `head` or `versions`"),
        ('{"cells": [], "head": {}}', "lacks `cells`, `head` or `versions`"),
        ('{"cells": [{"arm": "base"}], "head": {}, "versions": {}}', "cell 1 lacks budget, cost_usd, "),
        (None, "cannot be read .No such file"),
    ],
)
def test_what_is_no_results_file_is_said_before_anything_is_made(bench: Bench, body: str | None, said: str) -> None:
    file = bench.folder / "results.json"
    if body is not None:
        file.write_text(body)
    with pytest.raises(RunError, match=f"{file}: {said}"):
        bench.compare(results=[file])
    assert not (bench.folder / "out").exists()


def test_a_cell_without_a_number_or_a_head_is_named(bench: Bench, tmp_path: Path) -> None:
    (one, *_) = load(bench.file).cells()
    with pytest.raises(RunError, match="cell 1 lacks macro;"):
        read(results(tmp_path / "a.json", measured(one, macro=None)))
    with pytest.raises(RunError, match="cell 1 lacks head of 16 rows;"):
        read(results(tmp_path / "a.json", measured(one), head={}))


def test_natural_accuracy_weighs_domains_as_the_pool_has_them() -> None:
    found = {"big": {"accuracy": 0.9}, "rare": {"accuracy": 0.1}, "only in eval": {"accuracy": 0.0}}
    assert natural(found, {"big": 90, "rare": 10, "not in eval": 50}) == pytest.approx(0.82)
    assert natural(found, {"not in eval": 50}) is None


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
    measures = {"macro": macro, "micro": macro, "natural": macro, "head": None, "tail": 0.5}
    return {"arm": arm, "budget": 10, "seed": seed, **counts, **measures}


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
