"""The pool: one folder with one DuckDB file of everything, append-only, a version a commit."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import polars as pl

from balkit.errors import PoolError
from balkit.pool import (
    checks,
    commits,
    database,
    domain_sets,
    ingest,
    migrate,
    paying,
    sandbox,
    snapshots,
    staging,
    tables,
    writing,
)
from balkit.pool.commits import Commit
from balkit.pool.fields import Columns
from balkit.pool.reads import View
from balkit.pool.reviewed import Reviewed
from balkit.pool.snapshots import Snapshot, SnapshotScan

if TYPE_CHECKING:
    import duckdb

Rows = dict[str, pl.DataFrame]

#: How long a commit waits at least, in seconds: longer than a reader's query may take, since it brings paid work.
PATIENCE_S = 75.0

_TAG = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")


class Pool:
    """A pool folder. Nothing is held open between calls, so readers and one writer at a time take turns.

    Make one with `Pool.create` or `Pool.open`, not with the constructor. Every method may raise `PoolLocked`
    when another process keeps the file for longer than `wait_s` seconds, and `PoolDamaged` when the file is not what
    HEAD says.
    """

    def __init__(self, path: Path, *, read_only: bool, wait_s: float) -> None:
        self.path = path
        self.read_only = read_only
        self._wait_s = wait_s
        self._now = View(path, wait_s=wait_s)

    @classmethod
    def create(cls, path: str | Path, *, wait_s: float = database.WAIT_S) -> Pool:
        """A blank pool in a new or existing folder. Raises `PoolError` where a pool is already."""

        folder = Path(path)
        if (folder / "pool.duckdb").exists() or (folder / "HEAD").exists():
            raise PoolError(f"{folder}: a pool is here already; Pool.open({str(folder)!r})")
        if folder.exists() and not folder.is_dir():
            raise PoolError(f"{folder}: is a file, not a folder")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with writing.alone(folder, wait_s=wait_s):
                if (folder / "pool.duckdb").exists():  # made by another process meanwhile
                    return cls(folder, read_only=False, wait_s=wait_s)
                temporary = folder / f".pool.duckdb.{os.getpid()}"
                temporary.unlink(missing_ok=True)
                with database.translated(folder), database.connected(temporary) as con:
                    migrate.migrate(con, known=migrate.shipped())
                database.settle(temporary, folder / "pool.duckdb")
                database.write_head(folder, tip=database.Tip(0, database.BLANK))
        except OSError as error:
            raise PoolError(f"{folder}: cannot be made: {error.strerror or error}") from error
        return cls(folder, read_only=False, wait_s=wait_s)

    @classmethod
    def open(cls, path: str | Path, *, read_only: bool = False, wait_s: float = database.WAIT_S) -> Pool:
        """An existing pool, brought to this balkit's format unless `read_only`.

        A HEAD that was left behind by a kill after a commit is brought up to it, where the folder can be written.
        Raises `PoolError` where none is, or for a format that is newer than this balkit, or older and `read_only`.
        """
        pool = cls(Path(path), read_only=read_only, wait_s=wait_s)
        known = migrate.shipped()
        with database.reading(pool.path, wait_s=wait_s) as con:
            current = migrate.is_current(con, known=known)
            behind = current and database.read_head(pool.path) != database.tip(con)
        if not current and read_only:
            raise PoolError(f"{path}: has an older format; open it once for writing, which migrates it")
        if not current:
            with writing.migrating(pool.path, wait_s=wait_s) as con:
                migrate.migrate(con, known=known)
        if behind and not read_only:
            with suppress(PoolError, OSError), writing.writing(pool.path, wait_s=0.0):
                pass
        return pool

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def __repr__(self) -> str:
        return f"Pool({str(self.path)!r})"

    @property
    def version(self) -> int:
        """The newest version; 0 in a blank pool."""
        with self._reading() as con:
            return database.tip(con).version

    def add(
        self,
        source: ingest.Source | Sequence[ingest.Source],
        *,
        prompt: str,
        answer: str | None,
        domain: str | None = None,
        domain_is: str | None = None,
        domain_sql: str | None = None,
        split: str = "train",
        origin: str = "source",
        message: str | None = None,
        dry_run: bool = False,
        skip_bad: str | Path | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> ingest.AddReport:
        """Add examples from files or polars frames; all of them or none.

        Files: JSONL, CSV, TSV, Parquet, Arrow, also packed (.gz, .zst); a name with `*` stands for all that fit, `-`
        for JSONL on stdin; a folder that `datasets` saved, `hf:OWNER/NAME[:CONFIG][@SPLIT]` for one on the hub. Frames:
        polars, pandas, Arrow, `datasets`. A source is read in pieces: memory does not grow with it.

        `prompt`, `answer` and `domain` name columns, paths into them (`meta.subject`, `messages.0.content`), or
        templates of these (`"{question}\\n{options.0}"`). A column of chat turns (`messages`) gives its prompt, and as
        answer the assistant's last turn. `domain_is` is the domain of all rows instead; `domain_sql` an SQL expression
        over a row's columns, which in text files are all text. A blank answer is an unknown one. Adding
        the same again changes nothing. `dry_run` stores nothing and reports what would be, with the problems of rows
        that cannot be added. With `skip_bad`, a file to write, such rows are left out, and a line in it says of each
        where it stood and why; a file without a column, or that cannot be read, is an error all the same. `progress`
        is told the rows read so far.
        Raises `IngestError` with every problem, its file and its line (from 1) or row (from 0).
        """
        columns = Columns(prompt, answer, domain, domain_is, domain_sql)
        sources = ingest.sources_of(source)
        if problems := ingest.problems_of(sources, columns=columns, split=split, origin=origin):
            raise ingest.refused(problems)
        bad_file = None if skip_bad is None else Path(skip_bad)
        with ingest.bad_rows(bad_file, sources) as sink, staging.opened(self.path) as staged:
            found = ingest.Found(sink, leave_out=dry_run or sink is not None)
            ingest.stage(sources, staged, columns=columns, found=found, progress=progress)
            with self._reading() if dry_run else self._writing() as con:
                version = database.tip(con).version
                ingest.against(con, staged, split=split, version=version, found=found)
                new = staged.count("fresh")
                if new and not dry_run:
                    said = message or f"add {new} {split} examples"
                    version = ingest.store(con, staged, split=split, origin=origin, message=said)
                report = ingest.report(con, staged, version=version, found=found)
                if sink is not None and bad_file is not None:  # before the commit: no row is left out unheard
                    ingest.keep(sink, bad_file)
        return report

    def commit(self, commit: Commit) -> int:
        """Add a step's rows in one transaction; returns the version that holds them.

        A key that is committed already returns its version and writes nothing; so does a commit without a key whose
        rows are all stored. Waits longer than other writes for who has the file. Raises `PoolError` for rows that
        contradict the pool, and for a snapshot with a row that is retired or whose normalised prompt stands in eval.
        """
        with self._writing(patient=True) as con:
            done = _committed(con, commit.key)
            if done is not None:
                return done
            before = database.tip(con).version
            rows = commits.rows_of(con, commit, version=before)
            if commit.key is None and not any(frame.height for frame in rows.values()):
                return before
            version = tables.append(con, rows=rows, message=commit.message, key=commit.key)
            if commit.snapshot is not None:
                snapshots.refuse(con, commit.snapshot, version=version)
            return version

    def committed(self, key: tables.Key) -> int | None:
        """The version that (run_id, stage, step) made, or None."""
        with self._reading() as con:
            return _committed(con, key)

    def retire(self, ids: Sequence[str] | Mapping[str, str], *, reason: str) -> int:
        """Take examples out of use from the next version on; snapshots that hold them stay as they are.

        `ids` may map each to its own reason; `reason` is the version's then. Returns the version; the old one when all
        were retired before. Raises `PoolError` for unknown ids.
        """
        reasons = dict(ids) if isinstance(ids, Mapping) else dict.fromkeys(ids, reason)
        schema = {"example_id": pl.String, "reason": pl.String}
        wanted = pl.DataFrame({"example_id": list(reasons), "reason": list(reasons.values())}, schema=schema)

        def rows(con: duckdb.DuckDBPyConnection, version: int) -> Rows:
            return {"retirements": commits.retired(con, wanted, version=version)}

        return self._append(rows, message=f"retire: {reason}")

    def relabel(self, labels: pl.DataFrame, *, message: str) -> int:
        """Give examples another domain or split from the next version on. `labels`: example_id, domain, split.

        Returns the version; the old one when nothing differs. Raises `PoolError` for ids not in use.
        """
        lacking = {"example_id", "domain", "split"} - set(labels.columns)
        if lacking:
            raise PoolError(f"relabel: no column {', '.join(sorted(lacking))} (it has: {', '.join(labels.columns)})")

        def rows(con: duckdb.DuckDBPyConnection, version: int) -> Rows:
            return {"labels": commits.relabelled(con, labels, version=version)}

        return self._append(rows, message=message)

    def set_domains(self, name: str, labels: pl.DataFrame, *, detail: Any = None, message: str | None = None) -> int:
        """Keep domains beside the labels' own, as a named set. `labels`: example_id, domain; `detail`: any JSON value.

        Reads that take a `domain_set` show them from the next version on; the labels stay as they are. Returns the
        version; the old one when nothing differs. Raises `PoolError` for ids not in use, and for names that are none.
        """
        if not _TAG.fullmatch(name):
            raise PoolError(f"{name!r} names no set: letters, digits, '.', '_' and '-', and a letter first")
        lacking = {"example_id", "domain"} - set(labels.columns)
        if lacking:
            raise PoolError(
                f"set_domains: no column {', '.join(sorted(lacking))} (it has: {', '.join(labels.columns)})"
            )

        def rows(con: duckdb.DuckDBPyConnection, version: int) -> Rows:
            return domain_sets.rows_of(con, name, labels, detail=detail, version=version)

        return self._append(rows, message=message or f"domain set {name}: {labels.height} examples")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the one process that pays for this pool. Raises `PoolLocked` with the PID of the other.

        The operating system lets go of it when the process ends, however it ends.
        """
        with paying.alone(self.path):
            yield

    def tag(self, version: int | str, name: str) -> int:
        """Name a version, for `at` and for people; a name that stands for another one moves. Returns the version made.

        Raises `PoolError` for a version that is not there, and for a name that is a number or not a plain word.
        """
        if not _TAG.fullmatch(name):
            raise PoolError(f"{name!r} names no version: letters, digits, '.', '_' and '-', and a letter first")
        found = self.number_of(version)

        def rows(con: duckdb.DuckDBPyConnection, now: int) -> Rows:
            known = dict(database.ask(con, "tags", version=now).iter_rows())
            new = [] if known.get(name) == found else [(name, found)]
            return {"tags": pl.DataFrame(new, schema={"name": pl.String, "version": pl.Int64}, orient="row")}

        return self._append(rows, message=f"tag version {found} as {name}")

    def number_of(self, version: int | str) -> int:
        """A version's number, given it, as text too, or a tag. Raises `PoolError` for one that is not there."""
        with self._reading() as con:
            return self._number_of(con, version)

    def at(self, version: int | str) -> View:
        """The pool's reads as they were at a version, given by number or tag; raises as `number_of` does."""
        return View(self.path, self.number_of(version), self._wait_s)

    def examples(
        self,
        *,
        split: str | None = None,
        domain: str | None = None,
        origin: str | None = None,
        domain_set: str | None = None,
    ) -> pl.DataFrame:
        """EXAMPLES in use now; see `View.examples`."""
        return self._now.examples(split=split, domain=domain, origin=origin, domain_set=domain_set)

    def leaking(self) -> pl.Series:
        """Ids of train and dev examples in use now whose prompt stands in eval; see `View.leaking`."""
        return self._now.leaking()

    def changed_rows(self, *, since: int | str, until: int | str, prompts: bool = True) -> pl.DataFrame:
        """What happened to examples between two versions, a row each; see `balkit.changes.changed_rows`.

        Without `prompts` that column is left out, which costs less. Reads what was stored between the two versions,
        and of older rows the ids. Raises `PoolError` for a version that is not there, and where `since` is the newer.
        """
        with self._reading() as con:
            first, last = self._number_of(con, since), self._number_of(con, until)
            if first > last:
                raise PoolError(f"{self.path}: version {since} is newer than {until}; name the older one first")
            rows = database.ask(con, "changed", since=first, until=last)
            rows = rows.cast(dict.fromkeys(rows.columns, pl.String))  # a column of nulls has no type of its own
            if not prompts:
                return rows
            con.register("incoming", rows.filter(pl.col("domain").is_not_null()).select("example_id").unique())
            texts = database.ask(con, "prompts_of")
            con.unregister("incoming")
        named = pl.when(pl.col("domain").is_not_null()).then(pl.col("prompt")).alias("prompt")
        return rows.join(texts, on="example_id", how="left", maintain_order="left").with_columns(named)

    def retired_prompts(self) -> list[str]:
        """The prompts of examples that are out of use now."""
        return self._now.retired_prompts()

    def refused_now(self, snapshot_id: str) -> pl.DataFrame:
        """Rows of a snapshot that could not enter one any more; see `View.refused_now`."""
        return self._now.refused_now(snapshot_id)

    def said_of_refused(self, snapshot_id: str) -> str:
        """A sentence on `refused_now`; "" where there are none."""
        refused = self.refused_now(snapshot_id)
        why = "; ".join(sorted(set(refused["problem"])))
        said = f"{refused.height} rows could not enter a snapshot now ({why}): `balkit run --new` leaves them out"
        return said if why else ""

    def rationales(self) -> pl.DataFrame:
        """RATIONALES, accepted and rejected."""
        return self._now.rationales()

    def reviewed(self) -> Reviewed:
        """What people said of worked answers, as it stands now; see `View.reviewed`."""
        return self._now.reviewed()

    def conflicts(self, *, domain: str | None = None, settled: bool = False) -> pl.DataFrame:
        """Examples in use whose worked answers contradict their reference or each other; see `View.conflicts`."""
        return self._now.conflicts(domain=domain, settled=settled)

    def pairs(self, of: str | int, *, per_example: int = 1) -> pl.DataFrame:
        """PAIRS for a snapshot's rows, given its id or `latest`, or for all examples in use at a version (a number).

        A snapshot's pairs are those that were known when it was made. Raises `PoolError` for what is not there.
        """
        if isinstance(of, int):
            return self.at(of).pairs(per_example=per_example)
        found = self.snapshot(of)
        chosen = found.rows.rename({"rationale": "text"})
        return self.at(found.version).pairs(chosen=chosen, per_example=per_example)

    def scores(self, *, checkpoint: str | None = None) -> pl.DataFrame:
        """SCORES of one checkpoint or all."""
        return self._now.scores(checkpoint=checkpoint)

    def decisions(self, *, run_id: str | None = None, stage: int | None = None) -> pl.DataFrame:
        """DECISIONS with run_id, stage and version."""
        return self._now.decisions(run_id=run_id, stage=stage)

    def evaluations(self, *, checkpoint: str | None = None) -> pl.DataFrame:
        """EVALUATIONS of one checkpoint or all."""
        return self._now.evaluations(checkpoint=checkpoint)

    def calls(self, *, run_id: str | None = None) -> pl.DataFrame:
        """CALLS that are mirrored here, of one run or all; see `View.calls`."""
        return self._now.calls(run_id=run_id)

    def snapshots(self) -> pl.DataFrame:
        """One row a snapshot, the oldest first; see `View.snapshots`."""
        return self._now.snapshots()

    def tags(self) -> dict[str, int]:
        """The version that each name stands for now."""
        return self._now.tags()

    def log(self) -> pl.DataFrame:
        """One row a version, the newest first."""
        return self._now.log()

    def coverage(self, *, domain_set: str | None = None) -> pl.DataFrame:
        """Rows per domain, the largest train split first; see `View.coverage`."""
        return self._now.coverage(domain_set=domain_set)

    def domain_sets(self) -> pl.DataFrame:
        """One row a set of domains beside the labels'; see `View.domain_sets`."""
        return self._now.domain_sets()

    def snapshot(self, snapshot_id: str) -> Snapshot:
        """A snapshot with the rows of all its stages in order, its digest verified; `latest` is the newest one.

        Raises `PoolError` for an unknown id, and for `latest` where there is none yet.
        """
        named = self._named(snapshot_id)
        with self._reading() as con:
            return snapshots.read(con, named)

    def _named(self, snapshot_id: str) -> str:
        """The id of a snapshot, or of the newest one for `latest`."""
        if snapshot_id != "latest":
            return snapshot_id
        return next(iter(self.snapshots()["snapshot_id"].reverse()), snapshot_id)

    def snapshot_file(self, snapshot_id: str) -> Path:
        """The snapshot as a Parquet file of SNAPSHOT_ROWS in the pool folder, made or made again when it must be."""
        return self.scan(snapshot_id).file

    def scan(self, snapshot_id: str) -> SnapshotScan:
        """As `snapshot`, with the rows in `snapshot_file`, so that memory does not grow with them."""
        named = self._named(snapshot_id)
        with database.reading(self.path, wait_s=self._wait_s, memory_mb=snapshots.MEMORY_MB) as con:
            return snapshots.scan(con, self.path / "snapshots", named)

    def snapshot_file_problem(self, snapshot_id: str) -> str | None:
        """What is wrong with a snapshot's Parquet file; None when it is right, or not made yet."""
        found = self.snapshots().filter(pl.col("snapshot_id") == snapshot_id)
        return snapshots.file_problem(self.path / "snapshots", snapshot_id, digest=found["digest"][0])

    def sql(
        self,
        query: str,
        params: sandbox.Params = None,
        *,
        timeout_s: float = 60.0,
        memory_mb: int = 2048,
    ) -> pl.DataFrame:
        """The frame that one reading statement gives, on a connection that can reach and change nothing else.

        The views coverage, coverage_by_stage, spend and lineage are meant for this.
        Raises `SqlError` with DuckDB's own words, for a statement that writes, and after `timeout_s` seconds.
        """
        return sandbox.run(self.path, query, params, timeout_s=timeout_s, memory_mb=memory_mb, wait_s=self._wait_s)

    def check(self) -> list[str]:
        """What is wrong with the pool, one line each; empty when every digest is as committed. Reads every row."""
        with self._reading() as con:
            return checks.problems_of(con, folder=self.path)

    def compact(self) -> tuple[int, int]:
        """Rewrite pool.duckdb without the room that commits left behind; its bytes before and after.

        Every row is verified before the copy takes the file's place; versions, digests and HEAD stay as they are. Needs
        as much room on the disk again. Raises `PoolDamaged` when something is not as it was committed.
        """
        if self.read_only:
            raise PoolError(f"{self.path}: was opened read-only; Pool.open({str(self.path)!r}) to write")
        return writing.compact(
            self.path, problems_of=lambda con: checks.of_the_file(con, folder=self.path), wait_s=self._wait_s
        )

    def _number_of(self, con: duckdb.DuckDBPyConnection, version: int | str) -> int:
        newest, text = database.tip(con).version, str(version)
        tags = dict(database.ask(con, "tags", version=newest).iter_rows())
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else tags.get(text, -1)
        if not 0 <= number <= newest:
            known = f"; tags: {', '.join(tags)}" if tags else ""
            raise PoolError(f"{self.path}: no version {version}; there are 0 to {newest}{known}")
        return number

    def _append(self, rows_of: Callable[[Any, int], Rows], *, message: str) -> int:
        with self._writing() as con:
            before = database.tip(con).version
            rows = rows_of(con, before)
            if not any(frame.height for frame in rows.values()):
                return before
            return tables.append(con, rows=rows, message=message)

    def held(self) -> AbstractContextManager[None]:
        """Many reads in a row: inside of it the caller's share one opening of the file and see one state; no writes."""
        return database.held(self.path, wait_s=self._wait_s)

    def _reading(self) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        return database.reading(self.path, wait_s=self._wait_s)

    @contextmanager
    def _writing(self, *, patient: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        if self.read_only:
            raise PoolError(f"{self.path}: was opened read-only; Pool.open({str(self.path)!r}) to write")
        wait_s = max(self._wait_s, PATIENCE_S) if patient else self._wait_s
        with writing.writing(self.path, wait_s=wait_s) as con:
            yield con


def _committed(con: duckdb.DuckDBPyConnection, key: tables.Key | None) -> int | None:
    if key is None:
        return None
    run_id, stage, step = key
    found = database.ask(con, "committed", run_id=run_id, stage=stage, step=step)
    return int(found["version"][0]) if found.height else None
