"""What commands print: tables for people, JSON for machines, progress on stderr."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import polars as pl

    from balkit.events import Notify

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
def progress(*, quiet: bool = False) -> Iterator[Notify]:
    """See `report.progress`; nothing when quiet."""
    if quiet:
        yield lambda event: None
        return
    from balkit.report import progress as shown

    with shown() as notify:
        yield notify
