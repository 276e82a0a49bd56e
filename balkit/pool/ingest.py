"""Files and frames into examples, with every problem found at once and its place.

Reading (`files.py`) gives cells as text; here they become staged examples, or problems.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import polars as pl

from balkit.errors import IngestError
from balkit.pool import commits, database, fields, staging, tables, tabular
from balkit.pool.fields import Columns, RowProblem
from balkit.pool.files import read
from balkit.pool.staging import Staging

if TYPE_CHECKING:
    import duckdb

#: A path, a name with stars, `-`, `hf:OWNER/NAME`, or a frame: polars, pandas, Arrow, `datasets`.
Source = Any

_OF_A_POOL = ("HEAD", "pool.duckdb", "calls.sqlite")

#: Problems of rows that an error holds at most; it counts the others.
_KEPT = 1000

#: Problems that a report names.
_SHOWN = 50


@dataclass(frozen=True)
class AddReport:
    """What an addition did, or would. rows = new + duplicate; rows that were left out are not among them.

    `version` is the pool's version afterwards, the old one when nothing was new. `duplicate` rows stand in the pool,
    in use or retired, or earlier in the same files, with the same labels. `leaks` are the train examples whose
    normalised prompt stands in eval, as far as these rows have a part in it; a run leaves them out. `without_answer`
    counts new examples, `domains` those that the rows name. `skipped` counts the problems of rows that were left out,
    or would be, and `problems` names the first 50 with their places.
    """

    version: int
    rows: int
    new: int
    duplicate: int
    leaks: int
    without_answer: int
    domains: int
    skipped: int = 0
    problems: tuple[str, ...] = ()


@dataclass
class Found:
    """The problems so far. Those of single rows are errors unless such rows are left out; `sink` is a file for them."""

    sink: TextIO | None = None
    leave_out: bool = False
    lines: list[str] = field(default_factory=list)
    errors: int = 0
    skipped: int = 0

    def put(self, problems: Iterable[str]) -> None:
        """Note problems; one that is no `RowProblem` is an error whatever may be left out."""
        for problem in problems:
            if self.leave_out and isinstance(problem, RowProblem):
                self.skipped += 1
                if self.sink is not None:
                    self.sink.write(f"{fields.shown(problem)}\n")
            else:
                self.errors += 1
            if len(self.lines) < _KEPT or not isinstance(problem, RowProblem):
                self.lines.append(problem)

    def since(self, before: tuple[int, int, int]) -> None:
        """Forget what was found since `now` gave this."""
        del self.lines[before[0] :]
        self.errors, self.skipped = before[1:]

    @property
    def now(self) -> tuple[int, int, int]:
        """How much was found."""
        return len(self.lines), self.errors, self.skipped

    @property
    def shown(self) -> tuple[str, ...]:
        """The first problems of rows that were left out, each in one line."""
        return tuple(fields.shown(line) for line in self.lines[:_SHOWN])

    def check(self) -> None:
        """Raise `IngestError` where anything stops the addition."""
        if not self.errors:
            return
        if self.sink is None:
            raise refused(self.lines, total=self.errors + self.skipped)
        raise refused([line for line in self.lines if not isinstance(line, RowProblem)], total=self.errors)


def stage(
    sources: Sequence[Source],
    staged: Staging,
    *,
    columns: Columns,
    found: Found,
    progress: Callable[[int], None] | None = None,
) -> None:
    """The examples of all sources into a staging. Raises `IngestError` with every problem of every source."""
    for number, item in enumerate(sources):
        table = read(item, columns=columns, name="frame" if len(sources) == 1 else f"frame {number}")
        staged.source(table.name, table.unit)
        before = found.now
        for piece in table.pieces:
            if piece.instead:
                found.since(before)
            found.put(piece.problems)
            if piece.cells.height:
                rows, problems = staging.examples_of(piece, place=f"{table.name} {table.unit}", columns=columns)
                found.put(problems)
                staged.put(rows)
                if progress is not None:
                    progress(staged.rows)
    found.put(map(RowProblem, staged.tear("contradictions")))
    found.check()
    staged.settle()


def sources_of(source: Source | Sequence[Source]) -> list[Source]:
    """The single sources that were named."""
    given = list(source) if isinstance(source, list | tuple) else [source]
    return [part for one in given for part in _named(one)]


def problems_of(sources: Sequence[Source], *, columns: Columns, split: str, origin: str) -> list[str]:
    """What is wrong before anything is read."""
    problems = columns.problems()
    if split not in commits.SPLITS:
        problems.append(f"split {split!r} is not one of {', '.join(commits.SPLITS)}")
    if origin not in commits.ORIGINS:
        problems.append(f"origin {origin!r} is not one of {', '.join(commits.ORIGINS)}")
    if not sources:
        problems.append("no file was given")
    return problems


@contextmanager
def bad_rows(path: Path | None, sources: Sequence[Source]) -> Iterator[TextIO | None]:
    """A file for the rows that are left out, beside its name until `keep` moves it there."""
    if path is None:
        yield None
        return
    problems = _unfit(path, sources)
    if problems:
        raise refused(problems)
    draft = draft_of(path)
    try:
        with draft.open("w", encoding="utf-8", errors="backslashreplace") as file:
            yield file
    finally:
        draft.unlink(missing_ok=True)


def draft_of(path: Path) -> Path:
    """Where the bad rows are written before the addition is sure."""
    return path.with_name(f".{path.name}.{os.getpid()}")


def keep(file: TextIO, path: Path) -> None:
    """Give the file of bad rows its name."""
    file.flush()
    os.fsync(file.fileno())
    database.settle(draft_of(path), path)


def refused(problems: Sequence[str], *, total: int | None = None) -> IngestError:
    """The error for rows that cannot be added."""
    count = len(problems) if total is None else total
    return IngestError(f"nothing was added: {count} problem{'s' * (count != 1)}", problems, total=count)


def against(con: duckdb.DuckDBPyConnection, staged: Staging, *, split: str, version: int, found: Found) -> None:
    """Leave out the staged examples that the pool has with another domain or split at `version`.

    Raises `IngestError` for these, unless bad rows are left out.
    """
    con.register("incoming", staged.reader("SELECT DISTINCT example_id FROM staged"))
    known = con.sql(database.queries()["stored_labels"], params={"version": version}).to_arrow_reader()
    try:
        staged.fill("known", known)
    finally:
        known.close()  # one that an interrupted notebook still holds would keep the pool's file open
    con.unregister("incoming")
    found.put(map(RowProblem, staged.tear("disagreements", split=split)))
    found.check()
    staged.settle()
    staged.con.execute(f"CREATE TABLE fresh AS {database.queries()['fresh']}")


def store(con: duckdb.DuckDBPyConnection, staged: Staging, *, split: str, origin: str, message: str) -> int:
    """Add what the pool lacks as its next version, which is returned; memory does not grow with it."""

    def examples() -> Iterator[Any]:
        parents = pl.lit([], pl.List(pl.String))
        return (frame.with_columns(parents=parents).to_arrow() for frame in staged.fresh())

    def labels() -> Any:
        sql = "SELECT example_id, domain, $split AS split, $origin AS origin FROM fresh"
        return staged.reader(sql, split=split, origin=origin)

    # rows arrive sorted, so storing them needs less than other commits may
    con.execute(f"SET memory_limit = '{staging.MEMORY_MB}MB'")
    return tables.append(con, rows={"examples": examples, "labels": labels}, message=message)


def leaks_of(con: duckdb.DuckDBPyConnection, staged: Staging, *, version: int) -> int:
    """How many train examples at `version` stand in eval with a prompt of a staged one."""
    con.register("incoming", staged.reader("SELECT DISTINCT prompt_key FROM staged"))
    count: int = database.ask(con, "incoming_leaks", version=version)["leaks"][0]
    con.unregister("incoming")
    return count


def report(con: duckdb.DuckDBPyConnection, staged: Staging, *, version: int, found: Found) -> AddReport:
    """What the addition did, now that `version` is the pool's newest."""
    counts = staged.ask("staged_counts").row(0, named=True)
    return AddReport(
        version=version,
        rows=counts["rows"],
        new=counts["new"],
        duplicate=counts["rows"] - counts["new"],
        leaks=leaks_of(con, staged, version=version),
        without_answer=counts["unanswered"],
        domains=counts["domains"],
        skipped=found.skipped,
        problems=found.shown,
    )


def _named(source: Source) -> list[Source]:
    """The files that a name with `*`, `?` or `[...]` stands for, sorted; any other source alone."""
    stars = isinstance(source, str | Path) and not str(source).startswith(tabular.HUB) and set("*?[") & set(str(source))
    if not stars or Path(source).exists():
        return [source]
    path = Path(source)
    try:
        found = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    except ValueError as error:
        raise refused([f"{source}: stands for no files: {error}"]) from error
    return [one for one in found if one.is_file()] or [source]


def _unfit(skip_bad: Path, sources: Sequence[Source]) -> list[str]:
    """Why bad rows cannot be named in this file: what is in it already must not be lost for it."""
    if not skip_bad.absolute().parent.is_dir():
        return [f"{skip_bad}: its folder is not there, so it cannot name the rows that are left out"]
    if not skip_bad.exists():
        return []
    files = [Path(item) for item in sources if isinstance(item, str | Path)]
    taken = skip_bad.name in _OF_A_POOL or any(file.exists() and file.samefile(skip_bad) for file in files)
    if taken or not skip_bad.is_file():
        return [f"{skip_bad}: is one of the files to add, a file of a pool, or no file; name another for the bad rows"]
    return []
