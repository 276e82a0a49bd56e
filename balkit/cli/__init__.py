"""The command line: parse, call one function, print, exit code.

Exit codes: 0 done; 1 findings, a cap reached, or something that the user can mend; 2 usage; 3 findings of an audit;
130 interrupted.
"""

from __future__ import annotations

import sys
import traceback

import typer

from balkit.cli import (
    audit,
    beginning,
    calls,
    choosing,
    comparing,
    domains,
    ending,
    files,
    first,
    pools,
    reporting,
    reviewing,
    runs,
    status,
)
from balkit.cli.later import later
from balkit.cli.sections import SECTIONS, Sections
from balkit.cli.show import say
from balkit.errors import BalkitError
from balkit.terminal import prepare

__all__ = ["SECTIONS", "app", "main"]

app = typer.Typer(
    name="balkit",
    cls=Sections,
    help="Balanced distillation data sets under a fixed teacher budget, in several stages.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for commands in (
    beginning,
    first,
    pools,
    domains,
    audit,
    choosing,
    runs,
    status,
    comparing,
    calls,
    reviewing,
    files,
    reporting,
):
    commands.register(app)

later(app)


@app.callback(invoke_without_command=True)
def _alone(
    context: typer.Context, version: bool = typer.Option(False, "--version", help="Print the version and stop.")
) -> None:
    if version:
        from balkit import __version__

        say(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        first.welcome()


def main() -> None:
    """The console script."""
    prepare()
    try:
        code = app(standalone_mode=False)
    except BalkitError as error:
        ending.failed(error.code, str(error), fix=error.fix)
    except ending.UsageError as error:
        ending.misused(error)
    except typer.Abort:
        ending.failed("interrupted", "ended before an answer was given")
    except OSError as error:
        ending.failed("system", str(error))
    except Exception:
        traceback.print_exc()
        ending.failed("defect", "the error above is a defect of balkit")
    else:
        if code == ending.INTERRUPTED:
            say("", err=True)
            ending.failed("interrupted", "interrupted", exit_with=code)
        sys.exit(code)
