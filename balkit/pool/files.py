"""JSONL, CSV, TSV, Parquet and Arrow files, packed or not, and frames, as cells of text with the place of every row."""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

import polars as pl
import pyarrow


@dataclass(frozen=True)
class Columns:
    """Which columns of the source hold what; without `answer` no reference answer is known.

    A name that is no column is read as a path into one: `meta.subject`, `messages.0.content`. `domain_is` names the
    domain of all rows, where no column does.
    """

    prompt: str
    answer: str | None
    domain: str | None
    domain_is: str | None = None

    def names(self) -> list[str]:
        """The columns that are read."""
        return list(dict.fromkeys(name for name in (self.prompt, self.answer, self.domain) if name is not None))

    def row(self, number: int, cells: Mapping[str, str | None]) -> Row:
        """A row of `Table.cells`."""
        answer = cells[self.answer] if self.answer else None
        return number, cells[self.prompt], answer, cells[self.domain] if self.domain else self.domain_is


@dataclass(frozen=True)
class Table:
    """One source. `cells` are number, prompt, reference, domain; `broken` says that it could not be read to its end."""

    name: str
    unit: str
    columns: Columns
    cells: pl.DataFrame
    problems: list[str] = field(default_factory=list)
    broken: bool = False

    def place(self, number: int) -> str:
        """Where a row stands, for messages: `data/train.jsonl line 7` (from 1), or `frame row 6` (from 0)."""
        return f"{self.name} {self.unit} {number}"


class RowProblem(str):
    """What is wrong with one row, which is left out; the other rows of its source stand without it."""


Row = tuple[int, str | None, str | None, str | None]
Rows = list[Row]

STDIN = "-"

_SCHEMA = {"number": pl.Int64, "prompt": pl.String, "reference": pl.String, "domain": pl.String}


def read(source: object, *, columns: Columns, name: str = "frame") -> Table:
    """The cells of a file or a frame; whatever is wrong is in `problems`, nothing is raised."""
    if isinstance(source, pl.DataFrame):
        return _frame(source, columns, name=name)
    if not isinstance(source, str | Path):
        return _broken(name, columns, f"{name}: is a {type(source).__name__}, not a path or a polars frame")
    if str(source) == STDIN:
        return _jsonl("stdin", sys.stdin.buffer.read() if sys.stdin is not None else b"", columns)
    path = Path(source)
    *inner, suffix = ("", *(part.lower() for part in path.suffixes))
    packing = _PACKINGS.get(suffix)
    kind = inner[-1] if packing and inner else suffix
    if kind not in _TEXTS and kind not in _FRAMES:
        known = f"{', '.join([*_TEXTS, *_FRAMES])}, alone or packed as {', '.join(_PACKINGS)}"
        return _broken(str(path), columns, f"{path}: {kind or 'no suffix'} is not one of {known}")
    if path.is_dir():
        return _broken(str(path), columns, f"{path}: is a folder; name its files")
    try:
        if kind in _FRAMES and packing is None:
            with path.open("rb") as file:  # polars would read a name with `*` as many files
                return _FRAMES[kind](str(path), file, columns)
        with pyarrow.input_stream(str(path), compression=packing) as stream:
            content = stream.read()
        if kind in _FRAMES:
            return _FRAMES[kind](str(path), io.BytesIO(content), columns)
        return _TEXTS[kind](str(path), content, columns)
    except FileNotFoundError:
        return _broken(str(path), columns, f"{path}: no such file")
    except OSError as error:
        return _broken(str(path), columns, f"{path}: cannot be read: {error.strerror or error}")


def _jsonl(path: str, content: bytes, columns: Columns) -> Table:
    text = _decoded(path, content)
    if isinstance(text, _Problem):
        return _broken(path, columns, text)
    bodies: list[tuple[int, dict[str, object]]] = []
    problems: list[str] = []
    if text.lstrip().startswith("["):
        return _broken(path, columns, f"{path}: is a JSON array; write one object a line")
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        body = _object(line)
        if isinstance(body, _Problem):
            problems.append(RowProblem(f"{path} line {number}: {body}"))
        else:
            bodies.append((number, body))
    seen = dict.fromkeys(key for _, body in bodies for key in body)
    seen |= {name: None for name in columns.names() if any(_at(body, name) is not _NOWHERE for _, body in bodies)}
    absent = _absent(path, columns, list(seen)) if bodies else []
    rows: Rows = []
    for number, body in bodies if not absent else []:
        values = {name: _at(body, name) for name in columns.names()}
        lacking = [name for name, value in values.items() if value is _NOWHERE]
        cells = {name: _text(value) for name, value in values.items() if value is not _NOWHERE}
        wrong = [f"{name!r} {cell}" for name, cell in cells.items() if isinstance(cell, _Problem)]
        if lacking:
            wrong.append(f"no key {', '.join(map(repr, lacking))} (it has: {', '.join(body) or 'none'})")
        if wrong:
            problems += [RowProblem(f"{path} line {number}: {what}") for what in wrong]
        else:
            rows.append(columns.row(number, cells))
    return _table(path, "line", columns, rows, [*absent, *problems], empty=not bodies)


