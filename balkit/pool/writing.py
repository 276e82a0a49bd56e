"""Changing a pool's DuckDB file: in a copy, which takes the file's place in one step when all of it is on the disk.

DuckDB lets nobody else into a file that is open for writing. The copy keeps readers reading, of any process and any
DuckDB client, and a process that ends in the middle leaves nothing but a copy that the next writer removes.
"""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from balkit.errors import PoolDamaged, PoolError, PoolLocked
from balkit.pool import database

if TYPE_CHECKING:
    import duckdb

#: Memory for what a commit stores and sorts; what is more goes to the disk.
MEMORY_MB = 1024

_WRITER = Lock()

#: DuckDB would go on with a file of the same name that somebody in this process still has open.
_COUNT = itertools.count()


@contextmanager
def writing(folder: Path, *, wait_s: float = database.WAIT_S) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection inside one transaction; at its end COMMIT, CHECKPOINT, the file, HEAD. An error leaves all as is.

    Raises `PoolLocked` when another writer stays longer than `wait_s`, and as `reading` does.
    """
    import duckdb

    with alone(folder, wait_s=wait_s), _copied(folder, wait_s=wait_s) as (before, copy):
        with database.translated(folder), database.connected(copy, config=_config(copy)) as con:
            con.execute("BEGIN TRANSACTION")
            try:
                yield con
            except BaseException:
                with suppress(duckdb.Error):
                    con.execute("ROLLBACK")
                raise
            con.execute("COMMIT")
            after = database.tip(con)
            if after != before:
                con.execute("CHECKPOINT")
        if after != before:
            _publish(folder, copy)
        if database.read_head(folder) != after:
            with suppress(OSError):  # what is committed is committed; the next opening mends HEAD
                database.write_head(folder, tip=after)


@contextmanager
def migrating(folder: Path, *, wait_s: float = database.WAIT_S) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection for migrations, which make their own transactions and a checkpoint. Raises as `writing` does."""
    with alone(folder, wait_s=wait_s), _copied(folder, wait_s=wait_s) as (_, copy):
        with database.translated(folder), database.connected(copy, config=_config(copy)) as con:
            yield con
        _publish(folder, copy)


def compact(
    folder: Path, *, problems_of: Callable[[duckdb.DuckDBPyConnection], list[str]], wait_s: float = database.WAIT_S
) -> tuple[int, int]:
    """Rewrite the file without the room that commits left behind; its bytes before and after.

    The new file takes the old one's place only when `problems_of` finds nothing in it. Raises as `writing` does.
    """
    path = (folder / "pool.duckdb").resolve()
    with alone(folder, wait_s=wait_s), _copied(folder, wait_s=wait_s) as (_, copy):
        before, packed = path.stat().st_size, copy.with_suffix(".packed")
        try:
            with database.translated(folder):
                with database.connected(copy) as con:
                    name = con.sql("SELECT current_database()").fetchall()[0][0]
                    con.execute(f"ATTACH {_quoted(str(packed))} AS packed")
                    con.execute(f'COPY FROM DATABASE "{name}" TO packed')
                    con.execute("DETACH packed")
                with database.connected(packed, read_only=True) as con:
                    problems = problems_of(con)
            if problems:
                raise PoolDamaged("\n".join([f"{path}: is not compacted, since it is damaged", *problems]))
            _publish(folder, packed)
        finally:
            packed.unlink(missing_ok=True)
    return before, path.stat().st_size


@contextmanager
def alone(folder: Path, *, wait_s: float) -> Iterator[None]:
    """Be the pool's one writer: of this process's threads, and by the operating system's lock of all processes."""
    import fcntl

    if not folder.is_dir():
        raise database.absent(folder)
    assert not database.is_held(folder), (
        f"{folder}: a write inside of `held`, which would go on reading what was before"
    )
    until, pause = time.monotonic() + wait_s, 0.02
    mine = False
    try:
        mine = _WRITER.acquire(timeout=wait_s)
        if not mine:
            raise PoolLocked(f"{folder}: another thread of this process is writing", pid=os.getpid())
        with _lock_file(folder) as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() + pause > until:
                        raise _held(folder, os.pread(file, 20, 0).decode("ascii", "replace")) from None
                time.sleep(pause)
                pause = min(2 * pause, 0.5)
            try:
                with suppress(OSError):  # another user's file may only be locked
                    os.ftruncate(file, 0)
                    os.pwrite(file, str(os.getpid()).encode(), 0)
                yield
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)  # also for children that were forked meanwhile
    finally:
        if mine:
            _WRITER.release()


