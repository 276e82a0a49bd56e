"""The SQLite file under the ledger: its opening, its named queries, its errors, rows written many at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from balkit.errors import PoolDamaged, PoolError
from balkit.teacher.batches import create_tables

_SHAPE = 1  # PRAGMA user_version
_FULL = "; is the disk full? What was handed out is kept, and the same command continues"
_MOST_VALUES = 30_000  # of one statement; SQLite takes 32,766

Row = tuple[Any, ...]


def connect(path: Path) -> sqlite3.Connection:
    """An open ledger, made where it is missing; every commit is on disk before it returns."""
    with translated(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False, cached_statements=512)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("BEGIN IMMEDIATE")  # two processes may make the file at the same time
        shape = db.execute("PRAGMA user_version").fetchone()[0]
        if shape == 0:
            for statement in sql("schema").split(";\n"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {_SHAPE}")
        db.execute(sql("links"))
        create_tables(db)
        db.execute("COMMIT")
    if shape > _SHAPE:
        raise PoolError(f"{path}: written by a newer balkit (shape {shape}, known here: {_SHAPE}); upgrade balkit")
    return db


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's errors as balkit's."""
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.ProgrammingError) as error:  # the disk is full; the ledger was closed
        full = _FULL if any(words in str(error) for words in ("full", "disk I/O")) else ""
        raise PoolError(f"{path}: the ledger cannot be read or written: {error}{full}") from error
    except sqlite3.DatabaseError as error:
        raise PoolDamaged(f"{path}: not a sound ledger: {error}") from error


def sql(name: str) -> str:
    """A query of calls.sql."""
    return _queries()[name].strip().removesuffix(";")


def insert(db: sqlite3.Connection, into: str, rows: Sequence[Row]) -> None:
    """Whole rows in few statements: each one lets go of the interpreter, and waits for it behind the transport."""
    width = len(rows[0])
    most = _MOST_VALUES // width
    for start in range(0, len(rows), most):
        part = rows[start : start + most]
        places = ", ".join([f"({', '.join('?' * width)})"] * len(part))
        db.execute(f"INSERT {into} VALUES {places}", [value for row in part for value in row])


@cache
def _queries() -> dict[str, str]:
    body = files("balkit.teacher").joinpath("calls.sql").read_text(encoding="utf-8")
    return dict(part.split("\n", 1) for part in body.split("-- name: ")[1:])
