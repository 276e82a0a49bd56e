"""A frame as a table of plain text, in as many columns as there are."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import polars as pl

from balkit import terminal
from balkit.terminal import WIDE, spelled

_CELL = 200  # characters of a cell that are shown
_GAP = 2
#: A text column is not made narrower than this, as far as its words let it.
_NARROWEST = 10
_DIGEST, _DIGEST_SHOWN = re.compile(r"[0-9a-f]{32,64}"), 12
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)\.\d+\S*")


def table(frame: pl.DataFrame, *, title: str = "", width: int = WIDE, encoding: str | None = None) -> str:
    """The frame as text without colours, in `width` columns, in characters that the encoding has.

    Control characters in cells are shown, not obeyed; long cells are cut. Where the columns do not fit, columns without
    any value are left out, digests and moments are shortened, and texts folded; numbers never are. What does not fit
    then goes into further tables below, each with the first column. A frame without rows is said to be one.
    """
    shown = [_column(series, encoding) for series in frame]
    if _width(shown) > width:
        shown = [one.shortened() for one in shown if any(cell != "-" for cell in one.cells)] or shown
    parts = [_drawn(part, width=width) for part in _parts(shown, width=width)]
    if frame.is_empty() and shown:
        parts = [f"no rows ({', '.join(one.name for one in shown)})"]
    head = [line for part in title.splitlines() for line in textwrap.wrap(part, max(width, 1)) or [""]]
    return "\n".join([*head, "\n\n".join(parts)])


def printed(frame: pl.DataFrame, *, title: str = "") -> str:
    """The table as stdout takes it."""
    return table(frame, title=title, width=terminal.width(sys.stdout), encoding=sys.stdout.encoding)


@dataclass(frozen=True)
class _Column:
    """A column's header and cells as they are shown."""

    name: str
    cells: Sequence[str]
    is_number: bool
    keeps_name: bool = True  # its header stands in one line

    @property
    def header(self) -> str:
        return self.name if self.keeps_name else self.name.replace("_", " ")

    def shortened(self) -> _Column:
        """With a header that may be folded, digests of which the start is enough, and moments to the second."""
        if self.is_number:
            return _Column(self.name, self.cells, True, keeps_name=False)
        cells = [
            cell[:_DIGEST_SHOWN] if _DIGEST.fullmatch(cell) else _MOMENT.sub(r"\1 \2", cell) for cell in self.cells
        ]
        return _Column(self.name, cells, False, keeps_name=False)

    @property
    def widest(self) -> int:
        """As much as it can use."""
        from rich.cells import cell_len

        header = self.header if self.keeps_name else max(self.header.split() or [""], key=len)
        return max(map(cell_len, [header, *self.cells]))

    @property
    def narrowest(self) -> int:
        """As little as it can do with: a number whole, a text in words."""
        from rich.cells import cell_len

        if self.is_number:
            return self.widest
        words = max((cell_len(word) for cell in [self.header, *self.cells] for word in cell.split()), default=1)
        return min(self.widest, max(_NARROWEST, min(words, 2 * _NARROWEST)))


def _column(series: pl.Series, encoding: str | None) -> _Column:
    cells = [spelled(_cell(value), encoding) for value in series]
    return _Column(spelled(series.name, encoding), cells, series.dtype.is_numeric())


def _width(columns: Sequence[_Column]) -> int:
    return sum(one.widest for one in columns) + _GAP * (len(columns) - 1)


def _parts(columns: Sequence[_Column], *, width: int) -> Iterator[list[_Column]]:
    """The columns in as few tables as their least widths allow; each begins with the first one."""
    part: list[_Column] = []
    for one in columns:
        if len(part) > 1 and sum(each.narrowest + _GAP for each in part) + one.narrowest > width:
            yield part
            part = [columns[0]]
        part.append(one)
    yield part


def _drawn(columns: Sequence[_Column], *, width: int) -> str:
    import io

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False)
    for one, columns_wide in zip(columns, _widths(columns, width=width), strict=True):
        align: Literal["right", "left"] = "right" if one.is_number else "left"
        drawn.add_column(Text(one.header), justify=align, width=columns_wide, overflow="fold")
    for row in zip(*(one.cells for one in columns), strict=True):
        drawn.add_row(*map(Text, row))
    console = Console(file=io.StringIO(), width=max(width, 1), highlight=False, no_color=True, force_jupyter=False)
    with console.capture() as captured:
        console.print(drawn)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _widths(columns: Sequence[_Column], *, width: int) -> list[int]:
    """As wide as each can use; where that is too much the widest texts give way first."""
    widths = [one.widest for one in columns]
    over = sum(widths) + _GAP * (len(columns) - 1) - width
    while over > 0:
        room = [(wide - one.narrowest > 0) * wide for wide, one in zip(widths, columns, strict=True)]
        if not any(room):
            break
        at = room.index(max(room))
        widths[at] -= 1
        over -= 1
    return widths


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        if 1e-6 <= abs(value) < 1e-4:  # a small sum of money is no 7.1e-05
            return f"{Decimal(f'{value:.4g}'):f}"
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = str(value)
    text = text if len(text) <= _CELL else text[: _CELL - 1] + "…"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
