"""Writing and re-reading the files of an export: the same bytes for the same rows, and read back by the same
readers that `datasets` uses (pyarrow's) before anything is renamed into place."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet
import yaml

from balkit.errors import ExportError
from balkit.exports.rows import EXPORT_ROWS, SLICE, TEXTS

#: What the report and the sidecar are called. The report marks a folder as an export.
REPORT = "EXPORT_REPORT.json"
SIDECAR = "rows.parquet"
PAIRS = "pairs.parquet"

_LINE_BREAKS = str.maketrans({"\u2028": "\\u2028", "\u2029": "\\u2029", "\x85": "\\u0085"})
_ARROW = {pl.String(): pa.string(), pl.Int64(): pa.int64(), pl.Boolean(): pa.bool_()}


Rows = Callable[[], Iterator[Mapping[str, object]]]


def write_jsonl(rows: Rows, path: Path, *, schema: pa.Schema = None, byte_order_mark: bool = False) -> None:
    """One JSON object a line, UTF-8, `\n` ends; the other Unicode line breaks are escaped. Read back and compared.

    `rows` is called twice, so that no file is ever held in memory as Python objects. Types are read off the file, as
    trainers do, unless a schema is given.
    """
    longest = 0
    with path.open("w", encoding="utf-8-sig" if byte_order_mark else "utf-8", newline="\n") as file:
        for row in rows():
            text = json.dumps(row, ensure_ascii=False, separators=(", ", ": "), allow_nan=False)
            text = text.translate(_LINE_BREAKS) + "\n"
            longest = max(longest, 4 * len(text))  # bytes, at most
            file.write(text)
    reader = pa.json.open_json(
        path,
        read_options=pa.json.ReadOptions(block_size=max(longest, 1 << 20), use_threads=False),
        parse_options=pa.json.ParseOptions(explicit_schema=schema) if schema else None,
    )
    _same(reader, rows(), path=path)


def write_parquet(rows: Rows, path: Path, *, schema: pa.Schema) -> None:
    """A Parquet file under an explicit Arrow schema, with a page index. Read back and compared; see `write_jsonl`."""
    with pa.parquet.ParquetWriter(path, schema, compression="zstd", write_page_index=True) as file:
        for some in pieces(rows()):
            file.write_table(pa.Table.from_pylist(some, schema=schema))
    with pa.parquet.ParquetFile(path) as file:
        _same(file.iter_batches(batch_size=SLICE), rows(), path=path)


def arrow_schema(columns: Sequence[str], *, message: Sequence[str] = ("role", "content")) -> pa.Schema:
    """Explicit Arrow types for columns of EXPORT_ROWS, of the sidecar, and `messages`, a list of structs of strings."""
    types, nullable = EXPORT_ROWS.columns, EXPORT_ROWS.nullable | {"reference", "call_key", "model", "cost_usd"}
    made = {"messages": pa.list_(pa.struct([(name, pa.string()) for name in message])), "version": pa.int64()}
    made |= {"cost_usd": pa.float64()} | dict.fromkeys(
        ("teacher", "call_key", "model", "rejected_id", *TEXTS), pa.string()
    )
    return pa.schema(
        pa.field(name, made.get(name) or _ARROW[types[name]], nullable=name in nullable) for name in columns
    )


def pieces(rows: Iterable[Mapping[str, object]]) -> Iterator[list[Mapping[str, object]]]:
    """The rows in lists of at most SLICE."""
    each = iter(rows)
    while some := list(islice(each, SLICE)):
        yield some


def write_text(text: str, path: Path) -> None:
    """A UTF-8 text file with `\n` ends."""
    path.write_text(text, encoding="utf-8", newline="\n")


def yaml_text(value: Mapping[str, Any]) -> str:
    """YAML in the order given."""
    return yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True)


def listing(folder: Path) -> dict[str, dict[str, object]]:
    """bytes and sha256 of every file under the folder, by its relative path, sorted."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in found
    }


@contextmanager
def place(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """A fresh folder beside `out` that takes its place when the block ends well, and vanishes when it does not.

    Raises `ExportError` when `out` is a file, or holds something that may not be replaced, and for a full disk or
    missing rights.
    """
    _may_write(out, overwrite=overwrite)
    fresh, old = (out.parent / f".{out.name}.{ending}" for ending in ("part", "old"))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for left in (fresh, old):
            shutil.rmtree(left, ignore_errors=True)
        fresh.mkdir()
        yield fresh
        if out.exists():
            out.rename(old)
        fresh.rename(out)
    except OSError as error:
        raise ExportError(f"{out}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)


def _may_write(out: Path, *, overwrite: bool) -> None:
    if out.resolve() == Path.cwd():
        raise ExportError(f"{out}: is the folder that you are in, which cannot be replaced; name one inside it")
    if not out.exists():
        return
    if not out.is_dir():
        raise ExportError(f"{out}: is a file; name a folder to export into")
    if not any(out.iterdir()):
        return
    if not overwrite:
        raise ExportError(
            f"{out}: is not empty; choose another folder, or replace what is there with overwrite=True (--overwrite)"
        )
    if not (out / REPORT).is_file():
        raise ExportError(f"{out}: holds no {REPORT}, so it is not an export and is not overwritten")
    others = sorted({path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} - _exported(out))
    if others:
        raise ExportError(
            f"{out}: holds {len(others)} files that no export wrote, such as {others[0]}; move them away, or choose "
            "another folder"
        )


def _exported(out: Path) -> set[str]:
    """What the report of an earlier export lists, and the report."""
    try:
        return {REPORT, *json.loads((out / REPORT).read_text(encoding="utf-8"))["files"]}
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise ExportError(f"{out / REPORT}: cannot be read ({error}); delete the folder, or choose another") from error


def _same(batches: Iterable[pa.RecordBatch], rows: Iterator[Mapping[str, object]], *, path: Path) -> None:
    read = (row for batch in batches for row in batch.to_pylist())
    for at, (found, row) in enumerate(zip_longest(read, rows)):
        if found != row:
            raise ExportError(f"{path.name}: row {at} does not read back as it was written")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