def _at(body: object, name: str) -> object:
    """The value of a key, or at the end of a path of keys and places; `_NOWHERE` where there is none."""
    if isinstance(body, dict) and name in body:
        return body[name]
    for part in name.split("."):
        if isinstance(body, dict) and part in body:
            body = body[part]
        elif isinstance(body, list) and _is_place(part) and int(part) < len(body):
            body = body[int(part)]
        else:
            return _NOWHERE
    return body


def _is_place(part: str) -> bool:
    return part.isascii() and part.isdigit() and len(part) < 10


def _csv(path: str, body: bytes, columns: Columns, *, delimiter: str = ",") -> Table:
    text = _decoded(path, body)
    if isinstance(text, _Problem):
        return _broken(path, columns, text)
    old = csv.field_size_limit(sys.maxsize)  # a prompt may be longer than the 128 KiB that csv allows
    try:
        return _records(path, columns, text, delimiter=delimiter)
    finally:
        csv.field_size_limit(old)


def _records(path: str, columns: Columns, text: str, *, delimiter: str) -> Table:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: Rows = []
    problems: list[str] = []
    header: list[str] | None = None
    at: Mapping[str, int] = {}
    begins = 1
    try:
        for record in reader:
            number, begins = begins, reader.line_num + 1
            if not record:
                continue
            if header is None:
                header = [name.strip() for name in record]
                absent = _absent(path, columns, header)
                absent += [
                    f"{path}: column {name!r} stands {header.count(name)} times"
                    for name in columns.names()
                    if header.count(name) > 1
                ]
                if absent:
                    return _table(path, "line", columns, [], absent)
                at = {name: header.index(name) for name in columns.names()}
            elif len(record) != len(header):
                said = f"{path} line {number}: {len(record)} fields, the header has {len(header)}"
                problems.append(RowProblem(said))
            else:
                rows.append(columns.row(number, {name: record[place] for name, place in at.items()}))
    except csv.Error as error:
        problems.append(f"{path} line {begins}: {error}")
    return _table(path, "line", columns, rows, problems, empty=not rows and not problems)


def _parquet(name: str, source: BinaryIO, columns: Columns) -> Table:
    try:
        schema = pl.read_parquet_schema(source)
        source.seek(0)
        wanted = {column if column in schema else column.partition(".")[0] for column in columns.names()}
        frame = pl.read_parquet(source, columns=[column for column in schema if column in wanted])
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        return _broken(name, columns, f"{name}: not a Parquet file: {str(error).splitlines()[0]}")
    return _frame(frame, columns, name=name, seen=list(schema))


def _arrow(name: str, source: BinaryIO, columns: Columns) -> Table:
    try:
        is_file = source.read(6) == b"ARROW1"
        source.seek(0)
        frame = pl.read_ipc(source) if is_file else pl.read_ipc_stream(io.BytesIO(source.read()))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        return _broken(name, columns, f"{name}: not an Arrow file: {str(error).splitlines()[0]}")
    return _frame(frame, columns, name=name)


def _series(frame: pl.DataFrame, name: str) -> pl.Series | None:
    """A column, or what a path into one leads to; None where there is none."""
    if name in frame.columns:
        return frame[name]
    root, *parts = name.split(".")
    found = frame[root] if root in frame.columns else None
    for part in parts:
        if found is None:
            break
        if isinstance(found.dtype, pl.Struct) and part in {field.name for field in found.dtype.fields}:
            found = found.struct.field(part)
        elif isinstance(found.dtype, pl.List) and _is_place(part) and (found.list.len() > int(part)).any():
            found = found.list.get(int(part), null_on_oob=True)
        else:
            found = None
    return found


