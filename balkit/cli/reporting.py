"""balkit report: a pool and its runs on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from balkit.cli.pools import PoolPath
from balkit.cli.show import Json, json_out, say


def register(app: typer.Typer) -> None:
    """Adds this module's command to the app."""
    app.command()(report)


def report(
    pool: PoolPath,
    run: Annotated[
        str | None, typer.Argument(help="A run's id, the beginning of it, or latest (the default).", metavar="[RUN]")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file, or a folder for it; the pool's if not given.", metavar="FILE.html")
    ] = None,
    compare: Annotated[
        tuple[str, str] | None, typer.Option(help="Two runs side by side, with paired differences.", metavar="RUN RUN")
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(help="A folder for the figures as PNG and SVG.", metavar="FOLDER")
    ] = None,
    as_json: bool = Json,
) -> None:
    """Write one page of HTML that shows what a run did with a pool and what it cost; it opens without a network.

    Example: balkit report pools/math --out math.html
    """
    from balkit.pages import write_report
    from balkit.pool import Pool

    written = write_report(Pool.open(pool), out, run=run, compare=compare, plots=plots)
    if as_json:
        json_out(
            {
                "file": str(written.file),
                "bytes": written.bytes,
                "run_id": written.run_id,
                "notes": list(written.notes),
                "plots": [str(file) for file in written.plots],
            }
        )
        return
    for note in written.notes:
        say(note)
    if written.plots:
        say(f"{len(written.plots)} figures in {plots}")
    say(f"{written.file}: {written.bytes / 1e3:,.0f} kB; open it in any browser")
