"""Rows on their way into a pool: gathered, told apart and compared outside of it, in as little memory as is allowed.

A DuckDB of its own, which moves to the disk what does not fit, so that the pool is held for the storing alone.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from balkit.pool import commits, database, fields, identity, tabular

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

#: Memory for the rows that are gathered; what is more goes to the disk.
MEMORY_MB = 512

_BATCH = 65_536

_TABLES = """
CREATE TABLE staged (place BIGINT, source BIGINT, number BIGINT, example_id VARCHAR, prompt VARCHAR, reference VARCHAR,
    domain VARCHAR, prompt_key VARCHAR);
CREATE TABLE sources (source BIGINT, name VARCHAR, unit VARCHAR);
CREATE TABLE torn (place BIGINT, problem VARCHAR);
CREATE TABLE known (example_id VARCHAR, domain VARCHAR, split VARCHAR, origin VARCHAR);
"""


class Staging:
    """The examples of some sources, each row once, in the order in which they came. Made by `opened`."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self.con = con
        con.execute(_TABLES)
        self._sources = 0
        self._places = 0

    def source(self, name: str, unit: str) -> None:
        """The rows put from now on are this source's."""
        self._sources += 1
        self.con.execute("INSERT INTO sources VALUES (?, ?, ?)", [self._sources, name, unit])

    def put(self, examples: pl.DataFrame) -> None:
        """Rows of the current source: number, example_id, prompt, reference, domain, prompt_key."""
        first = self._places
        self._places += examples.height
        numbered = examples.with_columns(
            source=pl.lit(self._sources, pl.Int64), place=pl.int_range(first, self._places, dtype=pl.Int64)
        )
        self.con.register("incoming", numbered)
        self.con.execute("INSERT INTO staged BY NAME SELECT * FROM incoming")
        self.con.unregister("incoming")

    def fill(self, table: str, reader: Any) -> None:
        """Rows of another connection into one of the tables here."""
        self.con.register("incoming", reader)
        self.con.execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming")
        self.con.unregister("incoming")

    def tear(self, query: str, **params: object) -> Iterable[str]:
        """What the named query finds wrong with rows, in their order; these count no more."""
        found = database.queries()[query]
        self.con.execute(f"CREATE OR REPLACE TABLE found AS {found}", params)
        self.con.execute("INSERT INTO torn SELECT place, problem FROM found")
        cursor = self.con.cursor().execute("SELECT problem FROM found WHERE problem IS NOT NULL ORDER BY place")
        while rows := cursor.fetchmany(10_000):
            yield from (line for (problem,) in rows for line in problem.split("\n"))

    def settle(self) -> None:
        """Leave torn rows out for good."""
        self.con.execute("DELETE FROM staged WHERE place IN (SELECT place FROM torn)")

    def count(self, table: str) -> int:
        """The rows of one of the tables here."""
        rows: int = self.con.sql(f"SELECT count(*) FROM {table}").fetchall()[0][0]
        return rows

    def reader(self, query: str, **params: object) -> Any:
        """What a query gives, as Arrow batches for another connection."""
        return self.con.sql(query, params=params or None).to_arrow_reader(_BATCH)

    def ask(self, name: str, **params: object) -> pl.DataFrame:
        """What a named query gives."""
        return database.ask(self.con, name, **params)


@contextmanager
def opened(folder: Path) -> Iterator[Staging]:
    """A staging that spills into a folder in the pool's, or in the system's where that cannot be written."""
    import duckdb

    spill = _spill(folder)
    config: database.Config = {
        **database.CLOSED_OFF,
        "temp_directory": str(spill),
        "memory_limit": f"{MEMORY_MB}MB",
    }
    try:
        with database.translated(folder), duckdb.connect(config=config) as con:
            yield Staging(con)
    finally:
        shutil.rmtree(spill, ignore_errors=True)


def _spill(folder: Path) -> Path:
    for left in folder.glob(".staging.*"):  # of a process that was killed
        if not _lives(left.suffix[1:]):
            shutil.rmtree(left, ignore_errors=True)
    where = folder if os.access(folder, os.W_OK) else Path(tempfile.gettempdir())
    return where / f".staging.{os.getpid()}"


def _lives(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def examples_of(piece: tabular.Piece, *, place: str, columns: fields.Columns) -> tuple[pl.DataFrame, list[str]]:
    """A piece's rows as examples with their ids, and the problems of those that are none, which are left out."""
    cells = piece.cells
    prompt = identity.canonical(cells["prompt"].fill_null(""))
    domain = identity.canonical(cells["domain"].fill_null(""))
    reference = identity.canonical(cells["reference"])
    reference = reference.zip_with(
        reference != "", pl.Series([None], dtype=pl.String).new_from_index(0, len(reference))
    )
    rows = pl.DataFrame(
        {"number": cells["number"], "prompt": prompt, "reference": reference, "domain": domain}, schema=tabular.CELLS
    )
    odd = [name for name in domain.unique() if not commits.is_a_name(name)]
    blank = pl.col("prompt").str.contains(r"^[\p{Z}\p{Cc}\p{Cf}]*$")  # also what only seems to be a text
    bad = rows.filter(blank | (pl.col("domain") == "") | pl.col("domain").is_in(odd))
    problems = [
        fields.RowProblem(f"{place} {row['number']}: {said}")
        for row in bad.iter_rows(named=True)
        for said in _wrong(row, columns)
    ]
    good = rows.join(bad.select("number"), on="number", how="anti", maintain_order="left") if bad.height else rows
    ids = identity.digests(good.select("prompt", "reference"))
    keys = identity.prompt_keys(good["prompt"])
    return good.with_columns(ids.alias("example_id"), keys.alias("prompt_key")), list(problems)


def _wrong(row: dict[str, Any], columns: fields.Columns) -> Iterator[str]:
    if not any(c.isprintable() and not c.isspace() for c in row["prompt"]):
        yield f"the prompt ({columns.prompt!r}) is empty"
    if not row["domain"]:
        yield f"the domain ({columns.of_domain}) is empty"
    elif not commits.is_a_name(row["domain"]):
        yield f"the domain ({columns.of_domain}) has a line end or a control character: {row['domain']!r}"
