"""A frame as a table of plain text."""

from __future__ import annotations

import io
from typing import Any

import polars as pl

from balkit.terminal import WIDE, spelled


def table(frame: pl.DataFrame, *, title: str = "", width: int = WIDE, encoding: str | None = None) -> str:
    """The frame as text without colours, in `width` columns, in characters that the encoding has.

    Control characters in cells are shown, not obeyed; long cells are cut.
    """
    from rich.console import Console
    from rich.table import Table

    drawn = Table(title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name, dtype in frame.schema.items():
        drawn.add_column(spelled(name, encoding), justify="right" if dtype.is_numeric() else "left", overflow="fold")
    for row in frame.iter_rows():
        drawn.add_row(*(spelled(_cell(value), encoding) for value in row))
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False, no_color=True)
    with console.capture() as captured:
        console.print(drawn)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = str(value)
    text = text if len(text) <= 200 else text[:199] + "…"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
