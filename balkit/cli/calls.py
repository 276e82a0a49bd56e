"""Commands on the ledger of teacher calls: calls list, show, explain, retry."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from balkit.cli.pools import PoolPath
from balkit.cli.show import Json, data_out, frame_out, json_out, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl

    from balkit.teacher import Ledger

calls_app = typer.Typer(help="What the teacher was asked, and what came back.", no_args_is_help=True)

Status = Literal["succeeded", "failed", "unknown", "cached", "open"]
KeyStart = Annotated[str, typer.Argument(help="A request's key, or how it begins.", metavar="KEY")]


def register(app: typer.Typer) -> None:
    """Adds this module's commands to the app."""
    app.add_typer(calls_app, name="calls")


@calls_app.command("list")
def calls_list(
    pool: PoolPath,
    status: Annotated[Status | None, typer.Option(help="Only those; open ones are in a batch.")] = None,
    purpose: Annotated[str | None, typer.Option(help="rationale, synthesis or vote.")] = None,
    domain: Annotated[str | None, typer.Option(help="Only this domain's.")] = None,
    run: Annotated[str | None, typer.Option(help="A run's id, or how it begins.")] = None,
    example: Annotated[str | None, typer.Option(help="An example's id, or how it begins.")] = None,
    limit: Annotated[int, typer.Option(help="Rows to show, the dearest first.")] = 20,
    as_json: bool = Json,
) -> None:
    """List calls, the dearest first, one row a request and run.

    Example: balkit calls list pools/math --status unknown
    """
    import polars as pl

    from balkit.teacher.browse import listed

    with _ledger(pool) as ledger:
        found = listed(ledger)
    for name, value in {"status": status, "purpose": purpose, "domain": domain}.items():
        found = found if value is None else found.filter(pl.col(name) == value)
    for name, start in {"run_id": run, "example_id": example}.items():
        found = found if start is None else found.filter(pl.col(name).str.starts_with(start))
    found = found.sort("cost_microusd", "key", "run_id", descending=[True, False, False])
    if as_json:
        json_out(found.head(limit).to_dicts())
        return
    frame_out(_brief(found.head(limit)), as_json=False)
    more = "; --limit shows more" if found.height > limit else ""
    say(f"{min(limit, found.height):,} of {found.height:,} calls{more}")


@calls_app.command("show")
def calls_show(
    pool: PoolPath,
    key: KeyStart,
    raw: Annotated[bool, typer.Option("--raw", help="The replies as they were received, and nothing else.")] = False,
    as_json: bool = Json,
) -> None:
    """Show one request: the parts of its key, every attempt at it, what came back.

    Example: balkit calls show pools/math 3f2a9c1b
    """
    from balkit.teacher.browse import key_of, shown

    with _ledger(pool) as ledger:
        body = shown(ledger, key_of(ledger, key))
    if as_json:
        json_out(body)
        return
    if raw:
        text = "\n".join(one["raw"] for one in body["attempts"] if one["raw"]) + "\n"
        data_out(visible(text) if sys.stdout.isatty() else text)
        return
    say(f"key {body['key']}")
    for name, value in body["parts"].items():
        if name != "messages":
            say(f"{name:12} {visible(str(value))}")
    for role, text in body["parts"]["messages"]:
        say(f"--- {role}\n{visible(text)}")
    for one in body["attempts"]:
        say(_attempt(one))
    for run_id in body["used_by"]:
        say(f"--- run {run_id[:12]} was answered from the ledger")


@calls_app.command("explain")
def calls_explain(pool: PoolPath, key: KeyStart, as_json: bool = Json) -> None:
    """Say why a request was bought, or answered from the ledger, and which stored one comes closest.

    Example: balkit calls explain pools/math 3f2a9c1b
    """
    from balkit.teacher.browse import explained, key_of

    with _ledger(pool) as ledger:
        body = explained(ledger, key_of(ledger, key))
    if as_json:
        json_out(body)
        return
    say("\n".join(body["why"]))
    closest = body["closest"]
    if closest is None:
        say("nothing for this purpose had been asked before")
        return
    say(f"the closest request before it is {closest['key'][:12]}; it differs in {', '.join(closest['differs'])}")
    for name, difference in closest["differs"].items():
        if name == "messages":
            say("\n".join(f"  {visible(line)}" for line in difference))
        else:
            say(f"  {name}: {json.dumps(difference[0])} there, {json.dumps(difference[1])} here")


@calls_app.command("retry")
def calls_retry(
    pool: PoolPath,
    keys: Annotated[list[str] | None, typer.Argument(help="Keys, or how they begin.", metavar="[KEY...]")] = None,
    every_open: Annotated[bool, typer.Option("--open", help="All that are in a batch.")] = False,
    as_json: bool = Json,
) -> None:
    """Let the next run that needs these requests ask them anew. What has a paid reply is never bought again.

    A failed or unknown request is asked again by the next run without this. One in a batch that was not fetched is
    given up: it becomes unknown, and stays charged, since it may have been paid for.

    Example: balkit calls retry pools/math 3f2a9c1b
    """
    from balkit.errors import BalkitError
    from balkit.teacher.browse import key_of, listed, retry

    with _ledger(pool) as ledger:
        chosen = [key_of(ledger, key) for key in keys or []]
        if every_open:
            calls = listed(ledger)
            chosen += calls.filter(calls["status"] == "open")["key"].to_list()
        if not chosen and not every_open:
            raise BalkitError("say which: keys (`balkit calls list`), or --open for all that are in a batch")
        done = retry(ledger, dict.fromkeys(chosen))
    if as_json:
        json_out(done)
    else:
        said = {
            "given_up": "given up: unknown and charged from now on; the next run that needs it asks again",
            "asked_again": "has no reply: the next run that needs it asks again",
            "kept": "has a paid reply, which is kept; nothing buys it again",
        }
        say("\n".join(f"{key[:12]} {said[what]}" for what, found in done.items() for key in found))
    raise typer.Exit(1 if done["kept"] else 0)


@contextmanager
def _ledger(pool: Path) -> Iterator[Ledger]:
    from balkit.errors import PoolError
    from balkit.teacher import Ledger

    file = pool / "calls.sqlite"
    if not file.exists():
        raise PoolError(f"{file}: no teacher was asked here yet; `balkit run` does")
    with Ledger(file) as ledger:
        yield ledger


def _brief(calls: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    ids = [pl.col(name).str.head(12) for name in ("key", "run_id", "example_id")]
    usd = (pl.col("cost_microusd") / 1e6).alias("usd")
    return calls.with_columns(*ids, usd).drop("model", "cost_microusd")


def _attempt(one: dict[str, Any]) -> str:
    states = ", ".join(f"{state['state']} {_time(state['at'])}" for state in one["states"])
    lines = [f"--- attempt {one['attempt']} of run {one['run_id'][:12]}: {states}; ${one['cost_microusd'] / 1e6:,.6f}"]
    if one["batch"]:
        lines.append(f"in batch {one['batch']}")
    if one["outcome"]:
        used = f"{one['input_tokens']} + {one['output_tokens']} tokens"
        lines.append(f"{one['outcome']} {one['finish_reason']} by {one['author'] or '?'}, {used} {one['provider_id']}")
    lines += [visible(one[name]) for name in ("error", "text") if one[name]]
    return "\n".join(lines)


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def visible(text: str) -> str:
    """Control characters shown, not obeyed; line ends stay."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
