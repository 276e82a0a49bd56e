"""JSONL, CSV, TSV and Parquet files, and frames, as cells of text with the place of every row."""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl


@dataclass(frozen=True)
class Columns:
    """Which columns of the source hold what; without `answer` no reference answer is known."""

    prompt: str
    answer: str | None
    domain: str

    def names(self) -> list[str]:
        """The columns that are read."""
        return list(dict.fromkeys(name for name in (self.prompt, self.answer, self.domain) if name is not None))


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


Rows = list[tuple[int, str | None, str | None, str | None]]

_SCHEMA = {"number": pl.Int64, "prompt": pl.String, "reference": pl.String, "domain": pl.String}


def read(source: object, *, columns: Columns, name: str = "frame") -> Table:
    """The cells of a file or a frame; whatever is wrong is in `problems`, nothing is raised."""
    if isinstance(source, pl.DataFrame):
        return _frame(source, columns, name=name)
    if not isinstance(source, str | Path):
        return _broken(name, columns, f"{name}: is a {type(source).__name__}, not a path or a polars frame")
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        return _broken(str(path), columns, f"{path}: {suffix or 'no suffix'} is not one of {', '.join(_READERS)}")
    if path.is_dir():
        return _broken(str(path), columns, f"{path}: is a folder; name its files")
    try:
        return _READERS[suffix](path, columns)
    except FileNotFoundError:
        return _broken(str(path), columns, f"{path}: no such file")
    except OSError as error:
        return _broken(str(path), columns, f"{path}: cannot be read: {error.strerror or error}")


def _jsonl(path: Path, columns: Columns) -> Table:
    text = _decoded(path)
    if isinstance(text, _Problem):
        return _broken(str(path), columns, text)
    bodies: list[tuple[int, dict[str, object]]] = []
    problems: list[str] = []
    if text.lstrip().startswith("["):
        return _broken(str(path), columns, f"{path}: is a JSON array; write one object a line")
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        body = _object(line)
        if isinstance(body, _Problem):
            problems.append(f"{path} line {number}: {body}")
        else:
            bodies.append((number, body))
    seen = list(dict.fromkeys(key for _, body in bodies for key in body))
    absent = _absent(str(path), columns, seen) if bodies else []
    rows: Rows = []
    for number, body in bodies if not absent else []:
        lacking = [name for name in columns.names() if name not in body]
        cells = {name: _text(body[name]) for name in columns.names() if name in body}
        wrong = [f"{name!r} {cell}" for name, cell in cells.items() if isinstance(cell, _Problem)]
        if lacking:
            wrong.append(f"no key {', '.join(map(repr, lacking))} (it has: {', '.join(body) or 'none'})")
        if wrong:
            problems += [f"{path} line {number}: {what}" for what in wrong]
        else:
            rows.append(
                (
                    number,
                    cells[columns.prompt],
                    cells[columns.answer] if columns.answer else None,
                    cells[columns.domain],
                )
            )
    return _table(str(path), "line", columns, rows, [*absent, *problems], empty=not bodies)


def _csv(path: Path, columns: Columns) -> Table:
    text = _decoded(path)
    if isinstance(text, _Problem):
        return _broken(str(path), columns, text)
    old = csv.field_size_limit(sys.maxsize)  # a prompt may be longer than the 128 KiB that csv allows
    try:
        return _records(path, columns, text, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    finally:
        csv.field_size_limit(old)


def _records(path: Path, columns: Columns, text: str, *, delimiter: str) -> Table:
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
                absent = _absent(str(path), columns, header)
                absent += [
                    f"{path}: column {name!r} stands {header.count(name)} times"
                    for name in columns.names()
                    if header.count(name) > 1
                ]
                if absent:
                    return _table(str(path), "line", columns, [], absent)
                at = {name: header.index(name) for name in columns.names()}
            elif len(record) != len(header):
                problems.append(f"{path} line {number}: {len(record)} fields, the header has {len(header)}")
            else:
                answer = record[at[columns.answer]] if columns.answer else None
                rows.append((number, record[at[columns.prompt]], answer, record[at[columns.domain]]))
    except csv.Error as error:
        problems.append(f"{path} line {begins}: {error}")
    return _table(str(path), "line", columns, rows, problems, empty=not rows and not problems)


def _parquet(path: Path, columns: Columns) -> Table:
    try:
        schema = pl.read_parquet_schema(path)
        absent = _absent(str(path), columns, list(schema))
        if absent:
            return _table(str(path), "row", columns, [], absent)
        frame = pl.read_parquet(path, columns=columns.names())
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        return _broken(str(path), columns, f"{path}: not a Parquet file: {str(error).splitlines()[0]}")
    return _frame(frame, columns, name=str(path))


def _frame(frame: pl.DataFrame, columns: Columns, *, name: str) -> Table:
    problems = _absent(name, columns, frame.columns)
    if problems:
        return _table(name, "row", columns, [], problems)
    cells = {}
    for column in columns.names():
        series, dtype = frame[column], frame[column].dtype
        if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
            problems.append(f"{name}: column {column!r} is {dtype}, not text, numbers or true/false")
            continue
        if dtype.is_float():
            odd = (~series.is_finite()).fill_null(False).arg_true().to_list()
            problems += [f"{name} row {row}: {column!r} {_not_finite(series[row])}" for row in odd]
        cells[column] = series.cast(pl.String)
    if problems:
        return _table(name, "row", columns, [], problems)
    answer = cells[columns.answer] if columns.answer else pl.Series([None] * frame.height, dtype=pl.String)
    numbers = pl.int_range(frame.height, dtype=pl.Int64, eager=True)
    parts = dict(zip(_SCHEMA, (numbers, cells[columns.prompt], answer, cells[columns.domain]), strict=True))
    problems = [] if frame.height else [f"{name}: holds no rows"]
    return Table(name, "row", columns, pl.DataFrame(parts), problems)


_READERS: Mapping[str, Callable[[Path, Columns], Table]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _jsonl,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
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


def _decoded(path: Path) -> str | _Problem:
    body = path.read_bytes()
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
