"""Files and frames into EXAMPLES, with every problem found at once and its place.

Reading (`files.py`) gives cells as text; here they become examples, or problems.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from balkit import texts
from balkit.errors import IngestError
from balkit.pool import commits, database
from balkit.pool.files import Columns, RowProblem, Table, read

if TYPE_CHECKING:
    import duckdb

Source = str | Path | pl.DataFrame

_OF_A_POOL = ("HEAD", "pool.duckdb", "calls.sqlite")


@dataclass(frozen=True)
class AddReport:
    """What an addition did. rows = new + duplicate; `skipped` rows are not among them.

    `version` is the pool's version afterwards, the old one when nothing was new. `duplicate` rows stand in the pool,
    in use or retired, or earlier in the same files, with the same labels. `leaks` are the train examples whose
    normalised prompt stands in eval, as far as these rows have a part in it; a run leaves them out. `without_answer`
    counts new examples, `domains` those that the rows name.
    """

    version: int
    rows: int
    new: int
    duplicate: int
    leaks: int
    without_answer: int
    domains: int
    skipped: int = 0


@dataclass(frozen=True)
class Batch:
    """Examples as read, duplicates included, and where each stood (`place`).

    `bad` says of every row that cannot be added why; None where such a row is an error instead.
    """

    examples: pl.DataFrame
    origin: str
    split: str
    bad: list[str] | None = None


def prepare(
    source: Source | Sequence[Source], *, columns: Columns, split: str, origin: str, skip_bad: Path | None = None
) -> Batch:
    """The examples of all sources. Raises `IngestError` with every problem of every source.

    With `skip_bad`, the file that will name them, the problems of single rows are no errors; a source that cannot be
    read still is.
    """
    problems = []
    if split not in commits.SPLITS:
        problems.append(f"split {split!r} is not one of {', '.join(commits.SPLITS)}")
    if (columns.domain is None) == (columns.domain_is is None):
        problems.append("the domain comes from a column (domain) or is the same for all rows (domain_is): name one")
    if origin not in commits.ORIGINS:
        problems.append(f"origin {origin!r} is not one of {', '.join(commits.ORIGINS)}")
    sources: list[Source] = [source] if isinstance(source, str | Path | pl.DataFrame) else list(source)
    if not sources:
        problems.append("no file was given")
    items = [part for one in sources for part in _named(one)]
    problems += _unfit(skip_bad, items) if skip_bad is not None else []
    if problems:
        raise refused(problems)
    parts: list[pl.DataFrame] = []
    for number, item in enumerate(items):
        table = read(item, columns=columns, name="frame" if len(sources) == 1 else f"frame {number}")
        problems += table.problems
        if not table.broken:
            part, found = _examples(table)
            parts.append(part)
            problems += found
    if not parts:
        raise refused(problems)
    examples = pl.concat(parts)
    torn = _contradictions(examples)
    problems += map(RowProblem, torn["problem"])
    bad: list[str] = [problem for problem in problems if isinstance(problem, RowProblem)]
    if problems if skip_bad is None else len(bad) < len(problems):
        raise refused(problems)
    examples = examples.join(torn, on="place", how="anti", maintain_order="left")
    return Batch(examples, origin, split, None if skip_bad is None else bad)


def _named(source: Source) -> list[Source]:
    """The files that a name with `*`, `?` or `[...]` stands for, sorted; any other source alone."""
    if not isinstance(source, str | Path) or not set("*?[") & set(str(source)) or Path(source).exists():
        return [source]
    path = Path(source)
    try:
        found = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    except ValueError as error:
        raise refused([f"{source}: stands for no files: {error}"]) from error
    return [one for one in found if one.is_file()] or [source]


def _unfit(skip_bad: Path, items: Sequence[Source]) -> list[str]:
    """Why bad rows cannot be named in this file: what is in it already must not be lost for it."""
    if not skip_bad.absolute().parent.is_dir():
        return [f"{skip_bad}: its folder is not there, so it cannot name the rows that are left out"]
    if not skip_bad.exists():
        return []
    files = [Path(item) for item in items if isinstance(item, str | Path)]
    taken = skip_bad.name in _OF_A_POOL or any(file.exists() and file.samefile(skip_bad) for file in files)
    if taken or not skip_bad.is_file():
        return [f"{skip_bad}: is one of the files to add, a file of a pool, or no file; name another for the bad rows"]
    return []


def refused(problems: Sequence[str]) -> IngestError:
    """The error for rows that cannot be added."""
    return IngestError(f"nothing was added: {len(problems)} problem{'s' * (len(problems) != 1)}", problems)


def agreeing(con: duckdb.DuckDBPyConnection, batch: Batch, *, version: int) -> Batch:
    """The batch without the examples that the pool has with another domain or split at `version`.

    Raises `IngestError` for these, unless the batch leaves bad rows out.
    """
    once = batch.examples.unique("example_id", keep="first", maintain_order=True)
    both = once.join(_stored(con, once, version=version), on="example_id", suffix="_stored", maintain_order="left")
    torn = both.filter((pl.col("domain") != pl.col("domain_stored")) | (pl.col("split") != batch.split))
    problems = [
        f"{row['place']}: this prompt and answer are in the pool with {name} {stored!r}, here it is {here!r}; "
        "`balkit relabel` and Pool.relabel change a label"
        for row in torn.iter_rows(named=True)
        for name, stored, here in (
            ("domain", row["domain_stored"], row["domain"]),
            ("split", row["split"], batch.split),
        )
        if stored != here
    ]
    if problems and batch.bad is None:
        raise refused(problems)
    examples = batch.examples.join(torn, on="example_id", how="anti", maintain_order="left")
    return replace(batch, examples=examples, bad=None if batch.bad is None else [*batch.bad, *problems])


def against_pool(con: duckdb.DuckDBPyConnection, batch: Batch, *, version: int) -> dict[str, pl.DataFrame]:
    """The rows per table that an agreeing batch adds to the pool at `version`."""
    once = batch.examples.unique("example_id", keep="first", maintain_order=True)
    stored = _stored(con, once, version=version)
    new = once.join(stored, on="example_id", how="anti", maintain_order="left")
    labels = new.select(
        "example_id", "domain", split=pl.lit(batch.split, pl.String), origin=pl.lit(batch.origin, pl.String)
    )
    parents = pl.lit([], dtype=pl.List(pl.String))
    return {"examples": new.with_columns(parents=parents), "labels": labels}


def _stored(con: duckdb.DuckDBPyConnection, examples: pl.DataFrame, *, version: int) -> pl.DataFrame:
    """The labels of those examples that the pool has."""
    con.register("incoming", examples.select("example_id"))
    stored = database.ask(con, "stored_labels", version=version)
    con.unregister("incoming")
    return stored


def leaks_of(con: duckdb.DuckDBPyConnection, batch: Batch, *, version: int) -> int:
    """How many train examples at `version` stand in eval with a prompt of this batch."""
    con.register("incoming", batch.examples.select("prompt_key"))
    count: int = database.ask(con, "incoming_leaks", version=version)["leaks"][0]
    con.unregister("incoming")
    return count


def _examples(table: Table) -> tuple[pl.DataFrame, list[str]]:
    """One source's examples, and the problems of its rows; problem rows are left out."""
    problems, kept = list[str](), []
    named = table.columns.domain or "domain_is"
    for number, prompt, reference, domain in table.cells.iter_rows():
        place = table.place(number)
        prompt, domain = texts.canonical(prompt or ""), texts.canonical(domain or "")
        reference = texts.canonical(reference or "") or None
        if not prompt:
            problems.append(RowProblem(f"{place}: the prompt ({table.columns.prompt!r}) is empty"))
        if not domain:
            problems.append(RowProblem(f"{place}: the domain ({named!r}) is empty"))
        elif not commits.is_a_name(domain):
            said = f"{place}: the domain ({named!r}) has a line end or a control character: {domain!r}"
            problems.append(RowProblem(said))
            continue
        if prompt and domain:
            kept.append((texts.example_id(prompt, reference), prompt, reference, domain, place))
    schema = dict.fromkeys(("example_id", "prompt", "reference", "domain", "place"), pl.String)
    return commits.with_prompt_key(pl.DataFrame(kept, schema=schema, orient="row")), problems


def _contradictions(examples: pl.DataFrame) -> pl.DataFrame:
    """The rows that repeat an earlier one of the same batch with another domain: `place`, `problem`."""
    first = examples.unique("example_id", keep="first", maintain_order=True)
    both = examples.join(
        first.select("example_id", "domain", "place"), on="example_id", suffix="_first", maintain_order="left"
    )
    torn = both.filter(pl.col("domain") != pl.col("domain_first"))
    problems = [
        f"{row['place']}: the same prompt and answer as {row['place_first']}, there with domain "
        f"{row['domain_first']!r}, here with {row['domain']!r}"
        for row in torn.iter_rows(named=True)
    ]
    return torn.select("place", problem=pl.Series(problems, dtype=pl.String))
