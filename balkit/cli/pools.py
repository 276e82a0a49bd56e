"""Commands on a pool's contents: add, coverage, sql, log, diff, check, retire."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from balkit.cli.show import Json, frame_out, json_out

if TYPE_CHECKING:
    from balkit.pool import Pool

PoolPath = Annotated[Path, typer.Argument(help="The pool's folder.", metavar="POOL")]


def register(app: typer.Typer) -> None:
    """Adds this module's commands to the app."""
    for command in (add, coverage, sql, log, diff, check, retire):
        app.command()(command)


def add(
    pool: PoolPath,
    files: Annotated[list[Path], typer.Argument(help="JSONL, CSV, TSV or Parquet files.", metavar="FILE...")],
    prompt: Annotated[str, typer.Option(help="The column that holds the prompt.")],
    domain: Annotated[str, typer.Option(help="The column that holds the domain.")],
    answer: Annotated[str | None, typer.Option(help="The column that holds the reference answer.")] = None,
    split: Annotated[str, typer.Option(help="train, dev or eval.")] = "train",
    message: Annotated[str | None, typer.Option("--message", "-m", help="What this version is.")] = None,
    as_json: bool = Json,
) -> None:
    """Add examples to a pool (it is made where there is none). All rows or none.

    Example: balkit add pools/math train.jsonl --prompt question --answer answer --domain subject
    """
    with _opened_or_made(pool) as opened:
        report = opened.add(files, prompt=prompt, answer=answer, domain=domain, split=split, message=message)
    if as_json:
        json_out(asdict(report))
        return
    typer.echo(f"version {report.version}: {report.new} new of {report.rows} rows, {report.duplicate} already there")
    if report.leaks:
        typer.echo(f"{report.leaks} prompts stand in both train and eval; runs leave them out of training")


@contextmanager
def _opened_or_made(path: Path) -> Iterator[Pool]:
    """The pool of the folder; one made here goes again, with the folders made for it, if its first rows are refused."""
    from balkit.errors import BalkitError
    from balkit.pool import Pool

    if (path / "pool.duckdb").exists():
        yield Pool.open(path)
        return
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    made = Pool.create(path)
    try:
        yield made
    except BalkitError:
        if made.version == 0:  # nobody else has added to it meanwhile
            for name in ("HEAD", "pool.duckdb"):
                (path / name).unlink()
            for folder in missing:
                folder.rmdir()
        raise


def coverage(
    pool: PoolPath,
    at: Annotated[int | None, typer.Option(help="A version; the newest when not given.")] = None,
    as_json: bool = Json,
) -> None:
    """Show the long tail: rows a domain, by split, with rationales, synthetic share and leaks into eval.

    Example: balkit coverage pools/math
    """
    from balkit.pool import Pool

    opened = Pool.open(pool)
    view = opened if at is None else opened.at(at)
    frame_out(view.coverage(), as_json=as_json, title=f"{pool} at version {opened.version if at is None else at}")


def sql(
    pool: PoolPath,
    query: Annotated[str, typer.Argument(help="One SELECT. Views: coverage, coverage_by_stage, spend, lineage.")],
    timeout_s: Annotated[float, typer.Option(help="Seconds until the query is stopped.")] = 60.0,
    as_json: bool = Json,
) -> None:
    """Run a read-only query on the pool, without access to files or the network.

    Example: balkit sql pools/math "SELECT domain, count(*) FROM examples JOIN labels USING (example_id) GROUP BY 1"
    """
    from balkit.pool import Pool

    frame_out(Pool.open(pool).sql(query, timeout_s=timeout_s), as_json=as_json)


def log(pool: PoolPath, as_json: bool = Json) -> None:
    """List the pool's versions.

    Example: balkit log pools/math
    """
    from balkit.pool import Pool

    frame_out(Pool.open(pool).log(), as_json=as_json)


def diff(
    pool: PoolPath,
    since: Annotated[int, typer.Argument(help="The older version (`balkit log`).", metavar="V1")],
    until: Annotated[int, typer.Argument(help="The newer version.", metavar="V2")],
    as_json: bool = Json,
) -> None:
    """Show what changed between two versions, by domain: examples, labels, rationales.

    Example: balkit diff pools/math 3 7
    """
    from balkit.changes import changes
    from balkit.pool import Pool

    found = changes(Pool.open(pool), since=since, until=until)
    if found.is_empty() and not as_json:
        typer.echo(f"{pool}: no example, label or rationale differs between versions {since} and {until}")
        return
    frame_out(found, as_json=as_json, title=f"{pool} from version {since} to {until}")


def check(pool: PoolPath, as_json: bool = Json) -> None:
    """Prove that what is stored is what was committed: versions, snapshots, teacher calls, and that these agree.

    Example: balkit check pools/math
    """
    from balkit.pool import Pool
    from balkit.reconcile import problems_of

    problems = problems_of(Pool.open(pool))
    if as_json:
        json_out({"problems": problems})
    else:
        typer.echo("\n".join(problems) or f"{pool}: nothing wrong")
    raise typer.Exit(1 if problems else 0)


def retire(
    pool: PoolPath,
    ids: Annotated[list[str], typer.Argument(help="Example ids.", metavar="EXAMPLE_ID...")],
    reason: Annotated[str, typer.Option(help="Why; kept with the rows.")],
    as_json: bool = Json,
) -> None:
    """Leave examples out from now on. Nothing is deleted, and older versions still show them.

    Example: balkit retire pools/math 3f2a... --reason "answer is wrong"
    """
    from balkit.pool import Pool

    version = Pool.open(pool).retire(ids, reason=reason)
    if as_json:
        json_out({"version": version})
    else:
        typer.echo(f"version {version}")
