"""The loop by hand: short enough to read on one screen, and it does the whole job."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl

from balkit import recipe as recipes
from balkit.assets import recipes_folder
from balkit.pool import Pool
from balkit.quickstart import open_pool

SCRIPT = recipes_folder() / "three_stage.py"


def test_the_loop_by_hand_is_under_100_lines() -> None:
    assert len(SCRIPT.read_text(encoding="utf-8").splitlines()) < 100


def test_the_loop_by_hand_makes_cumulative_snapshots_and_a_student(tmp_path: Path) -> None:
    pool = open_pool(tmp_path / "pool")
    recipe = recipes.load(recipes_folder() / "quickstart.yaml")
    short = recipe.model_copy(
        update={
            "budget_rows": 72,
            "balance": recipe.balance.model_copy(update={"policy": "uniform"}),
            "train": recipe.train.model_copy(update={"max_steps": 2}),
            "evaluate": recipe.evaluate.model_copy(update={"limit_per_domain": 1, "max_new_tokens": 4}),
        }
    )
    (tmp_path / "short.yaml").write_text(recipes.dump(short), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(pool.path), str(tmp_path / "short.yaml")],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["stage 1", "stage 2", "stage 3"]
    opened = Pool.open(pool.path)
    sizes = opened.snapshots()["rows"].to_list()
    assert sizes == sorted(sizes)
    assert sizes[-1] >= 60
    last = opened.snapshot("latest").rows
    assert last.group_by("domain").len()["len"].max() == 6
    assert pl.Series(["source", "synthetic"]).is_in(last["origin"].unique().implode()).any()
    assert opened.check() == []
