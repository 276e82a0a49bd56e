"""Opening the pool's one DuckDB file: short, checked against HEAD, and with foreign errors translated.

Nothing here keeps the file open: both context managers close it, so that other processes get in.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from balkit import texts
from balkit.errors import PoolDamaged, PoolError, PoolLocked

if TYPE_CHECKING:
    import duckdb
    import polars as pl

#: How long an opening waits for another process that has the file, in seconds.
WAIT_S = 5.0

#: The digest of version 0, a pool without rows.
BLANK = texts.digest("balkit pool")

Config = dict[str, str | bool | int | float | list[str]]

_CLOSED_OFF: Config = {"enable_external_access": "false", "python_enable_replacements": "false"}
_WRITER = Lock()
_PID = re.compile(r"PID (\d+)")


@dataclass(frozen=True)
class Tip:
    """A version and its digest: what HEAD holds, and what the file holds."""

    version: int
    digest: str


@cache
def queries() -> Mapping[str, str]:
    """The named queries of queries.sql."""
    body = files("balkit.pool").joinpath("sql/queries.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)\n", body, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def ask(con: duckdb.DuckDBPyConnection, name: str, **params: object) -> pl.DataFrame:
    """The frame that a named query gives."""
    frame: pl.DataFrame = con.sql(queries()[name], params=params or None).pl()
    return frame


@contextmanager
def reading(
    folder: Path, *, wait_s: float = WAIT_S, memory_mb: int | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A read-only connection that reaches no other file, no Python variable and no setting.

    Raises `PoolLocked` when a writer stays longer than `wait_s`, `PoolDamaged` when the file is not what HEAD says.
    """
    config: Config = {**_CLOSED_OFF, "lock_configuration": "true"}
    if memory_mb is not None:
        config["memory_limit"] = f"{memory_mb}MB"
    with _opened(folder, config=config, read_only=True, wait_s=wait_s) as con:
        yield con


@contextmanager
def writing(folder: Path, *, wait_s: float = WAIT_S) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection inside one transaction; at the end COMMIT, CHECKPOINT, then HEAD. An error rolls all of it back.

    Raises as `reading` does.
    """
    import duckdb

    if not _WRITER.acquire(timeout=wait_s):
        raise PoolLocked(f"{folder}: another thread of this process is writing", pid=os.getpid())
    try:
        with _opened(folder, config=_CLOSED_OFF, read_only=False, wait_s=wait_s) as con:
            before = tip(con)
            con.execute("BEGIN TRANSACTION")
            try:
                yield con
            except BaseException:
                with suppress(duckdb.Error):
                    con.execute("ROLLBACK")
                raise
            con.execute("COMMIT")
            after = tip(con)
            if after != before or read_head(folder) != after:
                con.execute("CHECKPOINT")
                write_head(folder, tip=after)
    finally:
        _WRITER.release()


@contextmanager
def migrating(folder: Path, *, wait_s: float = WAIT_S) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection for migrations, which make their own transactions. Raises as `reading` does."""
    with _opened(folder, config=_CLOSED_OFF, read_only=False, wait_s=wait_s) as con:
        yield con


def compact(
    folder: Path, *, problems_of: Callable[[duckdb.DuckDBPyConnection], list[str]], wait_s: float = WAIT_S
) -> tuple[int, int]:
    """Rewrite the file without the room that commits left behind; its bytes before and after.

    The copy takes the file's place only when `problems_of` finds nothing in it, and while the file is still held, so
    that no writer comes in between. Raises as `reading` does.
    """
    import duckdb

    path = (folder / "pool.duckdb").resolve()
    fresh = path.with_name(f".pool.duckdb.{os.getpid()}.compact")
    if not _WRITER.acquire(timeout=wait_s):
        raise PoolLocked(f"{folder}: another thread of this process is writing", pid=os.getpid())
    try:
        with _opened(folder, config={}, read_only=False, wait_s=wait_s) as con:
            for left in path.parent.glob(".pool.duckdb.*.compact*"):  # of a process that was killed
                left.unlink()
            con.execute("CHECKPOINT")
            before = path.stat().st_size
            name = con.sql("SELECT current_database()").fetchall()[0][0]
            con.execute(f"ATTACH {_quoted(str(fresh))} AS packed")
            con.execute(f'COPY FROM DATABASE "{name}" TO packed')
            con.execute("DETACH packed")
            with duckdb.connect(fresh, read_only=True) as copy:
                problems = problems_of(copy)
            if problems:
                raise PoolDamaged("\n".join([f"{path}: is not compacted, since it is damaged", *problems]))
            shutil.copymode(path, fresh)
            settle(fresh, path)
        return before, path.stat().st_size
    finally:
        fresh.unlink(missing_ok=True)
        _WRITER.release()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def tip(con: duckdb.DuckDBPyConnection) -> Tip:
    """The newest version in the file; version 0 of a blank pool."""
    rows = con.sql(queries()["tip"]).fetchall()
    return Tip(*rows[0]) if rows else Tip(0, BLANK)


def read_head(folder: Path) -> Tip | None:
    """What HEAD says; None without a HEAD. Raises `PoolDamaged` for a HEAD that is not one."""
    try:
        body = (folder / "HEAD").read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise PoolDamaged(f"{folder / 'HEAD'}: cannot be read: {error}") from error
    match = re.fullmatch(r"(\d+) ([0-9a-f]{64})\n", body)
    if match is None:
        raise PoolDamaged(
            f"{folder / 'HEAD'}: holds {body[:80]!r}, not a version and a digest; restore the folder from a backup"
        )
    return Tip(int(match[1]), match[2])


