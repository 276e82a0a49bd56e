"""What a run says while it goes: in a terminal, a plain log and a notebook."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import nbformat
import polars as pl
import pytest
from nbclient import NotebookClient
from small import Rule, make_pool, make_recipe

from balkit.events import Calls, Event
from balkit.outlook import Outlook
from balkit.planning import plan
from balkit.pool import Pool
from balkit.recipe import Price
from balkit.report.live import LINE_EVERY_S, Lines, Meter, said
from balkit.stages import run
from balkit.teacher import Ledger, Progress, Scripted, Spent


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def calls(**changed: object) -> Calls:
    body = {"done": 12, "cached": 2, "to_buy": 88, "failed": 1, "tokens": 3456, "usd": 0.0123}
    return Calls(**(body | changed))  # type: ignore[arg-type]


def test_a_step_says_calls_rate_money_and_time_left() -> None:
    clock = Clock()
    meter = Meter(clock)
    meter.note(Event(1, 3, "data", done=2, total=100))
    clock.now = 5.0
    event = Event(1, 3, "data", done=12, total=100, calls=calls(usd_projected=0.1, usd_cap=0.5))
    meter.note(event)
    assert said(event, meter) == (
        "2 cached, about 88 to buy, 1 failed, 3,456 tokens, $0.0123 of about $0.1000 (cap $0.50), 2.0/s, 44 s left"
    )


def test_a_rate_limit_is_said_while_it_lasts() -> None:
    event = Event(1, 1, "data", done=12, total=100, calls=calls(paused_s=90.0))
    meter = Meter(Clock())
    meter.note(event)
    assert said(event, meter).endswith("rate limited for 1 min 30 s")


def test_the_rate_is_that_of_the_last_minute() -> None:
    clock = Clock()
    meter = Meter(clock)
    for second in range(0, 600, 10):
        clock.now = float(second)
        event = Event(1, 1, "data", done=second if second < 300 else 300 + 5 * (second - 300), total=10_000)
        meter.note(event)
    assert meter.rate(event) == pytest.approx(5.0)


def test_a_log_has_the_start_and_the_end_of_every_step_and_a_line_every_few_seconds() -> None:
    clock, out = Clock(), io.StringIO()
    lines = Lines(out, clock=clock)
    for stage in (1, 2):
        lines.note(Event(stage, 2, "data"))
        for done in range(1, 21):
            clock.now += 1.0
            lines.note(Event(stage, 2, "data", done=done, total=20))
    lines.note(Event(2, 2, "done", "r-s2"))
    printed = out.getvalue().splitlines()
    ends = [line for line in printed if " 20/20" in line]
    assert len(ends) == 2
    assert len(printed) == 2 * (2 + 20 / LINE_EVERY_S) + 1 - 2  # the last of the lines in between is the end
    assert printed[-1].endswith("stage 2/2 done  r-s2")


def test_the_projection_goes_from_the_plan_to_what_calls_cost(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool")
    recipe = make_recipe(budget_rows=60, stages=2)
    priced = recipe.teacher.model_copy(update={"price": Price(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)})
    made = plan(pool, recipe.model_copy(update={"teacher": priced}))
    planned = made.rows.group_by("stage").agg(pl.col("calls", "usd").sum()).sort("stage")
    first, whole = planned.filter(stage=1), planned["usd"].sum()
    outlook = Outlook(made, spent=Spent(), cap_usd=None)
    assert outlook.calls(1, Progress()).usd_projected == pytest.approx(whole - planned.filter(stage=0)["usd"].sum())
    half = first["calls"][0] // 2
    dear = Progress(done=half, sent=half, cost_microusd=half * 1_000_000)
    now = outlook.calls(1, dear)
    assert now.to_buy == first["calls"][0] - half
    assert now.usd == half
    assert now.usd_projected == pytest.approx(
        first["calls"][0] * 1.0 + planned.filter(pl.col("stage") > 1)["usd"].sum()
    )


def test_what_a_run_says_last_of_its_money_is_what_the_ledger_charged(tmp_path: Path) -> None:
    pool, told = make_pool(tmp_path / "pool"), []
    recipe = make_recipe(budget_rows=30, stages=2, select={"first": "random", "then": "random"})
    priced = recipe.teacher.model_copy(update={"price": Price(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)})
    recipe = recipe.model_copy(update={"teacher": priced})
    result = run(pool, recipe, teacher=Scripted(Rule()), train=False, notify=told.append)
    last = [event.calls for event in told if event.calls is not None][-1]
    assert last.usd == pytest.approx(result.spent.cost_microusd / 1e6)
    with Ledger(pool.path / "calls.sqlite") as ledger:
        assert ledger.spent(result.run_id).calls == result.spent.calls


SHOW = """
import balkit
from balkit.events import Event
with balkit.progress() as notify:
    for stage in (1, 2):
        for done in range(5):
            notify(Event(stage, 2, "data", done=done + 1, total=5))
"""


def test_a_terminal_of_80_columns_shows_bars() -> None:
    parent, child = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    with subprocess.Popen([sys.executable, "-c", SHOW], stderr=child, env=environment) as process:
        os.close(child)
        shown = b""
        try:
            while part := os.read(parent, 65536):
                shown += part
        except OSError:  # the other end was closed
            pass
        assert process.wait(timeout=60) == 0
    os.close(parent)
    text = shown.decode()
    assert "stage 1/2 data" in text
    assert "5/5" in text
    assert "\x1b[" in text, "the bars are redrawn in place"


def test_a_notebook_shows_one_text_that_holds_every_step() -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SHOW)])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    (output,) = notebook.cells[0].outputs
    lines = output["data"]["text/plain"].splitlines()
    assert [line.split()[:4] for line in lines] == [["stage", "1/2", "data", "5/5"], ["stage", "2/2", "data", "5/5"]]


def test_nothing_is_said_when_nobody_asks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pool: Pool = make_pool(tmp_path / "pool")
    recipe = make_recipe(budget_rows=12, stages=1, select={"first": "random", "then": "random"})
    run(pool, recipe, teacher=Scripted(Rule()), train=False)
    assert capfd.readouterr() == ("", "")
