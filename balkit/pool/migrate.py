"""Numbered migrations: each applied with its record in one transaction."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from balkit.errors import PoolError

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class Migration:
    """One numbered script."""

    number: int
    name: str
    sql: str


@cache
def shipped() -> tuple[Migration, ...]:
    """The migrations that this balkit knows, in order."""
    found = []
    for file in files("balkit.pool").joinpath("sql/migrations").iterdir():
        match = re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name)
        if match:
            found.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
    return tuple(sorted(found, key=lambda migration: migration.number))


def format_of(con: duckdb.DuckDBPyConnection) -> int:
    """The number of the newest migration that was applied; 0 in a blank file."""
    if not con.sql("SELECT 1 FROM duckdb_tables() WHERE table_name = 'migrations'").fetchall():
        return 0
    number: int = con.sql("SELECT coalesce(max(number), 0) FROM migrations").fetchall()[0][0]
    return number


def is_current(con: duckdb.DuckDBPyConnection, *, known: Sequence[Migration]) -> bool:
    """Whether nothing is left to apply. Raises `PoolError` for a format newer than the known ones."""
    number, newest = format_of(con), known[-1].number
    if number > newest:
        raise PoolError(
            f"this pool has format {number}, and this balkit knows formats up to {newest}: pip install --upgrade balkit"
        )
    return number == newest


def migrate(con: duckdb.DuckDBPyConnection, *, known: Sequence[Migration]) -> None:
    """Apply what is missing, then the views. A script that fails leaves the format before it.

    Raises `PoolError` for a format newer than the known ones.
    """
    con.execute(
        "CREATE TABLE IF NOT EXISTS migrations"
        " (number BIGINT NOT NULL, name VARCHAR NOT NULL, applied_at TIMESTAMP NOT NULL)"
    )
    if is_current(con, known=known):
        return
    views = files("balkit.pool").joinpath("sql/views.sql").read_text(encoding="utf-8")
    for migration in known:
        if migration.number > format_of(con):
            last = migration is known[-1]
            _apply(con, migration, then=views if last else "")
    con.execute("CHECKPOINT")


def _apply(con: duckdb.DuckDBPyConnection, migration: Migration, *, then: str) -> None:
    con.execute("BEGIN TRANSACTION")
    try:
        con.execute(migration.sql)
        if then:
            con.execute(then)
        con.execute(
            "INSERT INTO migrations VALUES (?, ?, ?)",
            [migration.number, migration.name, datetime.now(UTC).replace(tzinfo=None)],
        )
        con.execute("COMMIT")
    except BaseException:
        con.execute("ROLLBACK")
        raise
