"""balkit select: what is chosen of a pool, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from balkit.cli.calls import visible
from balkit.cli.pools import PoolPath
from balkit.cli.show import Json, frame_out, json_out, prose, say

if TYPE_CHECKING:
    from balkit.explaining import Choice, Explanation, Placed


def register(app: typer.Typer) -> None:
    """Adds this module's command to the app."""
    app.command()(select)


def select(
    pool: PoolPath,
    recipe: Annotated[Path | None, typer.Option(help="What stage 1 of this recipe would choose; nothing runs.")] = None,
    run: Annotated[
        str | None, typer.Option(help="What a run chose: its id, the beginning of it, or latest (the default).")
    ] = None,
    domain: Annotated[str | None, typer.Option(help="This domain alone.")] = None,
    explain: Annotated[
        str | None, typer.Option(metavar="EXAMPLE", help="Why an example is in or not: its id, or the beginning of it.")
    ] = None,
    as_json: bool = Json,
) -> None:
    """Show what is chosen of each domain and how well it stands for the rest, or why one example is in or not.

    Example: balkit select pools/math --recipe recipe.yaml --explain 3f2a9c
    """
    import polars as pl

    from balkit.errors import RunError

    if explain is not None and domain is not None:
        raise RunError("--domain shows a domain, --explain an example: give one of them")
    choice = _choice(pool, recipe=recipe, run=run, example=explain)
    if explain is not None:
        found = choice.explain(explain)
        if as_json:
            json_out(found.as_dict())
        else:
            _show(found)
        return
    domains = choice.by_domain()
    if domain is not None:
        named = domains.filter(pl.col("domain") == domain)
        if named.is_empty():
            raise RunError(f"no domain is called {domain!r}; there are: {', '.join(domains['domain'])}")
        domains = named
    if as_json:
        json_out({"source": choice.source, "domains": domains.to_dicts()})
        return
    shown = domains.with_columns((pl.col("pool_share") * 100).round(1).alias("pool_share"))
    shown = shown.rename({"pool_share": "pool %", "mean_similarity": "similarity"})
    frame_out(shown, as_json=False, title=choice.source)
    prose("radius: the farthest real example from what was taken (1 - cosine); similarity: of the mean one")


def _choice(pool: Path, *, recipe: Path | None, run: str | None, example: str | None) -> Choice:
    from balkit.errors import RunError
    from balkit.explaining import Choice
    from balkit.pool import Pool
    from balkit.recipe import load

    if recipe is not None and run is not None:
        raise RunError("--recipe shows what would be chosen, --run what was: give one of them")
    if recipe is not None:
        return Choice.planned(Pool.open(pool), load(recipe), example=example)
    return Choice.of_run(Pool.open(pool), run)


def _show(found: Explanation) -> None:
    say(f"{found.example_id} ({found.domain}, {found.split}), by {found.source}")
    say(_quoted(found.prompt))
    if found.since:
        prose(f"since then: {visible(', '.join(found.since))}")
    if found.never:
        prose(f"not chosen: {visible(found.never)}")
    for placed in found.stages:
        say(_line(placed))
    if found.stands_for:
        examples = "example" if found.stands_for == 1 else "examples"
        prose(f"it stands for {found.stands_for} real {examples} of {found.domain}: it is the nearest row taken")
    if found.represented_by is not None:
        near = found.represented_by
        kind = "written" if near.origin == "synthetic" else "real"
        say(
            f"the nearest {'other row' if found.chosen else 'row'} taken is {near.example_id}, {kind}, of stage "
            f"{near.stage}, at distance {near.distance:.4f} (1 - cosine):"
        )
        say(_quoted(near.prompt))
    else:
        say(f"no {'other ' if found.chosen else ''}row of {found.domain} was taken")


def _line(placed: Placed) -> str:
    parts = [f"stage {placed.stage}: {'in' if placed.kept else 'not in'}, {placed.reason}"]
    if placed.rank is not None:
        parts.append(f"place {placed.rank + 1:,} by {placed.method}, quota {placed.quota:,}")
    elif placed.method:
        parts.append(f"by {placed.method}, quota {placed.quota:,}")
    if placed.gain is not None and placed.gain_is:
        parts.append(f"{placed.gain_is} {placed.gain:.4g}")
    if placed.detail:
        parts.append(placed.detail)
    return "; ".join(parts)


def _quoted(text: str) -> str:
    return "  | " + "\n  | ".join(visible(text).splitlines())
