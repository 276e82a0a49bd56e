"""Users' SQL: one reading statement on a connection that can reach and change nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Timer
from typing import Any

import polars as pl

from balkit import texts
from balkit.errors import SqlError
from balkit.pool import database

Params = Sequence[object] | Mapping[str, object] | None

_READING = {"SELECT", "EXPLAIN", "CALL"}


def run(folder: Path, query: str, params: Params, *, timeout_s: float, memory_mb: int, wait_s: float) -> pl.DataFrame:
    """The frame of a query. Raises `SqlError` with DuckDB's words, for a write, and after `timeout_s` seconds."""
    import duckdb

    _refuse_writes(query)
    with database.reading(folder, wait_s=wait_s, memory_mb=memory_mb) as con:
        timer = Timer(timeout_s, con.interrupt)
        timer.daemon = True
        timer.start()
        try:
            return _frame(con.sql(query, params=_bound(params)))
        except duckdb.InterruptException as error:
            raise SqlError(
                f"the query ran past {timeout_s:g} s and was stopped; ask for less, or give it more time"
            ) from error
        except duckdb.OutOfMemoryException as error:
            raise SqlError(f"the query needs more than {memory_mb} MB: {error}") from error
        except duckdb.PermissionException as error:
            raise SqlError(f"a query sees the pool and no other file: {error}") from error
        except duckdb.Error as error:
            raise SqlError(str(error)) from error
        except pl.exceptions.PolarsError as error:
            raise SqlError(f"the result has a column that no frame can hold; cast it to VARCHAR: {error}") from error
        finally:
            timer.cancel()


def _refuse_writes(query: str) -> None:
    import duckdb

    try:
        query.encode()
    except UnicodeEncodeError as error:
        raise SqlError(f"character {error.start} of the query is not text; is the terminal UTF-8?") from error
    try:
        kinds = [statement.type.name for statement in duckdb.extract_statements(query)]
    except duckdb.Error as error:
        raise SqlError(str(error)) from error
    if kinds == ["CREATE", "SELECT"] and query.lstrip()[:5].upper() == "PIVOT":
        return  # DuckDB reads PIVOT as the making of a temporary type and a SELECT
    if not kinds:
        raise SqlError("the query is empty")
    if len(kinds) > 1:
        raise SqlError(f"one statement at a time; this is {len(kinds)}")
    if kinds[0] not in _READING:
        raise SqlError(f"{kinds[0]} is refused: queries only read; `balkit add` and `balkit run` write")


def _bound(params: Params) -> Any:
    bound = dict(params) if isinstance(params, Mapping) else None if params is None else list(params)
    for value in bound.values() if isinstance(bound, dict) else bound or ():
        if isinstance(value, str) and not texts.is_whole(value):
            raise SqlError(f"{value!r} is not text; is the terminal UTF-8?")
    return bound


def _frame(relation: Any) -> pl.DataFrame:
    if relation is None:
        return pl.DataFrame()
    frame: pl.DataFrame = relation.pl()
    return frame.with_columns(_as_integer(column) for column in frame if column.dtype == pl.Decimal)


def _as_integer(column: pl.Series) -> pl.Series:
    """DuckDB's sum of integers is a 38-digit decimal; where its values fit, it is an integer again."""
    if column.dtype != pl.Decimal(38, 0):
        return column
    narrow = column.cast(pl.Int64, strict=False)
    return narrow if narrow.null_count() == column.null_count() else column
