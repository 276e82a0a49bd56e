"""What a run cost, beside what was forecast when it began."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from small import Rule, make_pool, make_recipe

from balkit.cli import main
from balkit.errors import PoolDamaged
from balkit.planning import plan
from balkit.pool import Pool
from balkit.recipe import Recipe
from balkit.runs import forecast_of
from balkit.stages import RunResult, run
from balkit.teacher import Scripted

PRICE = {"input_usd_per_mtok": 3.0, "output_usd_per_mtok": 15.0}


def paid_recipe(**changes: Any) -> Recipe:
    teacher = {"name": "rule", "transport": "offline", "model": "rule-1", "price": PRICE}
    random_ = {"first": "random", "then": "random"}
    return make_recipe(**({"teacher": teacher, "select": random_, "balance": {"policy": "uniform"}} | changes))


def ran(pool: Pool, recipe: Recipe, **changes: Any) -> RunResult:
    return run(pool, recipe, teacher=Scripted(Rule()), train=False, **changes)


def spending(pool: Pool, *options: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", ["balkit", "spend", str(pool.path), *options])
    with pytest.raises(SystemExit):
        main()
    return capsys.readouterr().out


def test_every_part_adds_up_to_what_was_spent_and_to_what_was_forecast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pool, recipe = make_pool(tmp_path / "pool"), paid_recipe()
    planned = plan(pool, recipe).as_dict()["total"]
    result = ran(pool, recipe)
    told = json.loads(spending(pool, "--json", monkeypatch=monkeypatch, capsys=capsys))
    (one,) = told["runs"]
    assert one["total"]["usd"] == pytest.approx(result.spent.cost_microusd / 1e6)
    assert one["total"]["calls"] == result.spent.calls
    assert one["total"]["usd_forecast"] == pytest.approx(planned["usd"])
    assert one["kept_rows"] == result.stages[-1].rows == 30
    assert one["usd_per_row"] == pytest.approx(one["total"]["usd"] / 30)
    for part in ("stage", "domain", "purpose", "teacher"):
        for name, value in one["total"].items():
            assert sum(row[name] for row in one[f"by_{part}"]) == pytest.approx(value), (part, name)
    assert [row["teacher"] for row in one["by_teacher"]] == ["rule / rule-1"]
    shown = spending(pool, monkeypatch=monkeypatch, capsys=capsys)
    assert "usd_forecast" in shown
    assert "a kept row (30)" in shown


@pytest.mark.long
def test_the_forecast_stays_that_of_the_runs_beginning(tmp_path: Path) -> None:
    pool, recipe = make_pool(tmp_path / "pool"), paid_recipe()
    first = ran(pool, recipe)
    before = forecast_of(pool.path, run_id=first.run_id)
    ran(pool, recipe)
    assert forecast_of(pool.path, run_id=first.run_id) == before
    learned = forecast_of(pool.path, run_id=ran(pool, recipe, new=True).run_id)
    assert learned != before


def test_a_run_without_a_forecast_shows_what_it_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = make_pool(tmp_path / "pool")
    result = ran(pool, paid_recipe())
    file = pool.path / "runs" / result.run_id[:12] / "forecast.json"
    file.unlink()
    (one,) = json.loads(spending(pool, "--json", monkeypatch=monkeypatch, capsys=capsys))["runs"]
    assert one["total"]["usd"] > 0
    assert one["total"]["usd_forecast"] is None
    file.write_text("{")
    with pytest.raises(PoolDamaged, match="forecast"):
        forecast_of(pool.path, run_id=result.run_id)


def test_an_unknown_price_leaves_the_forecast_open(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool")
    teacher = {"name": "rule", "transport": "litellm", "model": "nobody/knows-this"}
    costs = plan(pool, paid_recipe(teacher=teacher)).forecast()["costs"]
    assert {row["usd_high"] for row in costs} == {None}
