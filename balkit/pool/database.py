"""Opening the pool's one DuckDB file: short, checked against HEAD, and with foreign errors translated.

Nothing here keeps the file open: all context managers close it, so that other processes get in.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from balkit import texts
from balkit.errors import PoolDamaged, PoolError, PoolLocked, PoolMissing

if TYPE_CHECKING:
    import duckdb
    import polars as pl

#: How long an opening waits for another process that has the file, in seconds.
WAIT_S = 5.0

#: The digest of version 0, a pool without rows.
BLANK = texts.digest("balkit pool")

Config = dict[str, str | bool | int | float | list[str]]

CLOSED_OFF: Config = {"enable_external_access": "false", "python_enable_replacements": "false"}
#: This process's connections, and the name and inode of each one's file: DuckDB hands out one open file to all of them.
_OPEN: WeakKeyDictionary[duckdb.DuckDBPyConnection, tuple[str, int]] = WeakKeyDictionary()
_OPENING = Lock()
#: What `held` keeps open for its caller, by the folder.
_HELD: ContextVar[Mapping[Path, duckdb.DuckDBPyConnection]] = ContextVar("held", default=MappingProxyType({}))


def _in_a_child() -> None:
    """A forked process has none of the threads that held these."""
    global _OPENING
    _OPENING = Lock()
    _OPEN.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_a_child)
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
    """The frame that a named query gives. (`con.sql` with parameters would keep the rows once more, slowly.)"""
    frame: pl.DataFrame = con.execute(queries()[name], params or None).pl()
    return frame


@contextmanager
def reading(
    folder: Path, *, wait_s: float = WAIT_S, memory_mb: int | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A read-only connection that reaches no other file, no Python variable and no setting.

    Raises `PoolLocked` when a writer stays longer than `wait_s`, `PoolDamaged` when the file is not what HEAD says.
    """
    kept = _HELD.get().get(folder)
    if kept is not None:
        with translated(folder), quiet(kept.cursor()) as cursor:
            yield cursor
        return
    config: Config = {**CLOSED_OFF, "lock_configuration": "true"}
    if memory_mb is not None:
        config["memory_limit"] = f"{memory_mb}MB"
    with _opened(folder, config=config, read_only=True, wait_s=wait_s) as con:
        yield con


@contextmanager
def held(folder: Path, *, wait_s: float = WAIT_S) -> Iterator[None]:
    """What `reading` gives inside, to the same caller, shares one opening, and so sees one state of the file.

    For many reads in a row: each opening takes DuckDB 30 ms. Nothing may be written inside (`writing` refuses), and no
    reading has a limit of memory of its own: DuckDB has one for all that is open of a file.
    """
    with reading(folder, wait_s=wait_s) as con:
        before = _HELD.set(MappingProxyType({**_HELD.get(), folder: con}))
        try:
            yield
        finally:
            _HELD.reset(before)


def is_held(folder: Path) -> bool:
    """Whether the caller is inside of `held`."""
    return folder in _HELD.get()


@contextmanager
def opened_for_writing(folder: Path, *, wait_s: float = WAIT_S) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to the file itself that writes; nobody else can read meanwhile. Raises as `reading` does."""
    with _opened(folder, config=CLOSED_OFF, read_only=False, wait_s=wait_s) as con:
        yield con


def connected(
    path: Path | str = ":memory:", *, config: Config | None = None, read_only: bool = False
) -> duckdb.DuckDBPyConnection:
    """A connection that prints nothing: DuckDB draws bars on stdout where it takes the process for a shell."""
    import duckdb

    return quiet(duckdb.connect(path, read_only=read_only, config=config or {}))


def quiet(con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """The connection, without bars; a cursor has settings of its own."""
    con.execute("PRAGMA disable_progress_bar")
    return con


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
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make renames in a folder last."""
    folder = os.open(path, os.O_RDONLY)
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
        if "No space left" in str(error) or "Could not write" in str(error):
            room = "is the disk full? The pool is as it was"
            raise PoolError(f"{folder / 'pool.duckdb'}: cannot be written: {error}\n{room}") from error
        raise PoolDamaged(
            f"{folder / 'pool.duckdb'}: cannot be read: {error}\n"
            "restore the folder from a backup; `balkit check` says what is whole"
        ) from error
    except duckdb.Error as error:
        raise PoolError(f"{folder / 'pool.duckdb'}: {type(error).__name__}: {error}") from error


