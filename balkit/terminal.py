"""What a terminal or a pipe can take: its encoding, its width."""

from __future__ import annotations

import codecs
import io
import os
import shutil
import sys
from typing import TextIO

#: Columns of tables that no terminal shows.
WIDE = 200
_NARROW = 80

_LIKE = dict(
    zip(
        "…–—−±≤≥×·•‘’“”█▒░▁→←\u00a0",
        ["...", "-", "-", "-", "+-", "<=", ">=", "x", *"**''\"\"#=._", "->", "<-", " "],
        strict=True,
    )
)
_ERRORS = "balkit"  # the name by which codecs know `_replaced`


def spelled(text: str, encoding: str | None) -> str:
    """The text in characters that the encoding has: the nearest sign, or an escape such as \\xe4 or \\u65e5."""
    return text.encode(encoding or "utf-8", _ERRORS).decode(encoding or "utf-8")


def prepare() -> None:
    """Let stdout and stderr write any text, spelled out where their encoding lacks a character; closed ones drop it."""
    sys.stdout, sys.stderr = sys.stdout or io.StringIO(), sys.stderr or io.StringIO()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


def is_unicode(stream: TextIO) -> bool:
    """Whether it takes every character as it is."""
    return codecs.lookup(stream.encoding or "utf-8").name.startswith("utf")


def width(stream: TextIO) -> int:
    """Columns of the terminal that a stream goes to, or COLUMNS; `WIDE` for files and pipes."""
    if os.environ.get("COLUMNS", "").isdecimal() or stream.isatty():
        return max(20, shutil.get_terminal_size((_NARROW, 24)).columns)
    return WIDE


def is_live(stream: TextIO) -> bool:
    """Whether it goes to a terminal that can draw over what it has shown."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    shown = (
        _LIKE.get(char) or char.encode("ascii", "backslashreplace").decode()
        for char in error.object[error.start : error.end]
    )
    return "".join(shown), error.end


codecs.register_error(_ERRORS, _replaced)