@contextmanager
def _lock_file(folder: Path) -> Iterator[int]:
    """The file that writers lock, beside the pool's file, wherever that lies, and with its mode."""
    path = (folder / "pool.duckdb").resolve()
    lock = path.with_name("writer" if path.name == "pool.duckdb" else f"{path.name}.writer")
    try:
        try:
            file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            with suppress(OSError):
                os.fchmod(file, path.stat().st_mode & 0o666 if path.exists() else 0o644)
        except FileExistsError:
            file = os.open(lock, os.O_RDWR if os.access(lock, os.W_OK) else os.O_RDONLY)
    except OSError as error:
        raise PoolError(f"{folder}: cannot be written: {error.strerror or error}") from error
    try:
        yield file
    finally:
        os.close(file)


def _held(folder: Path, said: str) -> PoolLocked:
    pid = int(said) if said.strip().isdecimal() else None
    return PoolLocked(f"{folder}: process {pid or '(unknown)'} is writing; wait until it is done, or end it", pid=pid)


@contextmanager
def _copied(folder: Path, *, wait_s: float) -> Iterator[tuple[database.Tip, Path]]:
    """What the file holds, checked against HEAD, and a copy of it that is gone afterwards, whatever happens.

    The file is kept open for reading meanwhile: another DuckDB client cannot begin to write in it.
    """
    path = (folder / "pool.duckdb").resolve()
    copy = path.with_name(f".{path.name}.{os.getpid()}-{next(_COUNT)}.new")
    _remove(*path.parent.glob(f".{path.name}.*"), *folder.glob(".HEAD.*"))  # of a process that was killed
    if Path(f"{path}.wal").exists():
        _settle_wal(folder, wait_s=wait_s)
    with database.reading(folder, wait_s=wait_s) as con:
        try:
            with path.open("rb") as source:  # to the end, as closing it lets go of the file's locks
                try:
                    _copy(source.fileno(), copy)
                except OSError as error:
                    raise PoolError(_no_copy(path, error)) from error
                yield database.tip(con), copy
        finally:
            _remove(*path.parent.glob(f"{copy.name}*"))


def _remove(*paths: Path) -> None:
    for path in paths:
        if path.is_dir():  # where DuckDB spilled to
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _copy(source: int, copy: Path) -> None:
    """The file's bytes in another one; where the file system can share them, without copying any."""
    with copy.open("wb") as target:
        try:
            while os.copy_file_range(source, target.fileno(), 2**30):
                pass
        except (AttributeError, OSError):
            os.lseek(source, 0, os.SEEK_SET)
            target.truncate(0)
            target.seek(0)
            while part := os.read(source, 2**24):
                target.write(part)


def _no_copy(path: Path, error: OSError) -> str:
    try:
        need, free = path.stat().st_size / 2**20, shutil.disk_usage(path.parent).free / 2**20
        room = f" (it takes {need:,.0f} MiB; {free:,.0f} are free)"
    except OSError:
        room = ""
    return f"{path}: cannot be written in a copy{room}: {error.strerror or error}; the pool is as it was"


def _settle_wal(folder: Path, *, wait_s: float) -> None:
    """Bring into the file what another DuckDB client, or an older balkit that was killed, left in the log beside it."""
    with database.opened_for_writing(folder, wait_s=wait_s) as con:
        con.execute("CHECKPOINT")


def _publish(folder: Path, copy: Path) -> None:
    path = (folder / "pool.duckdb").resolve()
    try:
        shutil.copymode(path, copy)
        with copy.open("rb") as file:
            os.fsync(file.fileno())
        copy.replace(path)
    except OSError as error:
        raise PoolError(_no_copy(path, error)) from error
    with suppress(OSError):  # done already; this only makes it last
        database.sync_folder(path.parent)


def _in_a_child() -> None:
    """A forked process has none of the threads that held it."""
    global _WRITER
    _WRITER = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_a_child)


def _config(copy: Path) -> database.Config:
    return {**database.CLOSED_OFF, "temp_directory": f"{copy}.tmp", "memory_limit": f"{MEMORY_MB}MB"}


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
