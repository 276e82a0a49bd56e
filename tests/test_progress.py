"""What a run says while it goes: in a terminal, a plain log and a notebook."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import polars as pl
import pytest
from nbclient import NotebookClient
from rich.cells import cell_len
from rich.console import Console
from small import Rule, make_pool, make_recipe
from terminals import shown_in

from balkit.events import Calls, Event, Fill
from balkit.outlook import Outlook
from balkit.planning import plan
from balkit.pool import Pool
from balkit.recipe import Price
from balkit.report.live import LINE_EVERY_S, Lines
from balkit.report.panel import Panel, line
from balkit.stages import run
from balkit.standing import Meter, Standing, Tracker
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


FILL = Fill(
    due={"fruit": 60, "tool": 20, "bird": 10, "日本語": 9, "large\x07": 0},
    rows={"fruit": 70, "tool": 11, "bird": 2},
    answered={"bird": 3, "fruit": 5},
    tail=frozenset(["tool", "bird", "日本語"]),
)


def shown(tracker: Tracker, *, encoding: str = "utf-8", width: int = 80) -> str:
    """The panel as a terminal of this encoding and width gets it."""
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    console = Console(file=out, width=width, highlight=False)
    console.print(Panel(tracker.now()))
    out.flush()
    return out.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


def filled(**changed: Any) -> Tracker:
    """A tracker in the second of three stages, a minute after it began."""
    clock = Clock()
    tracker = Tracker(clock)
    about = {"fill": FILL, "run_id": "3f2a9c1b7d10", "name": "tickets"}
    for stage, step in ((0, "dev"), (1, "data"), (1, "train"), (2, "data")):
        tracker.note(Event(stage, 3, step, done=0, total=100, **about))
        clock.now += 20
    now = about | {"done": 40, "total": 100, "calls": calls(usd_projected=0.1, usd_cap=0.5)}
    tracker.note(Event(2, 3, "data", **(now | changed)))  # type: ignore[arg-type]
    return tracker


def test_the_panel_has_all_that_is_known_in_80_columns() -> None:
    lines = shown(filled()).splitlines()
    assert {cell_len(one) for one in lines} == {80}
    for said in (
        *(
            "tickets 3f2a9c1b7d10",
            "stage 1 data 20 s, train 20 s",
            "2 of 3: data now",
            "40/100 calls, 2.0/s, 30 s left",
        ),
        *("2 cached, about 88 to buy, 1 failed, 3,456 tokens", "$0.0123 of about $0.1000 (cap $0.50)"),
        *("60/60 rows", "13/39 rows, 3 to check", "日本語 0/9, bird 2/10, tool 11/20", "after 1 min 20 s"),
    ):
        assert any(said in one for one in lines), said


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_the_panel_keeps_its_frame_where_letters_are_lacking(encoding: str) -> None:
    text = shown(filled(), encoding=encoding)
    assert {len(one) for one in text.splitlines()} == {80}
    assert r"\u65e5\u672c\u8a9e 0/9" in text
    assert "####" in text


def test_the_panel_fits_a_narrow_terminal() -> None:
    assert {cell_len(one) for one in shown(filled(), width=40).splitlines()} == {40}


def test_names_of_domains_are_shown_and_not_obeyed() -> None:
    hostile = Fill(due={"\x1b[31m[bold]red": 3}, rows={}, tail=frozenset(["\x1b[31m[bold]red"]))
    assert r"\x1b[31m[bold]red 0/3" in shown(filled(fill=hostile))


def test_a_line_of_a_log_says_how_full_head_and_tail_are() -> None:
    said = line(filled().now())
    assert said.endswith("head 60/60 rows; tail 13/39 rows, 3 to check; lowest 日本語 0/9, bird 2/10, tool 11/20")


def test_another_run_begins_a_panel_of_its_own() -> None:
    tracker = filled()
    tracker.note(Event(1, 1, "data", run_id="other", name="other"))
    now = tracker.now()
    assert (now.ended, now.calls, now.filled, now.elapsed_s) == ((), None, None, 0.0)


def test_where_a_run_stands_goes_to_json_and_back() -> None:
    now = filled().now()
    assert Standing.from_dict(json.loads(json.dumps(now.as_dict()))) == now


@pytest.mark.long
def test_a_run_tells_how_full_its_quotas_are_and_ends_full(tmp_path: Path) -> None:
    told: list[Event] = []
    recipe = make_recipe(budget_rows=60, stages=2, select={"first": "random", "then": "random"})
    result = run(make_pool(tmp_path / "pool"), recipe, teacher=Scripted(Rule()), train=False, notify=told.append)
    fills = [event.fill for event in told if event.fill is not None]
    rows = [sum(one.rows.values()) for one in fills]
    assert rows == sorted(rows)
    assert any(0 < sum(one.rows.values()) < 60 and one.answered for one in fills), (
        "answers count before their round ends"
    )
    assert fills[0].due == result.stages[0].quotas
    assert fills[-1].rows == fills[-1].due
    assert sum(fills[-1].due.values()) == 60
    assert fills[-1].tail == {"tool", "bird"}
    assert {(event.run_id, event.name) for event in told} == {(result.run_id[:12], "small")}


def test_a_step_says_calls_rate_money_and_time_left() -> None:
    clock = Clock()
    tracker = Tracker(clock)
    tracker.note(Event(1, 3, "data", done=2, total=100))
    clock.now = 5.0
    tracker.note(Event(1, 3, "data", done=12, total=100, calls=calls(usd_projected=0.1, usd_cap=0.5)))
    assert line(tracker.now()) == (
        "stage 1/3 data  12/100  2 cached, about 88 to buy, 1 failed, 3,456 tokens, "
        "$0.0123 of about $0.1000 (cap $0.50), 2.0/s, 44 s left"
    )


def test_a_rate_limit_is_said_while_it_lasts() -> None:
    tracker = Tracker(Clock())
    tracker.note(Event(1, 1, "data", done=12, total=100, calls=calls(paused_s=90.0)))
    assert "rate limited for 1 min 30 s" in line(tracker.now())
    tracker.note(Event(1, 1, "train", done=1, total=10))
    assert "rate limited" not in shown(tracker)


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
            notify(Event(stage, 2, "data", done=done + 1, total=5, run_id="3f2a9c1b7d10", name="tickets"))
"""


def test_a_terminal_of_80_columns_shows_the_panel() -> None:
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    text = shown_in("stderr", [sys.executable, "-c", SHOW], environment).decode()
    assert "2 of 2: " in text
    assert "5/5" in text
    assert "\x1b[" in text, "the panel is redrawn in place"


def test_a_notebook_shows_one_panel_that_changes() -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SHOW)])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    (output,) = notebook.cells[0].outputs
    lines = output["data"]["text/plain"].splitlines()
    assert "2 of 2: data now" in lines[2]
    assert "5/5" in lines[3]
    assert output["data"]["text/html"].startswith("<pre")


def test_nothing_is_said_when_nobody_asks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pool: Pool = make_pool(tmp_path / "pool")
    recipe = make_recipe(budget_rows=12, stages=1, select={"first": "random", "then": "random"})
    run(pool, recipe, teacher=Scripted(Rule()), train=False)
    assert capfd.readouterr() == ("", "")
