"""The command that compares arms: compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from balkit.cli.show import Json, frame_out, json_out, progress, say


def register(app: typer.Typer) -> None:
    """Adds this module's command to the app."""
    app.command()(compare)


def _numbers(text: str | None) -> list[int] | None:
    try:
        return None if text is None else [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r}: whole numbers with commas between, such as 0,1,2") from None


def compare(
    experiment: Annotated[Path, typer.Argument(help="An experiment file (docs/evidence.md).", metavar="EXPERIMENT")],
    out: Annotated[
        Path | None, typer.Option(help="The folder of cells, results and figure; comparisons/<name> if not given.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="An arm to run; may stand several times.", metavar="ARM")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds to run, such as 0,1.")] = None,
    budgets: Annotated[str | None, typer.Option(help="Budgets in rows to run, such as 276,552.")] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(help="A results.json measured elsewhere, whose cells are taken; may stand several times."),
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="Run nothing; put together what is there.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: bool = Json,
) -> None:
    """Run a recipe's variants over several seeds on one pool, at equal rows and training steps, and compare them.

    Stopped, it goes on with the same command; finished cells are read back, and replies are bought once for all arms.

    Example: balkit compare recipes/evidence/quickstart.yaml --out comparisons/quickstart
    """
    from balkit.comparing import compare as compare_arms

    silent = quiet or as_json
    with progress(quiet=silent) as notify:
        done = compare_arms(
            experiment,
            out=out,
            only=only or (),
            seeds=_numbers(seeds),
            budgets=_numbers(budgets),
            results=results or (),
            run=not table,
            notify=notify,
            say=(lambda text: None) if silent else (lambda text: say(text, err=True)),
        )
    if as_json:
        json_out(done.body)
        return
    if done.cells:
        frame_out(done.table(), as_json=False, title="mean over seeds, ± half of the 95 % interval")
        say(f"{done.out / 'results.json'} holds the numbers, results.md the table, figure.svg the figure")
    if done.missing:
        say(
            f"{len(done.missing)} cells have not run: {', '.join(done.missing[:5])}" + ", ..." * (len(done.missing) > 5)
        )
