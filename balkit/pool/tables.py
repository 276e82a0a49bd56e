"""The append-only tables as frames, the digest of what is added to them, and the one function that adds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow

from balkit import frames, texts
from balkit.pool import database

if TYPE_CHECKING:
    import duckdb

Key = tuple[str, int, str]

#: Rows on demand, as Arrow batches ordered as their table is.
Stream = Callable[[], Any]

#: Rows of a version that are digested together.
BLOCK = 65_536

#: Rows of which a copy is made at once.
_SLICE = 8192


@dataclass(frozen=True)
class Table:
    """A table's columns without `added_in`, and those by which its rows of one version are ordered."""

    columns: Mapping[str, pl.DataType]
    order: tuple[str, ...]


_S, _I = pl.String(), pl.Int64()


def _table(order: str, **columns: pl.DataType) -> Table:
    return Table(columns, tuple(order.split()))


def _of(kind: frames.Kind, order: str, **more: pl.DataType) -> Table:
    return Table({**more, **kind.columns}, tuple(order.split()))


TABLES: Mapping[str, Table] = {
    "examples": _table(
        "example_id", example_id=_S, prompt=_S, reference=_S, parents=pl.List(pl.String()), prompt_key=_S
    ),
    "labels": _table("example_id", example_id=_S, domain=_S, split=_S, origin=_S),
    "retirements": _table("example_id", example_id=_S, reason=_S),
    "tags": _table("name", name=_S, version=_I),
    "rationales": _of(frames.RATIONALES, "rationale_id"),
    "scores": _of(frames.SCORES, "example_id checkpoint name settings"),
    "decisions": _of(
        frames.DECISIONS, "example_id step method rank reason domain detail kept gain", run_id=_S, stage=_I
    ),
    "snapshots": _table(
        "snapshot_id",
        **dict.fromkeys(("snapshot_id", "digest", "parent", "run_id", "recipe_yaml", "deficits"), _S),
        **dict.fromkeys(("stage", "total_rows"), _I),
    ),
    "snapshot_rows": _table(
        "snapshot_id position",
        **dict.fromkeys(("snapshot_id", "row_id", "example_id", "rationale_id", "domain", "split", "origin"), _S),
        **dict.fromkeys(("position", "stage", "copy"), _I),
    ),
    "calls": _of(frames.CALLS, "key run_id attempts status cost_microusd input_tokens output_tokens"),
    "evaluations": _of(frames.EVALUATIONS, "checkpoint settings example_id"),
    "domain_sets": _table("domain_set", domain_set=_S, detail=_S),
    "domain_labels": _table("domain_set example_id", domain_set=_S, example_id=_S, domain=_S),
}

#: Whose rows have a number besides, by which the rows of snapshots name them.
_NUMBERED = ("examples", "rationales")


def append(
    con: duckdb.DuckDBPyConnection, *, rows: Mapping[str, pl.DataFrame | Stream], message: str, key: Key | None = None
) -> int:
    """Add rows as the next version, inside the caller's transaction; returns that version.

    The version's digest is a chain: of its parent's digest, its message, its key and the content of the rows.
    """
    parent = database.tip(con)
    version = parent.version + 1
    digests = {name: _insert(con, name, rows[name], version=version) for name in TABLES if name in rows}
    content = texts.digest({name: digest for name, digest in digests.items() if digest is not None})
    digest = version_digest(parent.digest, version=version, message=message, key=key, content=content)
    run_id, stage, step = key if key is not None else (None, None, None)
    now = datetime.now(UTC).replace(tzinfo=None)
    con.execute(
        "INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [version, digest, content, message, now, run_id, stage, step],
    )
    return version


def version_digest(parent: str, *, version: int, message: str, key: Key | None, content: str) -> str:
    """The digest that a version must have; the time of day has no part in it."""
    return texts.digest([parent, version, message, None if key is None else list(key), content])


def content_digest(con: duckdb.DuckDBPyConnection, *, version: int, in_blocks: bool = True) -> str:
    """The digest of all rows that a version has now; a table without rows counts as absent.

    Not `in_blocks`: as it was made before format 3. The same, where no table has more rows than a block.
    """
    found = {}
    for name in TABLES:
        rows = _stored(con, name, version=version)
        found[name] = blocks_digest(
            _blocks(rows) if in_blocks else [pl.concat([pl.DataFrame(schema=TABLES[name].columns), *rows])]
        )
    return texts.digest({name: digest for name, digest in found.items() if digest is not None})


def blocks_digest(blocks: Iterable[pl.DataFrame]) -> str | None:
    """sha256 of frames in their order: of a single one its own, of several that of theirs; None without rows."""
    return _of_blocks([frame_digest(block) for block in blocks if block.height])


def _of_blocks(digests: list[str]) -> str | None:
    return None if not digests else digests[0] if len(digests) == 1 else texts.digest(digests)


