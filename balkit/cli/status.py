"""The command that tells from another terminal where a run stands: status."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from balkit.cli.pools import PoolPath
from balkit.cli.show import Json, folded, frame_out, json_out, say

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from balkit.standing import RunStatus, Status

#: Seconds between two looks with --follow, in a terminal and in a log.
LOOK_EVERY_S = 0.5
LINE_EVERY_S = 5.0

_STATES = {
    "running": "running",
    "done": "done",
    "stopped": "stopped",
    "dead": "dead: its process ended without a word (killed, or a power cut)",
    "elsewhere": "kept by another machine, so that nobody can tell from here whether it runs",
    "unknown": "unknown: by an older balkit, which kept no status",
}


def register(app: typer.Typer) -> None:
    """Adds this module's command to the app."""
    app.command()(status)


def status(
    pool: PoolPath,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show it until the run ends.")] = False,
    as_json: bool = Json,
) -> None:
    """Tell where the pool's last run stands, while it goes and afterwards: who, how far, how full, what it cost.

    Reads small files alone: the run is neither locked nor slowed down. Also says how a run that ended goes on.

    Example: balkit status pools/math --follow
    """
    from balkit.standing import look

    if as_json and follow:
        raise typer.BadParameter("--json and --follow go one at a time")
    if not (pool / "pool.duckdb").exists():
        from balkit.pool import Pool

        Pool.open(pool)  # says what is wrong with it
    found = look(pool)
    if as_json:
        json_out(found.as_dict())
        return
    if follow:
        found = _followed(pool, found)
    _show(found)


def _followed(pool: Path, found: Status) -> Status:
    from rich.live import Live

    from balkit.standing import look
    from balkit.terminal import is_live

    if not is_live(sys.stdout):
        return _logged(pool, found)
    with Live(console=_console(), auto_refresh=False, transient=True) as live:
        while found.runs and found.runs[0].state == "running":
            live.update(_drawn(found.runs[0]), refresh=True)
            time.sleep(LOOK_EVERY_S)
            found = look(pool)
    return found


def _logged(pool: Path, found: Status) -> Status:
    from balkit.report.panel import line
    from balkit.standing import look

    said, at = "", -LINE_EVERY_S
    while found.runs and (run := found.runs[0]).state == "running":
        now = line(run.standing) if run.standing else run.state
        if now != said and time.monotonic() - at >= LINE_EVERY_S:
            said, at = now, time.monotonic()
            say(f"{_clock(run.changed)}  {now}")
        time.sleep(LOOK_EVERY_S)
        found = look(pool)
    return found


def _show(found: Status) -> None:
    if not found.runs:
        held = f"; process {found.holder} works on it" if found.holder else ""
        say(f"{found.pool}: no run so far{held}")
        say(f"next: balkit plan {shlex.quote(str(found.pool))} RECIPE")
        return
    run = found.runs[0]
    _console().print(_drawn(run))
    for line in _said(found, run):
        say(line)
    if len(found.runs) > 1:
        import polars as pl

        rows = [
            {
                "run": one.record.run_id[:12],
                "recipe": one.record.name,
                "state": one.state,
                "begun": _clock(one.record.started),
                "calls": one.spent.calls if one.spent else None,
                "usd": one.spent.cost_microusd / 1e6 if one.spent else None,
            }
            for one in found.runs[1:11]
        ]
        frame_out(pl.DataFrame(rows), as_json=False, title="\nother runs")


def _drawn(run: RunStatus) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from balkit.report.panel import Panel

    head = Text(_headline(run))
    return Group(head, Panel(run.standing)) if run.standing else head


def _headline(run: RunStatus) -> str:
    which = "" if run.standing else f"run {run.record.run_id[:12]} ({run.record.name}): "
    who = f", process {run.process['pid']} since {_clock(run.process['since'])}" if run.process else ""
    changed = f", last change {_ago(run.changed)}" if run.state == "running" and run.changed else ""
    return f"{which}{run.state}{who}{changed}"


def _said(found: Status, run: RunStatus) -> Iterator[str]:
    """What a person asks next: what happened, when, what it cost, how to go on."""
    pool = shlex.quote(str(found.pool))
    if run.state not in ("running", "stopped", "done"):
        yield folded(_STATES[run.state], width=80)
    if run.state != "running" and run.changed:
        yield f"last change: {_clock(run.changed)}, {_ago(run.changed)}"
    if run.end and run.end.get("code"):
        yield folded(f"[{run.end['code']}] {run.end['said']}", width=80)
        yield folded(run.end["fix"], width=80)
    if run.spent:
        usd = run.spent.cost_microusd / 1e6
        yield f"spent: ${usd:,.4f} in {run.spent.calls:,} calls, {run.spent.tokens:,} tokens"
    if found.holder and (run.process is None or found.holder != run.process["pid"]):
        yield f"process {found.holder} works on the pool now, with another command than a run"
    if run.state == "running":
        yield f"next: balkit status {pool} --follow"
    elif run.state == "done":
        yield f"next: balkit export {pool} latest --to trl --out exports; balkit spend {pool}"
    else:
        directory = (run.process or {}).get("directory")
        where = f" (in {directory})" if directory and directory != str(Path.cwd()) else ""
        yield f"goes on with: {run.command}{where}"


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)


def _clock(moment: str | None) -> str:
    """Local time; with the day where that is not today."""
    if moment is None:
        return "-"
    at = datetime.fromisoformat(moment).astimezone()
    return f"{at:%H:%M:%S}" if at.date() == datetime.now().astimezone().date() else f"{at:%Y-%m-%d %H:%M}"


def _ago(moment: str) -> str:
    from balkit.report.panel import duration

    return f"{duration(max(0.0, (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()))} ago"
