"""Commands on a pool's contents: add, coverage, sql, log, tag, diff, check, retire, relabel, compact."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from balkit.cli.show import Json, data_out, frame_out, json_out, json_text, progress, prose, say
from balkit.events import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import polars as pl

    from balkit.pool import AddReport, Pool

#: From which size on reading files is worth a word while it goes.
_LARGE_BYTES = 2**23

#: Characters of an example's whole id.
_ID = 64

PoolPath = Annotated[Path, typer.Argument(help="The pool's folder.", metavar="POOL")]


def register(app: typer.Typer) -> None:
    """Adds this module's commands to the app."""
    for command in (add, coverage, sql, log, tag, diff, check, retire, relabel, compact):
        app.command()(command)


def add(
    pool: PoolPath,
    files: Annotated[
        list[str],
        typer.Argument(
            help="JSONL, CSV, TSV, Parquet, Arrow, also .gz and .zst; - is JSONL on stdin; a folder that datasets "
            "saved; hf:OWNER/NAME[:CONFIG][@SPLIT].",
            metavar="FILE...",
        ),
    ],
    prompt: Annotated[
        str,
        typer.Option(
            help="A column, a path (meta.text), a template ('{question} {options.0}'), or chat turns (messages)."
        ),
    ],
    domain: Annotated[str | None, typer.Option(help="The domain: a column, a path or a template.")] = None,
    domain_is: Annotated[str | None, typer.Option(help="The domain of all rows, instead.")] = None,
    domain_sql: Annotated[
        str | None, typer.Option(metavar="EXPR", help="The domain as SQL over a row's columns, instead.")
    ] = None,
    answer: Annotated[
        str | None, typer.Option(help="The reference answer; of chat turns, the assistant's last one.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, dev or eval.")] = "train",
    skip_bad: Annotated[
        Path | None, typer.Option(help="Leave out rows that cannot be added; this file says which and why.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Store nothing; say what would be, and what is bad.")
    ] = False,
    message: Annotated[str | None, typer.Option("--message", "-m", help="What this version is.")] = None,
    as_json: bool = Json,
) -> None:
    """Add examples to a pool (it is made where there is none). All rows or none.

    Example: balkit add pools/math train.jsonl --prompt question --answer answer --domain subject
    """
    large = sum(Path(file).stat().st_size for file in files if Path(file).is_file()) > _LARGE_BYTES
    with _opened_or_made(pool) as opened, progress(quiet=as_json or not large) as notify:
        report = opened.add(
            files,
            prompt=prompt,
            answer=answer,
            domain=domain,
            domain_is=domain_is,
            domain_sql=domain_sql,
            split=split,
            message=message,
            dry_run=dry_run,
            skip_bad=skip_bad,
            progress=lambda rows: notify(Event(0, 0, "add", "rows read", done=rows)),
        )
    if as_json:
        json_out(asdict(report))
    else:
        _say(report, dry_run=dry_run, skip_bad=skip_bad)
    if report.skipped and skip_bad is None:
        raise typer.Exit(1)


def _say(report: AddReport, *, dry_run: bool, skip_bad: Path | None) -> None:
    start = "nothing was stored" if dry_run else f"version {report.version}"
    say(f"{start}: {report.new} new of {report.rows} rows, {report.duplicate} already there")
    if report.skipped and skip_bad is not None:
        prose(f"{report.skipped} problems in rows that were left out; {skip_bad} names them")
    elif report.skipped:
        prose(f"{report.skipped} problems; nothing can be added before they are mended, or left out (--skip-bad):")
        say("\n".join(f"  - {line}" for line in report.problems))
        if report.skipped > len(report.problems):
            say(f"  ... and {report.skipped - len(report.problems):,} more")
    if report.leaks:
        prose(f"{report.leaks} prompts stand in both train and eval; runs leave them out of training")


@contextmanager
def _opened_or_made(path: Path) -> Iterator[Pool]:
    """The pool of the folder; one made here goes again, with the folders made for it, if it stays empty."""
    from balkit.errors import PoolError
    from balkit.pool import Pool

    if (path / "pool.duckdb").exists():
        yield Pool.open(path)
        return
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    made = Pool.create(path)
    try:
        yield made
    finally:
        with suppress(PoolError, OSError):  # another process has it, or laid a file beside it
            if made.version == 0:  # nothing was added, by nobody
                for name in ("HEAD", "pool.duckdb", "writer"):
                    (path / name).unlink()
                for folder in missing:
                    folder.rmdir()


