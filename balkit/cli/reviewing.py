"""Commands on what teacher and reference do not agree on: conflicts, review."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from balkit.cli.pools import PoolPath
from balkit.cli.show import Json, data_out, frame_out, json_out, say
from balkit.cli.talk import Talk


def register(app: typer.Typer) -> None:
    """Adds this module's commands to the app."""
    for command in (conflicts, review):
        app.command()(command)


if TYPE_CHECKING:
    from balkit.pool import Pool

Domain = Annotated[str | None, typer.Option(help="Only this domain.")]
Again = Annotated[bool, typer.Option("--again", help="Also those that have a verdict.")]


def conflicts(
    pool: PoolPath,
    domain: Domain = None,
    again: Again = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: bool = Json,
) -> None:
    """List examples whose worked answers contradict the reference, tied in a vote, or disagree.

    The most certain first: none was accepted, and many tries say the same. `balkit review` goes through them.

    Example: balkit conflicts pools/math --domain algebra
    """
    from balkit.pool import Pool

    found = Pool.open(pool).conflicts(domain=domain, settled=again)
    if as_csv:
        data_out(found.write_csv())
        return
    if found.is_empty() and not as_json:
        say(f"{pool}: teacher and reference agree, or a person has said who is right")
        return
    frame_out(found, as_json=as_json, title=f"{pool}: {found.height} examples in conflict")


def review(
    pool: PoolPath,
    domain: Domain = None,
    reason: Annotated[
        list[str] | None,
        typer.Option(help="Instead of conflicts: examples with a worked answer refused for this; several times."),
    ] = None,
    again: Again = False,
    export: Annotated[
        Path | None, typer.Option(help="Write the cases to this .jsonl or .csv for somebody to fill in, and stop.")
    ] = None,
    apply: Annotated[
        Path | None, typer.Option(help="Store the verdicts of such a file, all or none, and stop.")
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take the newest verdicts back, and stop.")] = False,
    as_json: bool = Json,
) -> None:
    """Go through conflicts and accept, reject or fix the teacher's worked answers; each verdict is stored at once.

    What is accepted or fixed is what the next run takes first, and it costs nothing. Nothing is deleted.

    Example: balkit review pools/math --reason answer_contradicts_reference
    """
    from balkit import review as reviewing
    from balkit.pool import Pool

    if sum((export is not None, apply is not None, undo)) > 1:
        raise typer.BadParameter("--export, --apply and --undo go one at a time")
    opened = Pool.open(pool)
    if apply is not None:
        said = _applied(opened, apply)
    elif undo:
        taken = reviewing.undo(opened)
        said = {"undone": 0 if taken is None else len(taken.example_ids), "version": opened.version}
    else:
        cases = reviewing.cases(opened, reasons=reason or (), domain=domain, settled=again)
        if export is not None:
            said = {"file": str(export), "cases": len(cases), "lines": reviewing.write_cases(cases, export)}
        else:
            said = Talk(opened, cases, say=lambda text: say(text, err=as_json)).go()
    if as_json:
        json_out(said)
    else:
        say(", ".join(f"{name} {value}" for name, value in said.items()))


def _applied(opened: Pool, file: Path) -> dict[str, object]:
    from balkit import review as reviewing

    judged = reviewing.read_verdicts(opened, file)
    verdicts: list[str] = [one.verdict for _, some in judged for one in some]
    if judged:
        reviewing.judge(opened, judged, message=f"review: {len(judged)} examples by {file.name}")
    counts = {name: verdicts.count(name) for name in ("accept", "reject", "fix")}
    return {"version": opened.version, **counts}
