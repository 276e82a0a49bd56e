"""What commands print: tables for people, JSON for machines, progress on stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from balkit.terminal import is_unicode

if TYPE_CHECKING:
    import polars as pl

    from balkit.events import Notify

Json = typer.Option(False, "--json", help="Print JSON for machines.")


def json_out(value: Any) -> None:
    """One JSON document on stdout; escapes stand in it for what the encoding of stdout lacks."""
    typer.echo(json_text(value, ascii_only=not is_unicode(sys.stdout)))


def json_text(value: Any, *, ascii_only: bool = False) -> str:
    """A JSON document. JSON has no NaN and no infinity, so these are null."""
    return json.dumps(_finite(value), ensure_ascii=ascii_only, indent=2, default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, list | tuple) else value


def frame_out(frame: pl.DataFrame, *, as_json: bool, title: str = "") -> None:
    """A frame as a JSON list of rows, or as a table."""
    if as_json:
        json_out(frame.to_dicts())
        return
    from balkit.report import printed

    typer.echo(printed(frame, title=title))


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Notify]:
    """See `report.progress`; nothing when quiet."""
    if quiet:
        yield lambda event: None
        return
    from balkit.report import progress as shown

    with shown() as notify:
        yield notify
