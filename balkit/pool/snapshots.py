"""Snapshots: a stage's own rows plus a parent, read back in order, and written as Parquet on demand."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from balkit import frames
from balkit.errors import PoolDamaged, PoolError
from balkit.pool import database

if TYPE_CHECKING:
    import duckdb


#: Rows of a snapshot's file that are read at once.
BLOCK = 10_000
#: Rows that are read from DuckDB at once: each time it goes through all texts of the pool.
READ = 60_000
#: What DuckDB may take for that, in MB.
MEMORY_MB = 512

#: The columns of SNAPSHOT_ROWS that may be long.
TEXTS = ("prompt", "reference", "rationale", "answer")

#: What tells rows of a snapshot apart, and their order.
_KEYS = ["position", "row_id", "example_id", "rationale_id", "copy"]


@dataclass(frozen=True)
class SnapshotDraft:
    """What one stage adds to the training set.

    `rows` are SNAPSHOT_ROWS of this stage alone; their order is that of `position`, which the pool counts on from
    the parent's. `deficits` is any JSON value: what the stage could not fill.
    """

    run_id: str
    stage: int
    recipe_yaml: str
    parent: str | None
    rows: pl.DataFrame
    deficits: Any = None

    @property
    def snapshot_id(self) -> str:
        """The id under which the pool keeps it."""
        return f"{self.run_id[:12]}-s{self.stage}"


@dataclass(frozen=True)
class Snapshot:
    """An immutable, ordered training set: `rows` are SNAPSHOT_ROWS of all its stages, `digest` is of their ids."""

    snapshot_id: str
    digest: str
    parent: str | None
    run_id: str
    stage: int
    version: int
    rows: pl.DataFrame
    recipe_yaml: str
    deficits: Any


@dataclass(frozen=True)
class SnapshotScan:
    """A `Snapshot` whose rows stay in a file, for those that have more of them than memory."""

    snapshot_id: str
    digest: str
    parent: str | None
    run_id: str
    stage: int
    version: int
    recipe_yaml: str
    file: Path

    def blocks(self) -> Iterator[pl.DataFrame]:
        """SNAPSHOT_ROWS in order, at most `BLOCK` at a time."""
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(self.file) as file:
            for batch in file.iter_batches(batch_size=BLOCK):
                yield frames.check(pl.DataFrame(pl.from_arrow(batch)), frames.SNAPSHOT_ROWS)

    def keys(self) -> pl.DataFrame:
        """What of the rows is short, all at once: the columns of SNAPSHOT_ROWS without texts."""
        short = [name for name in frames.SNAPSHOT_ROWS.columns if name not in TEXTS]
        return pl.read_parquet(self.file, columns=short)


class _Digest:
    """The digest of a training set, made of its rows in their order, some at a time.

    It is `texts.digest` of the list of their (example_id, rationale_id, copy).
    """

    def __init__(self) -> None:
        self.rows = 0
        self._sha256 = hashlib.sha256(b"[")

    def add(self, rows: pl.DataFrame) -> None:
        """The next ROWS."""
        for block in rows.select("example_id", "rationale_id", "copy").iter_slices(65_536):
            self._sha256.update(f"{',' if self.rows else ''}{_listed(block)}".encode("utf-8", "surrogatepass"))
            self.rows += block.height

    def hexdigest(self) -> str:
        """Of all rows so far, 64 hex digits."""
        whole = self._sha256.copy()
        whole.update(b"]")
        return whole.hexdigest()


def _listed(ids: pl.DataFrame) -> str:
    """Rows as JSON lists with commas between; quickly where no id needs escapes."""
    if ids.select(pl.col("example_id", "rationale_id").str.contains(r"[^ !#-\[\]-~]").any()).sum_horizontal()[0]:
        return ",".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in ids.iter_rows())
    row = pl.format('["{}","{}",{}]', "example_id", "rationale_id", "copy")
    listed: str = ids.select(row.str.join(",")).item()
    return listed


def digest_of(rows: pl.DataFrame) -> str:
    """The digest of a training set."""
    digest = _Digest()
    digest.add(rows)
    return digest.hexdigest()


def _keys(con: duckdb.DuckDBPyConnection, snapshot_id: str) -> pl.DataFrame:
    """The `_KEYS` of all rows of a stored snapshot. Raises as `read` does."""
    record = _record(con, snapshot_id)
    found = database.ask(con, "snapshot_keys", snapshot_id=snapshot_id).select(_KEYS)
    if (
        found.height != record["total_rows"]
        or found.null_count().sum_horizontal()[0]
        or digest_of(found) != record["digest"]
    ):
        raise _damaged(snapshot_id, found=found.height, committed=record["total_rows"])
    return found


def _counted_on(rows: pl.DataFrame, *, first: int) -> pl.DataFrame:
    return rows.with_columns(position=pl.int_range(first, first + rows.height, dtype=pl.Int64))


def rows_of(con: duckdb.DuckDBPyConnection, draft: SnapshotDraft) -> dict[str, pl.DataFrame]:
    """The rows per table that a draft adds; none when the same snapshot is stored.

    Raises `PoolError` when another snapshot has its id, when its parent is not there, or when a row repeats.
    """
    own = frames.check(draft.rows, frames.SNAPSHOT_ROWS).sort("position", maintain_order=True)
    before = _keys(con, draft.parent) if draft.parent is not None else frames.SNAPSHOT_ROWS.empty().select(_KEYS)
    own = _counted_on(own, first=before.height)
    whole = pl.concat([before, own.select(_KEYS)])
    for identity in (["example_id", "rationale_id", "copy"], ["row_id"]):
        twice = whole.filter(whole.select(identity).is_duplicated())
        if twice.height:
            raise PoolError(
                f"snapshot {draft.snapshot_id}: {' + '.join(identity)} stands twice: {twice.row(0, named=True)}"
            )
    digest = digest_of(whole)
    stored = database.ask(con, "snapshot", snapshot_id=draft.snapshot_id)
    if stored.height:
        if stored["digest"][0] == digest and stored["run_id"][0] == draft.run_id:
            return {}
        raise PoolError(
            f"snapshot {draft.snapshot_id} is in the pool with digest {stored['digest'][0][:12]}, not {digest[:12]}; "
            "a snapshot never changes: start another run"
        )
    record = {
        "snapshot_id": draft.snapshot_id,
        "digest": digest,
        "parent": draft.parent,
        "run_id": draft.run_id,
        "stage": draft.stage,
        "total_rows": whole.height,
        "recipe_yaml": draft.recipe_yaml,
        "deficits": json.dumps(draft.deficits, ensure_ascii=False, sort_keys=True),
    }
    schema = {"parent": pl.String}
    return {
        "snapshots": pl.DataFrame([record], schema_overrides=schema),
        "snapshot_rows": own.with_columns(snapshot_id=pl.lit(draft.snapshot_id)),
    }


def refuse(con: duckdb.DuckDBPyConnection, draft: SnapshotDraft, *, version: int) -> None:
    """Raise `PoolError` for a stored snapshot whose rows may not train, or are not those of the draft.

    The last line of defence: what stands in eval never reaches a snapshot, whatever the recipe says. Called
    inside the transaction that stores it, so that a refusal leaves nothing behind.
    """
    given = frames.check(draft.rows, frames.SNAPSHOT_ROWS).sort("position", maintain_order=True)
    total = database.ask(con, "snapshot", snapshot_id=draft.snapshot_id)["total_rows"][0]
    given = _counted_on(given, first=total - given.height)
    con.register("incoming", given)
    bad = database.ask(con, "lost_rows", snapshot_id=draft.snapshot_id)
    if not bad.height:
        bad = database.ask(con, "refused_rows", snapshot_id=draft.snapshot_id, version=version)
    differing = None if bad.height else _differing(con, draft.snapshot_id)
    con.unregister("incoming")
    if bad.height:
        lines = [
            f"  - row {row['position']}, example {row['example_id'][:12]}: {row['problem']}: {row['prompt']!r:.80}"
            for row in bad.head(20).iter_rows(named=True)
        ]
        more = [f"  ... and {bad.height - 20} more"] if bad.height > 20 else []
        raise PoolError("\n".join([f"snapshot {draft.snapshot_id}: {bad.height} rows may not train", *lines, *more]))
    if differing is not None:
        position, column = differing
        row = given.filter(pl.col("position") == position)
        raise PoolError(
            f"snapshot {draft.snapshot_id}: {column} of row {position - given['position'][0]} is {row[column][0]!r} in "
            f"the draft, and another in the pool (example {row['example_id'][0]})"
        )


def _differing(con: duckdb.DuckDBPyConnection, snapshot_id: str) -> tuple[int, str] | None:
    """Where the first of the incoming rows differs from the stored: its position and column."""
    found = database.ask(con, "differing_row", snapshot_id=snapshot_id)
    if not found.height:
        return None
    position: int = found["position"][0]
    column = database.ask(con, "differing_column", snapshot_id=snapshot_id, position=position)
    return position, column["name"][0]


def read(con: duckdb.DuckDBPyConnection, snapshot_id: str) -> Snapshot:
    """A snapshot with all its rows. Raises `PoolError` for an unknown id, `PoolDamaged` when its digest is not kept."""
    row = _record(con, snapshot_id)
    rows = database.ask(con, "snapshot_rows", snapshot_id=snapshot_id)
    if (
        rows.height != row["total_rows"]
        or digest_of(rows) != row["digest"]
        or rows.select("prompt", "rationale").null_count().sum_horizontal()[0]
    ):
        raise _damaged(snapshot_id, found=rows.height, committed=row["total_rows"])
    return Snapshot(
        snapshot_id=snapshot_id,
        digest=row["digest"],
        parent=row["parent"],
        run_id=row["run_id"],
        stage=row["stage"],
        version=row["added_in"],
        rows=frames.check(rows, frames.SNAPSHOT_ROWS),
        recipe_yaml=row["recipe_yaml"],
        deficits=json.loads(row["deficits"]),
    )


def _record(con: duckdb.DuckDBPyConnection, snapshot_id: str) -> dict[str, Any]:
    record = database.ask(con, "snapshot", snapshot_id=snapshot_id)
    if not record.height:
        known = con.sql("SELECT snapshot_id FROM snapshots ORDER BY added_in, snapshot_id").fetchall()
        raise PoolError(f"no snapshot {snapshot_id!r}; there are: {', '.join(name for (name,) in known) or 'none yet'}")
    return record.row(0, named=True)


def _damaged(snapshot_id: str, *, found: int, committed: int) -> PoolDamaged:
    return PoolDamaged(
        f"snapshot {snapshot_id}: its {found} rows are not the {committed} that were committed; "
        "restore the pool from a backup"
    )


def scan(con: duckdb.DuckDBPyConnection, folder: Path, snapshot_id: str) -> SnapshotScan:
    """A snapshot with its rows in a Parquet file under `folder`, written anew when absent or not as its manifest says.

    Raises as `read` does. However many rows there are, a block of them is in memory.
    """
    record = _record(con, snapshot_id)
    home = folder / record["snapshot_id"]
    path = home / "rows.parquet"
    found = SnapshotScan(
        **{name: record[name] for name in ("snapshot_id", "digest", "parent", "run_id", "stage", "recipe_yaml")},
        version=record["added_in"],
        file=path,
    )
    if file_problem(folder, snapshot_id, digest=record["digest"]) is None and path.exists():
        return found
    home.mkdir(parents=True, exist_ok=True)
    (home / "manifest.json").unlink(missing_ok=True)
    temporary = home / f".rows.{os.getpid()}"
    try:
        _write(_stored_blocks(con, record), temporary, record=record)
        database.settle(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    manifest = {
        "snapshot_id": snapshot_id,
        "digest": record["digest"],
        "version": record["added_in"],
        "rows": record["total_rows"],
        "sha256": _sha256(path),
    }
    database.write_whole(home / "manifest.json", (json.dumps(manifest, indent=2) + "\n").encode())
    return found


def _write(blocks: Iterator[pl.DataFrame], path: Path, *, record: Mapping[str, Any]) -> None:
    """The blocks as a Parquet file; raises `PoolDamaged` where they are not the rows that were committed."""
    import pyarrow.parquet

    digest = _Digest()
    schema = frames.SNAPSHOT_ROWS.empty().to_arrow().schema
    with path.open("wb") as file:
        with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            for block in blocks:
                digest.add(block)
                writer.write_table(block.to_arrow().cast(schema), row_group_size=BLOCK)
        file.flush()
        os.fsync(file.fileno())
    if digest.rows != record["total_rows"] or digest.hexdigest() != record["digest"]:
        raise _damaged(record["snapshot_id"], found=digest.rows, committed=record["total_rows"])


def _stored_blocks(con: duckdb.DuckDBPyConnection, record: Mapping[str, Any]) -> Iterator[pl.DataFrame]:
    """The rows that are stored, in order; where a block of them is too much for DuckDB's memory, in smaller ones."""
    import duckdb

    first, size = 0, READ
    while first < record["total_rows"]:
        asked = {"snapshot_id": record["snapshot_id"], "first": first, "last": first + size}
        try:
            block = database.ask(con, "snapshot_block", **asked)
        except duckdb.OutOfMemoryException:
            if size == 1:
                raise
            size = max(1, size // 8)
            continue
        first += size
        yield frames.check(block, frames.SNAPSHOT_ROWS)


def file_problem(folder: Path, snapshot_id: str, *, digest: str) -> str | None:
    """What is wrong with the Parquet file of a snapshot; None when it is right, or not made yet."""
    home = folder / snapshot_id
    path, manifest = home / "rows.parquet", home / "manifest.json"
    if not path.exists() and not manifest.exists():
        return None
    try:
        said = json.loads(manifest.read_text(encoding="utf-8"))
        if said["digest"] != digest:
            return f"{manifest}: of digest {said['digest'][:12]}, not {digest[:12]}"
        return None if said["sha256"] == _sha256(path) else f"{path}: not the bytes that {manifest.name} describes"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{home}: incomplete ({type(error).__name__}: {error})"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