def _frame(frame: pl.DataFrame, columns: Columns, *, name: str, seen: Sequence[str] | None = None) -> Table:
    """`seen` are the columns of the source, where the frame holds some of them only."""
    series_of = {column: _series(frame, column) for column in columns.names()}
    paths = [column for column, series in series_of.items() if series is not None]
    problems = _absent(name, columns, list(dict.fromkeys([*(seen or frame.columns), *paths])))
    if problems:
        return _table(name, "row", columns, [], problems)
    cells, whole = {}, pl.repeat(True, frame.height, dtype=pl.Boolean, eager=True)
    for column, series in series_of.items():
        assert series is not None
        dtype = series.dtype
        if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
            problems.append(f"{name}: column {column!r} is {dtype}, not text, numbers or true/false")
            continue
        if dtype.is_float():
            odd = (~series.is_finite()).fill_null(False)
            whole &= ~odd
            rows = odd.arg_true().to_list()
            problems += [RowProblem(f"{name} row {row}: {column!r} {_not_finite(series[row])}") for row in rows]
        try:
            cells[column] = series.cast(pl.String)
        except pl.exceptions.PolarsError:
            problems.append(f"{name}: column {column!r} is {dtype}, which is no text; write it as text")
    if any(not isinstance(problem, RowProblem) for problem in problems):
        return _table(name, "row", columns, [], problems)
    answer = cells[columns.answer] if columns.answer else pl.Series([None] * frame.height, dtype=pl.String)
    numbers = pl.int_range(frame.height, dtype=pl.Int64, eager=True)
    same = pl.Series([columns.domain_is] * frame.height, dtype=pl.String)
    domain = cells[columns.domain] if columns.domain else same
    parts = dict(zip(_SCHEMA, (numbers, cells[columns.prompt], answer, domain), strict=True))
    problems += [] if frame.height else [f"{name}: holds no rows"]
    return Table(name, "row", columns, pl.DataFrame(parts).filter(whole), problems)


#: What a path that leads nowhere gives; a null that is written is something else.
_NOWHERE = object()

_PACKINGS = {".gz": "gzip", ".zst": "zstd"}
_TEXTS: Mapping[str, Callable[[str, bytes, Columns], Table]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _jsonl,
    ".csv": _csv,
    ".tsv": partial(_csv, delimiter="\t"),
}
_FRAMES: Mapping[str, Callable[[str, BinaryIO, Columns], Table]] = {
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".feather": _arrow,
}


class _Problem(str):
    """What is wrong with a cell, a line or a file, where text was expected."""


def _table(
    name: str, unit: str, columns: Columns, rows: Rows, problems: Sequence[str], *, empty: bool = False
) -> Table:
    found = list(problems)
    if empty and not found:
        found.append(f"{name}: holds no rows")
    return Table(name, unit, columns, pl.DataFrame(rows, schema=_SCHEMA, orient="row"), found)


def _broken(name: str, columns: Columns, problem: str) -> Table:
    return Table(name, "line", columns, pl.DataFrame(schema=_SCHEMA), [str(problem)], broken=True)


def _decoded(path: str, body: bytes) -> str | _Problem:
    if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return _Problem(f"{path}: is UTF-16; save it as UTF-8")
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        return _Problem(f"{path} line {line}: not UTF-8 (byte 0x{body[error.start]:02x}); save the file as UTF-8")


def _object(line: str) -> dict[str, object] | _Problem:
    try:
        body = json.loads(line, parse_int=str, parse_float=str, parse_constant=float)
    except json.JSONDecodeError as error:
        return _Problem(f"not JSON: {error.msg} at column {error.colno}")
    except RecursionError:
        return _Problem("not JSON that can be read: nested too deeply")
    return body if isinstance(body, dict) else _Problem(f"not a JSON object: {line.strip()[:40]}")


def _text(value: object) -> str | _Problem | None:
    """A JSON cell as text; numbers arrive as they were written."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _Problem(_not_finite(value))
    if isinstance(value, str):
        if value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value):
            return value
        return _Problem("holds half of a surrogate pair, which is no text")
    return None if value is None else _Problem(f"is a {type(value).__name__}, not text, a number or true/false")


def _not_finite(value: float) -> str:
    return (
        f"is {'NaN' if math.isnan(value) else value}, not text or a finite number; write null where no value is known"
    )


def _absent(name: str, columns: Columns, found: Sequence[str]) -> list[str]:
    problems = []
    for column in columns.names():
        if column not in found:
            folded = {other.casefold(): other for other in found}
            close = difflib.get_close_matches(column.casefold(), list(folded), n=1, cutoff=0.5)
            hint = f"; did you mean {folded[close[0]]!r}?" if close else ""
            problems.append(f"{name}: no column {column!r}{hint} (it has: {', '.join(found) or 'none'})")
    return problems
