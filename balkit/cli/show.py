"""What commands print: tables for people, JSON for machines, progress on stderr."""

from __future__ import annotations

import json
import math
import re
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from balkit.terminal import WIDE, is_unicode, width

if TYPE_CHECKING:
    import polars as pl

    from balkit.events import Notify

Json = typer.Option(False, "--json", help="Print JSON for machines.")


def say(text: str = "", *, err: bool = False) -> None:
    """A line for people on stdout or stderr, spelled out where the encoding lacks a character."""
    print(text, file=sys.stderr if err else sys.stdout, flush=True)


def prose(text: str, *, err: bool = False) -> None:
    """Sentences for people, in lines that fit the terminal; a pipe gets one line."""
    wide = width(sys.stderr if err else sys.stdout)
    say(text if wide >= WIDE else folded(text, width=wide), err=err)


def folded(text: str, *, width: int) -> str:
    """The text in lines; a word, and a command in backticks, stays whole where it fits a line."""
    whole = re.sub(r"`[^`]+`", lambda command: command[0].replace(" ", "\N{NO-BREAK SPACE}"), text)
    lines = textwrap.fill(whole, width, break_long_words=False, break_on_hyphens=False)
    return lines.replace("\N{NO-BREAK SPACE}", " ")


def data_out(text: str) -> None:
    """Text for programs on stdout, as it is and in UTF-8; in a terminal as that can show it."""
    bytes_out = None if sys.stdout.isatty() else getattr(sys.stdout, "buffer", None)
    if bytes_out is None:
        sys.stdout.write(text)
    else:
        sys.stdout.flush()
        bytes_out.write(text.encode("utf-8", "surrogatepass"))
    sys.stdout.flush()


def json_out(value: Any) -> None:
    """One JSON document on stdout; escapes stand in it for what the encoding of stdout lacks."""
    say(json_text(value, ascii_only=not is_unicode(sys.stdout)))


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

    say(printed(frame, title=title))


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Notify]:
    """See `report.progress`; nothing when quiet."""
    if quiet:
        yield lambda event: None
        return
    from balkit.report import progress as shown

    with shown() as notify:
        yield notify
