"""Commands on sets of domains: discover."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from balkit.cli.pools import PoolPath
from balkit.cli.show import Json, frame_out, json_out, progress, say


def register(app: typer.Typer) -> None:
    """Adds this module's commands to the app."""
    app.command()(discover)


def discover(
    pool: PoolPath,
    name: Annotated[str, typer.Option(help="What the set of domains is called.")] = "discovered",
    domains: Annotated[int | None, typer.Option(min=2, help="How many; the suggested number when not given.")] = None,
    within: Annotated[str | None, typer.Option(help="Only inside this domain.")] = None,
    min_rows: Annotated[int, typer.Option(min=2, help="Examples that a domain must have.")] = 10,
    encoder: Annotated[
        Literal["hashing", "static", "sentence-transformers"], typer.Option(help="How texts become vectors.")
    ] = "hashing",
    model: Annotated[str | None, typer.Option(help="static, sentence-transformers: a folder or a hub name.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    again: Annotated[
        bool, typer.Option("--again", help="Discover anew, not only for examples that came later.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Store nothing; show what would be found.")] = False,
    as_json: bool = Json,
) -> None:
    """Find domains in examples that have none: clusters of similar prompts, named by their key terms.

    They are kept beside the domains that are there; `balkit coverage --domains NAME` and a recipe's `domain_set` use
    them. Try several numbers: the suggestion is a hint, and a real encoder finds topics where hashing sees spelling.

    Example: balkit discover pools/support --name topics --domains 20
    """
    from balkit.discovery import discover as find
    from balkit.events import Event
    from balkit.pool import Pool
    from balkit.recipe.sections import Vectors as Section
    from balkit.vectors import Vectors, make_encoder

    if encoder != "hashing" and model is None:
        raise typer.BadParameter(f"{encoder} needs a model", param_hint="--model")
    opened = Pool.open(pool)
    vectors = Vectors(Path(pool) / "vectors", make_encoder(Section(encoder=encoder, model=model)))
    with progress(quiet=as_json) as notify:
        found = find(
            opened,
            vectors,
            domain_set=name,
            k=domains,
            within=within,
            min_rows=min_rows,
            seed=seed,
            again=again,
            dry_run=dry_run,
            progress=lambda done, total: notify(Event(0, 0, "encode", done=done, total=total)),
        )
    if as_json:
        rows = found.domains.to_dicts()
        body = {"version": found.version, "assigned": found.assigned, "domains": rows}
        json_out(body | {"candidates": found.candidates.to_dicts()})
        return
    import polars as pl

    shown = found.domains.select("domain", pl.col("terms").list.head(8).list.join(", "), "rows", "cohesion")
    frame_out(shown, as_json=False, title=f"{pool}: {name}")
    if found.candidates.height:
        frame_out(found.candidates, as_json=False, title="other numbers of domains")
    start = "nothing was stored" if dry_run else f"version {found.version}"
    if encoder == "hashing":
        say("hashing sees spelling, not meaning; --encoder sentence-transformers --model FOLDER finds topics")
    say(f"{start}: {found.assigned:,} examples in {found.domains.height} domains of the set {name}")
