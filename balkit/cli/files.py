"""Commands that write or list files: export, recipes, quickstart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from balkit.cli.pools import PoolPath
from balkit.cli.show import Json, data_out, frame_out, json_out, progress, prose, say

recipes_app = typer.Typer(help="The recipes that ship with balkit.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Adds this module's commands to the app."""
    app.command()(export)
    app.command()(quickstart)
    app.add_typer(recipes_app, name="recipes")


def _list_targets(asked: bool) -> None:
    if asked:
        from balkit.exports import TARGETS

        width = max(map(len, TARGETS))
        say("\n".join(f"{name:{width}}  {target.about}" for name, target in TARGETS.items()))
        raise typer.Exit


def export(
    pool: PoolPath,
    snapshot: Annotated[str, typer.Argument(help="A snapshot's id, or latest.", metavar="SNAPSHOT")],
    to: Annotated[str, typer.Option(help="Targets, with commas, or all; `balkit export --targets` lists them.")],
    out: Annotated[Path, typer.Option(help="The folder to write; one folder a target inside.")],
    rationale: Annotated[
        Literal["inline", "think", "reasoning_content", "none"], typer.Option(help="Where the worked answer goes.")
    ] = "inline",
    system: Annotated[str | None, typer.Option(help="A system message for every row.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="The student's, for exact lengths: a folder, or a name on the hub.")
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens; written into the target's config.")] = None,
    drop_long: Annotated[bool, typer.Option("--drop-long", help="Leave out rows that are too long.")] = False,
    drop_refused: Annotated[
        bool, typer.Option("--drop-refused", help="Leave out rows that would train on nothing.")
    ] = False,
    pairs: Annotated[int, typer.Option(min=1, help="An example gives at most, to DPO and KTO targets.")] = 1,
    data_license: Annotated[str | None, typer.Option("--license", help="Of the data, for the hf card.")] = None,
    card: Annotated[Path | None, typer.Option(help="A recipe whose `card` counts, not the snapshot's own.")] = None,
    keep_formulas: Annotated[bool, typer.Option("--keep-formulas", help="In csv; escaped otherwise.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Have the targets' own loaders read it; pip fetches them once.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    targets: Annotated[
        bool, typer.Option("--targets", callback=_list_targets, is_eager=True, help="List the targets and exit.")
    ] = False,
    as_json: bool = Json,
) -> None:
    """Write a snapshot for a training stack, with the dev split as validation.

    Example: balkit export pools/math 3f2a9c1b7d10-s3 --to trl,hf --out exports --tokenizer models/student
    """
    from balkit.exports import ALL, Options, around, target_of
    from balkit.exports import export as write
    from balkit.pool import Pool
    from balkit.recipe import load
    from balkit.steps import validation_rows
    from balkit.student import counter

    opened = Pool.open(pool)
    found = opened.scan(snapshot)
    options = Options(
        rationale=rationale,
        system=system,
        tokens=counter(tokenizer) if tokenizer else None,
        max_length=max_length,
        drop_long=drop_long,
        drop_refused=drop_refused,
        license=data_license,
        card=load(card).card if card else None,
        pairs=pairs,
        keep_formulas=keep_formulas,
        check=check,
        overwrite=overwrite,
    )
    named = [name.strip() for name in to.split(",") if name.strip()]
    asked = any(name == ALL or ((one := target_of(name)) and one.paired) for name in named)
    with opened.held():
        dev = validation_rows(opened, at=found.version)
        background = around(opened, found, pairs=pairs if asked else None, validation=dev)
    validation = dev if dev.height else None
    report = write(found, to=named, out=out, validation=validation, options=options, background=background)
    if said := opened.said_of_refused(found.snapshot_id):
        say(said, err=True)
    if as_json:
        json_out(dict(report.content))
        return
    counted = report.content["tokens"]
    frame_out(report.lengths(), as_json=False, title=f"tokens a row, by {counted['counter']}")
    frame_out(report.by_target(), as_json=False, title="\ntargets")
    for warning in report.warnings:
        prose(warning)
    say(f"{out}: see EXPORT_REPORT.json there, and README.md of each target")


@recipes_app.command("list")
def recipes_list(as_json: bool = Json) -> None:
    """Name them, with their first comment line.

    Example: balkit recipes list
    """
    from balkit.assets import recipes_folder

    found = {file.stem: _first_comment(file) for file in sorted(recipes_folder().glob("*.yaml"))}
    if as_json:
        json_out(found)
    else:
        width = max(map(len, found))
        say("\n".join(f"{name:{width}}  {about}" for name, about in found.items()))


@recipes_app.command("show")
def recipes_show(name: Annotated[str, typer.Argument(help="A recipe's name.")], as_json: bool = Json) -> None:
    """Print one; as JSON with every default filled in.

    Example: balkit recipes show quickstart
    """
    if as_json:
        from balkit.recipe import load

        json_out(load(_shipped(name)).model_dump(mode="json"))
        return
    data_out(_shipped(name).read_text(encoding="utf-8"))


@recipes_app.command("copy")
def recipes_copy(
    name: Annotated[str, typer.Argument(help="A recipe's name.")],
    to: Annotated[Path, typer.Argument(help="The new file.")],
    as_json: bool = Json,
) -> None:
    """Copy one, to change it.

    Example: balkit recipes copy quickstart mine.yaml
    """
    from balkit.errors import BalkitError

    text = _shipped(name).read_text(encoding="utf-8")
    try:
        with to.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise BalkitError(f"{to} exists already: choose another name, or remove it") from None
    if as_json:
        json_out({"file": str(to)})
        return
    say(f"{to}: change it, then `balkit plan POOL {to}`")


@recipes_app.command("schema")
def recipes_schema(as_json: bool = Json) -> None:
    """Print the JSON Schema of a recipe, for editors; it is JSON with or without --json.

    Example: balkit recipes schema > recipe.schema.json
    """
    from balkit.recipe import schema

    json_out(schema())


def _first_comment(file: Path) -> str:
    first = file.read_text(encoding="utf-8").split("\n", 1)[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def _shipped(name: str) -> Path:
    import difflib

    from balkit.assets import recipes_folder
    from balkit.errors import BalkitError

    known = {file.stem: file for file in sorted(recipes_folder().glob("*.yaml"))}
    stem = name.removesuffix(".yaml")
    if stem not in known:
        close = difflib.get_close_matches(stem, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known)}"
        raise BalkitError(f"no recipe is called {name!r}: {hint}")
    return known[stem]


def quickstart(
    folder: Annotated[Path, typer.Argument(help="Where to work; it goes on with what is there.", metavar="DIR")] = Path(
        "quickstart"
    ),
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: bool = Json,
) -> None:
    """The whole job offline, in minutes: a pool, a plan, two runs, one table, an export.

    Example: balkit quickstart quickstart
    """
    from balkit.quickstart import quickstart as run_quickstart

    with progress(quiet=quiet) as notify:
        report = run_quickstart(folder, notify=notify, say=(lambda text: None) if as_json else say)
    if as_json:
        json_out(report)
