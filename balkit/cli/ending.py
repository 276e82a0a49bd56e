"""How a command ends that cannot go on: what happened and where, then a code, what helps, and where to read more."""

from __future__ import annotations

import sys
import textwrap
from typing import Any, NoReturn

import typer

from balkit.cli.show import folded, say
from balkit.errors import OTHERS

#: What typer makes of Ctrl-C.
INTERRUPTED = 130
MISUSED = 2

_PAGE = "docs/troubleshooting.md"

#: The root of what typer raises of wrong usage; its module differs between versions of typer.
UsageError: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def failed(code: str, message: str, *, fix: str = "", exit_with: int = 1) -> NoReturn:
    """Say it on stderr, and end. Without `fix` it is that of `errors.OTHERS`."""
    say(f"balkit: {message}", err=True)
    helps = f"[{code}] {fix or OTHERS[code][1]} See {_PAGE}#{code}"
    say(textwrap.indent(folded(helps, width=76), "  "), err=True)
    sys.exit(exit_with)


def misused(error: Any) -> NoReturn:
    """Wrong usage, with the right one."""
    context = getattr(error, "ctx", None)
    message, fix = error.format_message(), ""
    if context is not None:
        message = f"{message}\n{context.get_usage()}"
        fix = f"`{context.command_path} --help` shows what it takes."
    failed("usage", message, fix=fix, exit_with=MISUSED)
