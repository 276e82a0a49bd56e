"""The loop by hand: short enough to read on one screen, and it does the whole job."""

from __future__ import annotations

import json
import random
import runpy
import sys
from pathlib import Path

import pytest
from small import make_pool, make_recipe, prompt

from balkit import recipe as recipes
from balkit.assets import recipes_folder
from balkit.pool import Pool, Snapshot

SCRIPT = recipes_folder() / "three_stage.py"


def by_hand(folder: Path, monkeypatch: pytest.MonkeyPatch, *, then: str) -> Pool:
    """A pool in which the script ran two stages, with a recorded teacher; `bird` has too few real examples."""
    pool = make_pool(folder / "pool", sizes={"fruit": 20, "tool": 10, "bird": 3}, eval_rows=1)
    born = [prompt("bird", random.Random(seed)) for seed in range(40)]
    known = pool.examples(origin="source").select("prompt", "domain").iter_rows()
    lines = [
        {"purpose": "rationale", "prompt": text, "text": f"One kind.\nAnswer: {domain}"}
        for text, domain in [*known, *((text, "bird") for text in born)]
    ]
    lines += [{"purpose": "synthesis", "domain": "bird", "prompt": text, "answer": "bird"} for text in born]
    (folder / "replies.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    recorded = {"name": "r", "transport": "recorded", "model": "r", "price": "free", "file": folder / "replies.jsonl"}
    recipe = make_recipe(
        budget_rows=24,
        balance={"policy": "uniform"},
        select={"first": "facility_location", "then": then},
        teacher={name: str(value) for name, value in recorded.items()},
        train={"epochs": 1, "max_steps": 1, "batch_size": 8, "max_length": 160, "threads": 1},
        evaluate={"max_new_tokens": 2},
    )
    (folder / "recipe.yaml").write_text(recipes.dump(recipe), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(pool.path), str(folder / "recipe.yaml")])
    runpy.run_path(str(SCRIPT))
    return Pool.open(pool.path)


def snapshots(pool: Pool) -> list[Snapshot]:
    return [pool.snapshot(name) for name in pool.snapshots().sort("stage")["snapshot_id"]]


def test_the_loop_by_hand_is_under_100_lines_and_uses_only_what_balkit_exports() -> None:
    lines = SCRIPT.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 100
    assert [line for line in lines if line.startswith(("from balkit", "import balkit"))] == ["import balkit"]


def test_the_loop_by_hand_makes_cumulative_snapshots_and_a_student(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = by_hand(tmp_path, monkeypatch, then="ifd")
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["stage 1", "stage 2"]
    first, last = snapshots(pool)
    assert last.rows.head(first.rows.height).equals(first.rows)
    assert dict(last.rows.group_by("domain").len().iter_rows()) == {"fruit": 8, "tool": 8, "bird": 8}
    assert set(last.rows["origin"]) == {"source", "synthetic"}
    assert last.recipe_yaml == (tmp_path / "recipe.yaml").read_text(encoding="utf-8")
    assert pool.check() == []


@pytest.mark.parametrize("then", ["ifd", "k_center"])
@pytest.mark.long
def test_the_loop_by_hand_chooses_as_the_recipe_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    pool = by_hand(tmp_path, monkeypatch, then=then)
    chosen = pool.decisions().filter(domain="fruit", step="select")
    methods = dict(chosen.select("stage", "method").unique().iter_rows())
    assert methods == {1: "facility_location", 2: then}