def coverage(
    pool: PoolPath,
    at: Annotated[str | None, typer.Option(help="A version or tag; the newest when not given.")] = None,
    domains: Annotated[
        str | None, typer.Option(help="A set of domains (`balkit discover`) instead of the own.")
    ] = None,
    as_json: bool = Json,
) -> None:
    """Draw the long tail: rows a domain, by split, with rationales, synthetic rows (+) and leaks into eval.

    Example: balkit coverage pools/math
    """
    from balkit.pool import Pool
    from balkit.report import drawn

    opened = Pool.open(pool)
    view = opened if at is None else opened.at(at)
    found, title = view.coverage(domain_set=domains), f"{pool} at version {opened.version if at is None else at}"
    frame_out(found if as_json else drawn(found), as_json=as_json, title=title)


def sql(
    pool: PoolPath,
    query: Annotated[str, typer.Argument(help="One SELECT; docs/sql.md describes the views and macros.")],
    out: Annotated[Path | None, typer.Option(help="A .csv, .parquet, .json or .jsonl file instead.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    timeout_s: Annotated[float, typer.Option(help="Seconds until the query is stopped.")] = 60.0,
    as_json: bool = Json,
) -> None:
    """Run a read-only query on the pool, without access to files or the network.

    Views: coverage, coverage_by_stage, head_tail, imbalance, spend, lineage, rejections.

    Example: balkit sql pools/math "SELECT domain, part, real FROM head_tail"
    """
    from balkit.pool import Pool

    write = None if out is None else _writer(out)
    found = Pool.open(pool).sql(query, timeout_s=timeout_s)
    if as_csv and out is None:
        data_out(_csv(found))
        return
    if out is None or write is None:
        frame_out(found, as_json=as_json)
        return
    write(found)
    if as_json:
        json_out({"file": str(out), "rows": found.height})
    else:
        say(f"{out}: {found.height:,} rows")


def _csv(found: pl.DataFrame) -> str:
    import polars as pl

    from balkit.errors import BalkitError

    try:
        return found.write_csv()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise BalkitError(f"a column cannot be written as CSV; use --json: {error}") from error


def _writer(out: Path) -> Callable[[pl.DataFrame], object]:
    """What writes a frame into a file of this name. The file appears whole, or not at all."""
    from balkit.errors import BalkitError

    draft = out.with_name(f".{out.name}.new")
    kinds: dict[str, Callable[[pl.DataFrame], object]] = {
        ".csv": lambda frame: frame.write_csv(draft),
        ".parquet": lambda frame: frame.write_parquet(draft),
        ".json": lambda frame: draft.write_text(json_text(frame.to_dicts()), encoding="utf-8"),
        ".jsonl": lambda frame: frame.write_ndjson(draft),
    }
    if out.suffix not in kinds:
        raise BalkitError(f"{out}: ends in none of {', '.join(kinds)}")

    def write(frame: pl.DataFrame) -> None:
        import polars as pl

        try:
            kinds[out.suffix](frame)
            draft.replace(out)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            message = f"{out}: a column cannot be written as {out.suffix}; use .parquet or .json: {error}"
            raise BalkitError(message) from error
        finally:
            draft.unlink(missing_ok=True)

    return write


def log(pool: PoolPath, as_json: bool = Json) -> None:
    """List the pool's versions.

    Example: balkit log pools/math
    """
    from balkit.pool import Pool

    frame_out(Pool.open(pool).log(), as_json=as_json)


def tag(
    pool: PoolPath,
    version: Annotated[str, typer.Argument(help="A version, or a tag of it.", metavar="V")],
    name: Annotated[str, typer.Argument(help="The name.", metavar="NAME")],
    as_json: bool = Json,
) -> None:
    """Name a version, for people and for every command that takes one. The same name given again moves.

    Example: balkit tag pools/math 7 before-review
    """
    from balkit.pool import Pool

    opened = Pool.open(pool)
    opened.tag(version, name)
    found = opened.tags()[name]
    if as_json:
        json_out({"tag": name, "version": found})
    else:
        say(f"{name} is version {found}")


def diff(
    pool: PoolPath,
    since: Annotated[str, typer.Argument(help="The older version or tag (`balkit log`).", metavar="V1")],
    until: Annotated[str, typer.Argument(help="The newer version or tag.", metavar="V2")],
    rows: Annotated[bool, typer.Option("--rows", help="The rows themselves.")] = False,
    as_json: bool = Json,
) -> None:
    """Show what changed between two versions, by domain: examples, labels, rationales.

    Example: balkit diff pools/math 3 7 --rows
    """
    from balkit.changes import changed_rows, changes
    from balkit.pool import Pool

    found = (changed_rows if rows else changes)(Pool.open(pool), since=since, until=until)
    if found.is_empty() and not as_json:
        say(f"{pool}: no example, label or rationale differs between versions {since} and {until}")
        return
    frame_out(found, as_json=as_json, title=f"{pool} from version {since} to {until}")


def check(
    pool: PoolPath,
    mend: Annotated[bool, typer.Option("--repair/--no-repair", help="Make damaged caches again.")] = True,
    as_json: bool = Json,
) -> None:
    """Prove that what is stored is what was committed: versions, snapshots, teacher calls, and that these agree.

    What is only cache (snapshot files, vectors) and damaged is made again; nothing else is changed.

    Example: balkit check pools/math
    """
    from balkit.pool import Pool
    from balkit.reconcile import problems_of, repair

    opened = Pool.open(pool)
    repaired = repair(opened) if mend else []
    problems = problems_of(opened)
    if as_json:
        json_out({"problems": problems, "repaired": repaired})
    else:
        say("\n".join([*repaired, *(problems or [f"{pool}: nothing wrong"])]))
    raise typer.Exit(1 if problems else 0)


def retire(
    pool: PoolPath,
    ids: Annotated[list[str], typer.Argument(help="Example ids, or how they begin.", metavar="EXAMPLE_ID...")],
    reason: Annotated[str, typer.Option(help="Why; kept with the rows.")],
    as_json: bool = Json,
) -> None:
    """Leave examples out from now on. Nothing is deleted, and older versions still show them.

    Example: balkit retire pools/math 3f2a... --reason "answer is wrong"
    """
    from balkit.pool import Pool

    opened = Pool.open(pool)
    version = opened.retire(_whole(opened, ids), reason=reason)
    if as_json:
        json_out({"version": version})
    else:
        say(f"version {version}")


def _whole(pool: Pool, ids: Sequence[str]) -> list[str]:
    """The ids of examples that are named by how they begin."""
    from balkit.explaining import newest

    return [one if len(one) == _ID else newest(pool, one)["example_id"] for one in ids]


def relabel(
    pool: PoolPath,
    domain: Annotated[str, typer.Argument(help="The domain as it is called now.", metavar="DOMAIN")],
    to: Annotated[str, typer.Option(help="The domain that its examples belong to from now on.")],
    example: Annotated[
        list[str] | None, typer.Option(help="Only this id, or how it begins; may stand several times.")
    ] = None,
    as_json: bool = Json,
) -> None:
    """Give a domain's examples another domain from the next version on. Older versions still show the old one.

    Example: balkit relabel pools/math Precalc --to Precalculus
    """
    import polars as pl

    from balkit.errors import PoolError
    from balkit.pool import Pool

    opened = Pool.open(pool)
    found = opened.examples(domain=domain)
    ids = None if example is None else set(_whole(opened, example))
    chosen = found if ids is None else found.filter(pl.col("example_id").is_in(ids))
    if chosen.is_empty() or (ids is not None and chosen.height < len(ids)):
        known = ", ".join(opened.coverage()["domain"])
        raise PoolError(f"{pool}: not all of these are examples of {domain!r}; the domains are {known}")
    labels = chosen.select("example_id", pl.lit(to).alias("domain"), "split")
    version = opened.relabel(labels, message=f"relabel {domain} to {to}: {labels.height} examples")
    if as_json:
        json_out({"version": version, "examples": labels.height})
    else:
        say(f"version {version}: {labels.height} examples of {domain} are {to}")


def compact(pool: PoolPath, as_json: bool = Json) -> None:
    """Rewrite the pool's file without the room that many commits leave behind. Versions and digests stay.

    Example: balkit compact pools/math
    """
    from balkit.pool import Pool

    before, after = Pool.open(pool).compact()
    if as_json:
        json_out({"bytes_before": before, "bytes_after": after})
    else:
        say(f"{pool}: {before / 2**20:,.1f} MiB before, {after / 2**20:,.1f} MiB now")
