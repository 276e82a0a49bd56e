"""What commands print: tables for people, JSON for machines, progress on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import polars as pl

    from balkit.stages import Event

#: Seconds between two lines of progress where there is no terminal.
LINE_EVERY_S = 5.0

Json = typer.Option(False, "--json", help="Print JSON for machines.")


def json_out(value: Any) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def frame_out(frame: pl.DataFrame, *, as_json: bool, title: str = "") -> None:
    """A frame as a JSON list of rows, or as a table."""
    if as_json:
        json_out(frame.to_dicts())
        return
    from balkit.report import table

    typer.echo(table(frame, title=title))


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Callable[[Event], None]]:
    """A bar in a terminal, a plain line every few seconds elsewhere, nothing when quiet."""
    if quiet:
        yield lambda event: None
    elif sys.stderr.isatty():
        with _bar() as notify:
            yield notify
    else:
        yield _lines()


def _describe(event: Event) -> str:
    money = f"  ${event.cost_usd:,.4f}" if event.cost_usd else ""
    return f"stage {event.stage}/{event.stages} {event.step}  {event.text}{money}"


@contextmanager
def _bar() -> Iterator[Callable[[Event], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        tasks: dict[tuple[int, str], Any] = {}

        def notify(event: Event) -> None:
            key = (event.stage, event.step)
            if key not in tasks:
                for task in bars.tasks:
                    bars.update(task.id, total=task.completed or 1, completed=task.completed or 1)
                if event.step == "done":
                    return
                tasks[key] = bars.add_task(_describe(event), total=event.total or None)
            bars.update(tasks[key], description=_describe(event), completed=event.done, total=event.total or None)

        yield notify


def _lines() -> Callable[[Event], None]:
    start = time.monotonic()
    printed: dict[tuple[int, str], float] = {}

    def notify(event: Event) -> None:
        key, now = (event.stage, event.step), time.monotonic()
        if now - printed.get(key, -LINE_EVERY_S) < LINE_EVERY_S:
            return
        printed[key] = now
        count = f"  {event.done}/{event.total}" if event.total else f"  {event.done}" if event.done else ""
        typer.echo(f"[{now - start:6.0f} s] {_describe(event)}{count}", err=True)

    return notify
