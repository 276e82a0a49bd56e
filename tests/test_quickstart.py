"""The quickstart's parts on cut recipes: few rows, few steps, the real pool and the offline teacher."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from balkit import recipe as recipes
from balkit.assets import recipes_folder
from balkit.exports import Options, around, export
from balkit.pool import Pool
from balkit.quickstart import ARMS, BALANCED, OVERALL, compare, open_pool, side_by_side
from balkit.recipe import Recipe
from balkit.stages import run
from balkit.steps import validation_rows

pytestmark = pytest.mark.long  # both arms run once for all of them

TOPICS = 12
BUDGET = 60


def cut(name: str) -> Recipe:
    """A shipped recipe with the same sections and little to do."""
    recipe = recipes.load(recipes_folder() / f"{name}.yaml")
    small = {"layers": 1, "width": 32, "vocabulary": 400}
    parts: dict[str, Any] = {
        "student": recipe.student.model_copy(update=small),
        "train": recipe.train.model_copy(update={"max_steps": 2}),
        "evaluate": recipe.evaluate.model_copy(update={"max_new_tokens": 4, "limit_per_domain": 2}),
    }
    return recipe.model_copy(update={"budget_rows": BUDGET, "stages": min(recipe.stages, 2)} | parts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where both cut arms were compared."""
    folder = tmp_path_factory.mktemp("quickstart")
    compare(folder, {arm: cut(name) for arm, name in ARMS.items()}, say=lambda text: None)
    return folder


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def test_opening_the_pool_again_adds_nothing(folder: Path) -> None:
    pool = open_pool(folder / "pool")
    version = pool.version
    again = open_pool(folder / "pool")
    assert again.version == version
    coverage = again.coverage()
    assert coverage.height == TOPICS
    assert coverage.select(pl.col("train") - pl.col("synthetic"), "dev", "eval").sum().row(0) == (2760, 60, 480)


def test_the_report_has_the_documented_keys(report: dict[str, Any]) -> None:
    assert set(report) == {"arms", "wall_seconds", "peak_rss_mib"}
    assert set(report["arms"]) == set(ARMS) == {"natural_random", BALANCED}
    for arm in report["arms"].values():
        documented = {f"{name}_accuracy" for name in OVERALL} | {"per_domain", "train_rows", "calls", "cost_usd"}
        assert documented <= set(arm)
        assert arm["cost_usd"] > 0


def test_both_arms_train_on_equally_many_rows(report: dict[str, Any]) -> None:
    assert {arm["train_rows"] for arm in report["arms"].values()} == {BUDGET}
    per_domain = [[d["train_rows"] for d in arm["per_domain"].values()] for arm in report["arms"].values()]
    assert [sum(rows) for rows in per_domain] == [BUDGET, BUDGET]


def test_the_table_has_every_domain_then_the_means(report: dict[str, Any]) -> None:
    table = side_by_side(report["arms"])
    assert table.height == TOPICS + len(OVERALL)
    assert table["domain"].to_list()[-4:] == ["= macro", "= micro", "= head", "= tail"]
    assert {f"{arm} {column}" for arm in ARMS for column in ("rows", "%")} < set(table.columns)


def test_comparing_again_buys_nothing(folder: Path, report: dict[str, Any]) -> None:
    again = compare(folder, {arm: cut(name) for arm, name in ARMS.items()}, say=lambda text: None)
    assert again["arms"] == report["arms"]


def test_the_balanced_snapshot_is_exported_with_validation(folder: Path) -> None:
    rows = {file.stem: len(file.read_text().splitlines()) for file in (folder / "export" / "trl" / "data").iterdir()}
    assert rows == {"train": BUDGET, "validation": 60}


@pytest.mark.slow
def test_the_trainers_own_loaders_read_every_row_of_the_balanced_snapshot(folder: Path, report: dict[str, Any]) -> None:
    pool = Pool.open(folder / "pool")
    snapshot = pool.scan(report["arms"][BALANCED]["snapshot"])
    dev, names = validation_rows(pool, at=snapshot.version), ["trl", "llamafactory", "mlx", "hf"]
    options = Options(check=True)
    made = export(snapshot, to=names, out=folder / "checked", validation=dev, options=options)
    assert {name: made.content["targets"][name]["check"]["rows"] for name in names} == dict.fromkeys(names, BUDGET + 60)


@pytest.mark.slow
def test_the_trainers_own_loaders_read_every_pair_of_a_run_without_hints(tmp_path: Path) -> None:
    pool, recipe = open_pool(tmp_path / "pool"), cut(ARMS[BALANCED])
    parts = {
        "rationale": recipe.rationale.model_copy(update={"hint": False, "tries": 4}),
        "select": recipe.select.model_copy(update={"first": "random", "then": "random"}),
    }
    result = run(
        pool, recipe.model_copy(update={"budget_rows": 300, "stages": 1, "fill": ("real",)} | parts), train=False
    )
    snapshot, names = pool.scan(result.snapshot_id), ["trl-dpo", "llamafactory-dpo"]
    known, options = around(pool, snapshot, pairs=1), Options(check=True)
    made = export(snapshot, to=names, out=tmp_path / "out", options=options, background=known)
    pairs = pool.pairs(result.snapshot_id).height
    assert {made.content["targets"][name]["check"]["rows"] for name in names} == {pairs}
    assert pairs > 10