def _insert(con: duckdb.DuckDBPyConnection, name: str, rows: pl.DataFrame | Stream, *, version: int) -> str | None:
    """Add rows to a table; their digest. Reads a stream once, and never holds more than a block of it.

    A frame is digested in a thread while DuckDB stores it: sha256 and the insert both leave Python's lock free.
    """
    table, digests = TABLES[name], list[str]()
    first = _next_number(con, name)
    if isinstance(rows, pl.DataFrame):
        frame = _in_order(_shaped(rows, table), table)
        with ThreadPoolExecutor(max_workers=1) as beside:
            digest = beside.submit(blocks_digest, frame.iter_slices(BLOCK))
            _store(con, name, _arrow(frame, version=version, first=first))
            return digest.result()

    def batches() -> Iterator[Any]:
        stored = 0
        for block in _blocks(_shaped(pl.DataFrame(pl.from_arrow(batch)), table) for batch in rows()):
            digests.append(frame_digest(block))
            for part in block.iter_slices(_SLICE):
                number = None if first is None else first + stored
                yield from _arrow(part, version=version, first=number).to_batches()
                stored += part.height

    empty = _arrow(pl.DataFrame(schema=table.columns), version=version, first=first)
    _store(con, name, pyarrow.RecordBatchReader.from_batches(empty.schema, batches()))
    return _of_blocks(digests)


def _next_number(con: duckdb.DuckDBPyConnection, name: str) -> int | None:
    if name not in _NUMBERED:
        return None
    number: int = con.sql(f"SELECT coalesce(max(number) + 1, 0) FROM {name}").fetchall()[0][0]
    return number


def _arrow(frame: pl.DataFrame, *, version: int, first: int | None) -> Any:
    whole = frame.with_columns(added_in=pl.lit(version, pl.Int64))
    if first is not None:
        whole = whole.with_columns(number=pl.int_range(first, first + frame.height, dtype=pl.Int64))
    return whole.to_arrow(compat_level=pl.CompatLevel.oldest())


def _store(con: duckdb.DuckDBPyConnection, name: str, incoming: Any) -> None:
    """DuckDB holds what is registered until the transaction ends: a stream once, not each of its parts."""
    con.register("incoming", incoming)
    as_it_is = f"INSERT INTO {name} BY NAME SELECT * FROM incoming"
    con.execute(database.queries()["store_snapshot_rows"] if name == "snapshot_rows" else as_it_is)
    con.unregister("incoming")


def _blocks(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same rows in frames of `BLOCK` rows, but for the last."""
    held: list[pl.DataFrame] = []
    rows = 0
    for frame in frames:
        held.append(frame)
        rows += frame.height
        if rows >= BLOCK:
            whole = pl.concat(held)
            full = rows - rows % BLOCK
            yield from whole.head(full).iter_slices(BLOCK)
            held, rows = [whole.tail(rows - full)], rows - full
    if rows:
        yield pl.concat(held)


def _stored(con: duckdb.DuckDBPyConnection, name: str, *, version: int) -> Iterator[pl.DataFrame]:
    """The rows of a table that one version added, in the table's order."""
    table = TABLES[name]
    columns, order = ", ".join(table.columns), ", ".join(f"{column} NULLS LAST" for column in table.order)
    sql = f"SELECT {columns} FROM {name} WHERE added_in = $v ORDER BY {order}"
    for batch in con.execute(sql, {"v": version}).to_arrow_reader(BLOCK):
        yield _shaped(pl.DataFrame(pl.from_arrow(batch)), table)


def _shaped(frame: pl.DataFrame, table: Table) -> pl.DataFrame:
    return frame.select(pl.col(name).cast(dtype) for name, dtype in table.columns.items())


def _in_order(frame: pl.DataFrame, table: Table) -> pl.DataFrame:
    """Sorting moves every text of a frame; that it is in order already is seen at once."""
    ordered = len(table.order) == 1 and frame[table.order[0]].is_sorted(nulls_last=True)
    return frame if ordered else frame.sort(table.order, nulls_last=True)


def frame_digest(frame: pl.DataFrame) -> str:
    """sha256 of a frame's names, nulls and values in their order; does not depend on any library's file format."""
    total = hashlib.sha256(f"{frame.height}".encode())
    for column in frame:
        total.update(f"|{column.name}|".encode())
        _update(total, column)
    return total.hexdigest()


def _update(total: hashlib._Hash, column: pl.Series) -> None:
    total.update(np.packbits(column.is_null().to_numpy()).tobytes())
    if column.dtype == pl.List(pl.String()):
        total.update(column.list.len().fill_null(0).to_numpy().astype("<i8").tobytes())
        _update(total, column.drop_nulls().explode(empty_as_null=False))
    elif column.dtype == pl.String():
        filled = column.fill_null("")
        total.update(filled.str.len_bytes().to_numpy().astype("<i8").tobytes())
        for part in filled.to_frame().iter_slices(_SLICE):
            total.update((part.to_series().str.join("").item() or "").encode())
    else:
        dtype = {pl.Int64(): "<i8", pl.Float64(): "<f8", pl.Boolean(): "u1"}[column.dtype]
        total.update(column.fill_null(False if dtype == "u1" else 0).to_numpy().astype(dtype).tobytes())
