"""Rows on their way into a pool: gathered, told apart and compared outside of it, in as little memory as is allowed.

Ids and labels are in a DuckDB of their own, which moves to the disk what does not fit. The texts are in files by the
first digits of the id: DuckDB cannot sort texts that are larger than its memory. The pool is held for storing alone.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow.ipc

from balkit.pool import commits, database, fields, identity, tabular

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

#: Memory for the ids and labels that are gathered; what is more goes to the disk.
MEMORY_MB = 256

#: Files of texts; the texts of one of them are held in memory while they are stored.
_FILES = 64

#: Bytes of files that are read as one.
_SMALL = 4 * 2**20

_BATCH = 65_536

_TABLES = """
CREATE TABLE staged (place BIGINT, source BIGINT, number BIGINT, example_id VARCHAR, answered BOOLEAN, domain VARCHAR,
    prompt_key VARCHAR);
CREATE TABLE sources (source BIGINT, name VARCHAR, unit VARCHAR);
CREATE TABLE torn (place BIGINT, problem VARCHAR);
CREATE TABLE known (example_id VARCHAR, domain VARCHAR, split VARCHAR, origin VARCHAR);
"""


class Staging:
    """The examples of some sources, each row once, in the order in which they came. Made by `opened`."""

    def __init__(self, con: duckdb.DuckDBPyConnection, folder: Path) -> None:
        self.con = con
        con.execute(_TABLES)
        self._sources = 0
        self.rows = 0
        self._folder = folder
        self._open = ExitStack()
        self._files: dict[int, Any] = {}

    def source(self, name: str, unit: str) -> None:
        """The rows put from now on are this source's."""
        self._sources += 1
        self.con.execute("INSERT INTO sources VALUES (?, ?, ?)", [self._sources, name, unit])

    def put(self, examples: pl.DataFrame) -> None:
        """Rows of the current source: number, example_id, prompt, reference, domain, prompt_key."""
        first = self.rows
        self.rows += examples.height
        numbered = examples.with_columns(
            source=pl.lit(self._sources, pl.Int64),
            place=pl.int_range(first, self.rows, dtype=pl.Int64),
            answered=pl.col("reference").is_not_null(),
            file=pl.col("example_id").str.head(2).str.to_integer(base=16) * _FILES // 256,
        )
        self.con.register("incoming", numbered.drop("prompt", "reference", "file"))
        self.con.execute("INSERT INTO staged BY NAME SELECT * FROM incoming")
        self.con.unregister("incoming")
        texts = numbered.select("file", "place", "prompt", "reference")
        for (number,), part in texts.partition_by("file", as_dict=True, include_key=False).items():
            table = part.to_arrow(compat_level=pl.CompatLevel.oldest())
            if number not in self._files:
                stream = pyarrow.ipc.new_stream(str(self._path(number)), table.schema)
                self._files[number] = self._open.enter_context(stream)
            self._files[number].write_table(table)

    def fresh(self) -> Iterator[pl.DataFrame]:
        """The examples that the pool lacks, ordered by id: example_id, prompt, reference, prompt_key."""
        self.close()
        for files in self._together():
            first, last = (
                f"{digits:02x}" for digits in (files[0] * 256 // _FILES, (files[-1] + 1) * 256 // _FILES - 1)
            )
            cursor = database.quiet(self.con.cursor())
            sql = "SELECT place, example_id, prompt_key FROM fresh WHERE left(example_id, 2) BETWEEN ? AND ?"
            ids = cursor.execute(sql, [first, last]).pl()
            cursor.close()
            texts = pl.concat([self._texts(number) for number in files])
            yield ids.join(texts, on="place", how="inner").sort("example_id").drop("place")

    def _together(self) -> Iterator[list[int]]:
        """The files in their order, small ones together: each query costs as much as a thousand rows."""
        taken, held = list[int](), 0
        for number in sorted(self._files):
            size = self._path(number).stat().st_size
            if taken and held + size > _SMALL:
                yield taken
                taken, held = [], 0
            taken.append(number)
            held += size
        if taken:
            yield taken

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.arrow"

    def _texts(self, number: int) -> pl.DataFrame:
        with pyarrow.ipc.open_stream(str(self._path(number))) as stream:
            return pl.DataFrame(pl.from_arrow(stream.read_all()))

    def close(self) -> None:
        """Finish the files of texts."""
        self._open.close()

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
        cursor = database.quiet(self.con.cursor()).execute(
            "SELECT problem FROM found WHERE problem IS NOT NULL ORDER BY place"
        )
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
        return database.quiet(self.con.cursor()).execute(query, params or None).to_arrow_reader(_BATCH)

    def ask(self, name: str, **params: object) -> pl.DataFrame:
        """What a named query gives."""
        return database.ask(self.con, name, **params)


@contextmanager
def opened(folder: Path) -> Iterator[Staging]:
    """A staging that spills into a folder in the pool's, or in the system's where that cannot be written."""

    for left in folder.glob(".staging.*"):  # of a process that was killed
        if not _lives(left.suffix[1:]):
            shutil.rmtree(left, ignore_errors=True)
    where = folder if os.access(folder, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix=".staging.", suffix=f".{os.getpid()}", dir=where) as spill:
        config: database.Config = {
            **database.CLOSED_OFF,
            "temp_directory": str(Path(spill) / "duckdb"),
            "memory_limit": f"{MEMORY_MB}MB",
        }
        with database.translated(folder), database.connected(config=config) as con:
            staged = Staging(con, Path(spill))
            try:
                yield staged
            finally:
                staged.close()


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
    bad = rows.with_columns(blank=blank).filter(blank | (pl.col("domain") == "") | pl.col("domain").is_in(odd))
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
    if row["blank"]:
        yield f"the prompt ({columns.prompt!r}) is empty"
    if not row["domain"]:
        failed = ", or the expression fails there" if columns.domain_sql else ""
        yield f"the domain ({columns.of_domain}) is empty{failed}"
    elif not commits.is_a_name(row["domain"]):
        yield f"the domain ({columns.of_domain}) has a line end or a control character: {row['domain']!r}"
