"""The first minute: balkit alone, init, doctor."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Annotated

import typer

from balkit.cli.show import Json, folded, json_out, say

if TYPE_CHECKING:
    from balkit.health import Check
    from balkit.recipe import Teacher

_ALONE = """\
balkit makes balanced training sets for distilling a large language model (the
teacher) into a small one, under a fixed budget of teacher calls.

See it work, offline and without a key, in a few minutes:
  balkit quickstart

With data and a teacher of your own:
  balkit init FILE          looks at the file and writes a recipe
  balkit add POOL FILE ...  brings the rows into a pool
  balkit plan POOL RECIPE   rows, calls and money, before anything is spent
  balkit run POOL RECIPE    all stages; goes on where it stopped
"""


def register(app: typer.Typer) -> None:
    """Adds this module's commands to the app."""
    app.command()(doctor)
    app.command(name="errors")(list_errors)


def welcome() -> None:
    """What balkit is, and the next command for what lies in the current folder."""
    from balkit.starting.here import look, next_commands

    say(_ALONE)
    folder = Path.cwd()
    here = look(folder)
    named = [f"pool {pool}" for pool in here.pools[:3]] + [f"recipe {recipe.path}" for recipe in here.recipes[:3]]
    more = len(here.pools) + len(here.recipes) - len(named)
    if named:
        say(f"Here: {', '.join(named)}{f' and {more} more' if more else ''}. Next:")
        for command, about in _going_on(here.pools) or next_commands(folder, here):
            say(f"  {command}\n      {about}")
        say("")
    say("balkit doctor checks the installation; balkit --help lists all commands.")


def _going_on(pools: Iterable[Path]) -> list[tuple[str, str]]:
    """The command that watches a run, where a process works on one of the pools."""
    from balkit.standing import look

    running = [pool for pool in pools if any(run.state == "running" for run in look(pool).runs)]
    return [(f"balkit status {shlex.quote(str(pool))} --follow", "watch the run that is going on") for pool in running]


def doctor(
    pool: Annotated[Path | None, typer.Argument(help="A pool to look at, too.", metavar="[POOL]")] = None,
    call: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Send one tiny paid call to this model, or to the teacher of this recipe."),
    ] = None,
    base_url: Annotated[str | None, typer.Option(help="Of --call: a server of your own.", metavar="URL")] = None,
    as_json: bool = Json,
) -> None:
    """Check the installation: versions, extras, keys (set or not), folders, disk, memory, GPU; a pool, a teacher.

    Ends with 1 where something is broken; what is only not installed is a note.

    Example: balkit doctor pools/math --call openai/gpt-4o-mini
    """
    from balkit import health

    asked = None if call is None else _teacher(call, base_url)
    found = []
    for check in health.look(pool):
        found.append(check)
        if not as_json:
            _say(check)
    if asked is not None:
        found.append(health.call(asked))
        if not as_json:
            _say(found[-1])
    broken = sum(check.state == "broken" for check in found)
    if as_json:
        json_out({"broken": broken, "checks": [asdict(check) for check in found]})
    else:
        say(f"\n{broken} broken" if broken else "\nnothing is broken")
    raise typer.Exit(1 if broken else 0)


def list_errors(
    code: Annotated[str | None, typer.Argument(help="Only this one.", metavar="[CODE]")] = None,
    as_json: bool = Json,
) -> None:
    """List the codes that errors carry: what each means, and what helps.

    Example: balkit errors pool-locked
    """
    from balkit.errors import codes

    known = codes()
    if code is not None and code not in known:
        raise typer.BadParameter(f"no error has the code {code}; there are: {', '.join(known)}")
    shown = {name: known[name] for name in ([code] if code else known)}
    if as_json:
        json_out([{"code": name, "means": means, "fix": fix} for name, (means, fix) in shown.items()])
        return
    for name, (means, fix) in shown.items():
        say(f"{name}\n{indent(folded(means, width=76), '  ')}\n{indent('-> ' + folded(fix, width=73), '  ')}")


def _say(check: Check) -> None:
    say(f"{check.state:6}  {indent(folded(f'{check.name}: {check.said}', width=72), 8 * ' ').lstrip()}")
    if check.mend:
        say(f"        -> {check.mend}")


def _teacher(model: str, base_url: str | None) -> Teacher:
    """The teacher of a recipe's file, else of a model string."""
    from balkit.recipe import load

    if model.endswith((".yaml", ".yml")):
        return load(model).teacher
    return load({"name": "doctor", "budget_rows": 3, "teacher": {"model": model, "base_url": base_url}}).teacher