@contextmanager
def _opened(folder: Path, *, config: Config, read_only: bool, wait_s: float) -> Iterator[duckdb.DuckDBPyConnection]:
    head, path = read_head(folder), folder / "pool.duckdb"
    con = _connect(path, config=config, read_only=read_only, wait_s=wait_s)
    try:
        with translated(folder):
            _compare(con, folder=folder, head=head)
            yield con
    finally:
        with _OPENING:
            con.close()
            _OPEN.pop(con, None)


def _connect(path: Path, *, config: Config, read_only: bool, wait_s: float) -> duckdb.DuckDBPyConnection:
    if not path.is_file():
        raise absent(path.parent)
    until, pause = time.monotonic() + wait_s, 0.02
    while True:
        try:
            found = _connected(path, config=config, read_only=read_only)
            if found is not None:
                return found
        except PoolError as error:
            if not _is_lock(error):
                raise
            if time.monotonic() + pause > until:
                raise _locked(path, error) from error.__cause__
        else:
            if time.monotonic() + pause > until:
                raise _locked(path, None)
        time.sleep(pause)
        pause = min(2 * pause, 0.5)


def _connected(path: Path, *, config: Config, read_only: bool) -> duckdb.DuckDBPyConnection | None:
    """None while the file is being replaced, or another thread still has the one before it open."""
    with _OPENING, translated(path.parent):
        name, inode = str(path.resolve()), path.stat().st_ino
        if any(other == name and old != inode for other, old in _OPEN.values()):
            return None
        con = connected(path, read_only=read_only, config=config)
        if path.stat().st_ino != inode:
            con.close()
            return None
        _OPEN[con] = name, inode
        return con


def _is_lock(error: PoolError) -> bool:
    return "Conflicting lock is held" in str(error) or "different configuration than existing" in str(error)


def _locked(path: Path, error: PoolError | None) -> PoolLocked:
    match = None if error is None else _PID.search(str(error))
    own = error is None or "different configuration" in str(error)
    pid = int(match[1]) if match else os.getpid() if own else None
    who = (
        "another process"
        if pid is None
        else f"process {pid}"
        if pid != os.getpid()
        else "another thread of this process"
    )
    return PoolLocked(f"{path}: {who} has it open; wait until that is done, or end it, and try again", pid=pid)


def absent(folder: Path) -> PoolError:
    """The error for a folder without a pool, or without its file."""
    if read_head(folder) is not None:
        return PoolDamaged(f"{folder}: HEAD is there, pool.duckdb is not; restore the folder from a backup")
    return PoolMissing(
        f"{folder}: no pool here; make one with `balkit add {folder} FILE...` or Pool.create({str(folder)!r})"
    )


def _compare(con: duckdb.DuckDBPyConnection, *, folder: Path, head: Tip | None) -> None:
    import duckdb

    path = folder / "pool.duckdb"
    try:
        said = con.execute(queries()["opened"], {"version": head.version if head else 0}).fetchall()[0]
    except duckdb.CatalogException:  # no table of versions
        if not con.sql("SELECT 1 FROM duckdb_tables() WHERE table_name = 'migrations'").fetchall():
            raise PoolDamaged(f"{path}: is not a pool, or was cut; restore the folder from a backup") from None
        return
    stored, digest, need = Tip(said[0] or 0, said[1] or BLANK), said[2], said[3]
    if head is None:
        if stored.version:
            raise PoolDamaged(
                f"{folder}: HEAD is missing, so nobody can tell whether pool.duckdb is whole. {_accept(stored)}"
            )
        return
    if head.version and digest != head.digest:
        raise PoolDamaged(
            f"{folder}: HEAD says version {head.version} ({head.digest[:12]}), pool.duckdb holds version "
            f"{stored.version} ({stored.digest[:12]}): a part of it was lost or replaced. {_accept(stored)}"
        )
    file = path.resolve()
    if not Path(f"{file}.wal").exists() and file.stat().st_size < need:
        raise PoolDamaged(f"{path}: {path.stat().st_size} bytes of {need}; the file was cut. Restore it from a backup")


def _accept(stored: Tip) -> str:
    return (
        "Restore the folder from a backup; or, to accept what the file holds, write this line to HEAD: "
        f"{stored.version} {stored.digest}"
    )