def write_head(folder: Path, *, tip: Tip) -> None:
    """Replace HEAD in one step."""
    write_whole(folder / "HEAD", f"{tip.version} {tip.digest}\n".encode())


def write_whole(path: Path, body: bytes) -> None:
    """Write a file so that a reader, or a later start after a cut, sees all of it or the one before."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        settle(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def settle(temporary: Path, path: Path) -> None:
    """Rename a complete file to its name, and make the rename last."""
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def translated(folder: Path) -> Iterator[None]:
    """DuckDB's errors become ours: a file that cannot be read is damaged, anything else is a `PoolError`.

    Ctrl-C in the middle of a statement, which DuckDB makes a RuntimeError, stays a KeyboardInterrupt.
    """
    import duckdb

    try:
        yield
    except RuntimeError as error:
        if isinstance(error.__cause__, KeyboardInterrupt):
            raise error.__cause__ from None
        raise
    except (
        duckdb.IOException,
        duckdb.InternalException,
        duckdb.FatalException,
        duckdb.SerializationException,
    ) as error:
        raise PoolDamaged(
            f"{folder / 'pool.duckdb'}: cannot be read: {error}\n"
            "restore the folder from a backup; `balkit check` says what is whole"
        ) from error
    except duckdb.Error as error:
        raise PoolError(f"{folder / 'pool.duckdb'}: {type(error).__name__}: {error}") from error


@contextmanager
def _opened(folder: Path, *, config: Config, read_only: bool, wait_s: float) -> Iterator[duckdb.DuckDBPyConnection]:
    head = read_head(folder)
    con = _connect(folder / "pool.duckdb", config=config, read_only=read_only, wait_s=wait_s)
    try:
        with translated(folder):
            _compare(con, folder=folder, head=head)
            yield con
    finally:
        con.close()


def _connect(path: Path, *, config: Config, read_only: bool, wait_s: float) -> duckdb.DuckDBPyConnection:
    import duckdb

    if not path.is_file():
        raise _absent(path.parent)
    until, pause = time.monotonic() + wait_s, 0.02
    while True:
        try:
            with translated(path.parent):
                before = path.stat().st_ino
                con = duckdb.connect(path, read_only=read_only, config=config)
            if path.stat().st_ino == before:
                return con
            con.close()  # it was compacted meanwhile: this is the file that it had been
        except PoolError as error:
            if not _is_lock(error):
                raise
            if time.monotonic() + pause > until:
                raise _locked(path, error) from error.__cause__
        time.sleep(pause)
        pause = min(2 * pause, 0.5)


def _is_lock(error: PoolError) -> bool:
    return "Conflicting lock is held" in str(error) or "different configuration than existing" in str(error)


def _locked(path: Path, error: PoolError) -> PoolLocked:
    match = _PID.search(str(error))
    pid = int(match[1]) if match else os.getpid() if "different configuration" in str(error) else None
    who = (
        "another process"
        if pid is None
        else f"process {pid}"
        if pid != os.getpid()
        else "another thread of this process"
    )
    return PoolLocked(f"{path}: {who} has it open; wait until that is done, or end it, and try again", pid=pid)


def _absent(folder: Path) -> PoolError:
    if read_head(folder) is not None:
        return PoolDamaged(f"{folder}: HEAD is there, pool.duckdb is not; restore the folder from a backup")
    return PoolError(
        f"{folder}: no pool here; make one with `balkit add {folder} FILE...` or Pool.create({str(folder)!r})"
    )


def _compare(con: duckdb.DuckDBPyConnection, *, folder: Path, head: Tip | None) -> None:
    path = folder / "pool.duckdb"
    if not con.sql("SELECT 1 FROM duckdb_tables() WHERE table_name = 'migrations'").fetchall():
        raise PoolDamaged(f"{path}: is not a pool, or was cut; restore the folder from a backup")
    if not con.sql("SELECT 1 FROM duckdb_tables() WHERE table_name = 'versions'").fetchall():
        return
    stored = tip(con)
    if head is None:
        if stored.version:
            raise PoolDamaged(
                f"{folder}: HEAD is missing, so nobody can tell whether pool.duckdb is whole. {_accept(stored)}"
            )
        return
    found = con.sql(queries()["digest_of"], params={"version": head.version}).fetchall()
    if head.version and (not found or found[0][0] != head.digest):
        raise PoolDamaged(
            f"{folder}: HEAD says version {head.version} ({head.digest[:12]}), pool.duckdb holds version "
            f"{stored.version} ({stored.digest[:12]}): a part of it was lost or replaced. {_accept(stored)}"
        )
    need = con.sql(queries()["stored_bytes"]).fetchall()[0][0]
    if not path.with_name("pool.duckdb.wal").exists() and path.stat().st_size < need:
        raise PoolDamaged(f"{path}: {path.stat().st_size} bytes of {need}; the file was cut. Restore it from a backup")


def _accept(stored: Tip) -> str:
    return (
        "Restore the folder from a backup; or, to accept what the file holds, write this line to HEAD: "
        f"{stored.version} {stored.digest}"
    )
