"""The command line: parse, call one function, print, exit code.

Exit codes: 0 done; 1 findings, a cap reached, or something that the user can mend; 2 usage; 3 findings of an audit;
130 interrupted.
"""

from __future__ import annotations

import sys

import typer

from balkit.cli import audit, beginning, calls, choosing, comparing, domains, files, first, pools, reviewing, runs
from balkit.errors import BalkitError

#: What typer makes of Ctrl-C.
INTERRUPTED = 130

app = typer.Typer(
    name="balkit",
    help="Balanced distillation data sets under a fixed teacher budget, in several stages.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for commands in (beginning, first, pools, domains, audit, choosing, runs, comparing, calls, reviewing, files):
    commands.register(app)


@app.callback(invoke_without_command=True)
def _alone(
    context: typer.Context, version: bool = typer.Option(False, "--version", help="Print the version and stop.")
) -> None:
    if version:
        from balkit import __version__

        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        first.welcome()


def main() -> None:
    """The console script."""
    try:
        app()
    except BalkitError as error:
        typer.echo(f"balkit: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        typer.echo(f"balkit: {error}; nothing that was stored before is lost", err=True)
        sys.exit(1)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            typer.echo(
                "\nbalkit: interrupted; what was done is kept, and the same command goes on from there", err=True
            )
        raise
