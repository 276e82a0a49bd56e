"""Whether what a pool holds is what was committed: everything is read and every digest computed again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from balkit.errors import PoolDamaged
from balkit.pool import database, snapshots, tables

if TYPE_CHECKING:
    import duckdb


def problems_of(con: duckdb.DuckDBPyConnection, *, folder: Path) -> list[str]:
    """All problems of an open pool, one line each; empty when it is whole. Reads every row."""
    return [*of_the_file(con, folder=folder), *_made_files(con, folder)]


def of_the_file(con: duckdb.DuckDBPyConnection, *, folder: Path) -> list[str]:
    """The problems of the DuckDB file alone; what is made from it, and can be made again, is not looked at."""
    return [*_chain(con), *_rows_of_no_version(con), *_head(con, folder), *_orphans(con), *_snapshots(con)]


def _chain(con: duckdb.DuckDBPyConnection) -> list[str]:
    problems, parent, expected = [], database.BLANK, 0
    sql = "SELECT version, digest, content, message, run_id, stage, step FROM versions ORDER BY version"
    for version, digest, content, message, run_id, stage, step in con.sql(sql).fetchall():
        expected += 1
        if version != expected:
            problems.append(f"version {expected} is missing; {version} follows")
            expected = version
        key = None if run_id is None else (run_id, stage, step)
        if tables.version_digest(parent, version=version, message=message, key=key, content=content) != digest:
            problems.append(f"version {version}: its record is not the one whose digest was committed")
        if content not in (tables.content_digest(con, version=version, in_blocks=way) for way in (True, False)):
            problems.append(f"version {version}: its rows are not those that were committed")
        parent = digest
    return problems


def _rows_of_no_version(con: duckdb.DuckDBPyConnection) -> list[str]:
    problems = []
    for name in tables.TABLES:
        sql = f"SELECT count(*) FROM {name} AS t ANTI JOIN versions AS v ON v.version = t.added_in"
        count = con.sql(sql).fetchall()[0][0]
        if count:
            problems.append(f"{name}: {count} rows of no version")
    return problems


def _head(con: duckdb.DuckDBPyConnection, folder: Path) -> list[str]:
    head, tip = database.read_head(folder), database.tip(con)
    if head is None:
        return [f"HEAD is missing; the file holds version {tip.version}"]
    if head != tip:
        both = f"HEAD says version {head.version}, the file holds {tip.version}"
        return [f"{both}; the next opening for writing mends it"]
    return []


def _orphans(con: duckdb.DuckDBPyConnection) -> list[str]:
    orphans: pl.DataFrame = database.ask(con, "orphan_rationales")
    lines = [f"{name}: {rows} rows of no example" for name, rows in orphans.iter_rows() if rows]
    sql = "SELECT s.snapshot_id, s.parent FROM snapshots AS s ANTI JOIN snapshots AS p ON p.snapshot_id = s.parent"
    lost = con.sql(f"{sql} WHERE s.parent IS NOT NULL").fetchall()
    return lines + [f"snapshot {name}: its parent {parent} is missing" for name, parent in lost]


def _snapshots(con: duckdb.DuckDBPyConnection) -> list[str]:
    problems = []
    for name, _ in _named(con):
        try:
            snapshots.read(con, name)
        except PoolDamaged as error:
            problems.append(str(error))
    return problems


def _made_files(con: duckdb.DuckDBPyConnection, folder: Path) -> list[str]:
    found = (snapshots.file_problem(folder / "snapshots", name, digest=digest) for name, digest in _named(con))
    return [f"{problem}; it is made again when it is next asked for" for problem in found if problem is not None]


def _named(con: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    return con.sql("SELECT snapshot_id, digest FROM snapshots ORDER BY added_in, snapshot_id").fetchall()
