"""Sources of rows, read in pieces: what each kind gives is cells of text with the place of every row.

Memory does not grow with a source: a piece holds `ROWS` rows at most, and a line `LINE_BYTES` bytes.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import polars as pl
import pyarrow

from balkit.pool import fields, tabular
from balkit.pool.fields import NOWHERE, Columns, Problem, RowProblem
from balkit.pool.tabular import CHARACTERS, ROWS, Piece, Unreadable

#: The longest line that is read, in bytes.
LINE_BYTES = 2**28

#: Rows after which a column that none of them has is taken to be missing.
_ENOUGH_ROWS = 100_000

#: Names of keys that are remembered, for the message on a missing one.
_MOST_KEYS = 1000

STDIN = "-"


@dataclass(frozen=True)
class Source:
    """A source by its name, what its rows are counted in, and its pieces."""

    name: str
    unit: str
    pieces: Iterator[Piece]


def read(source: object, *, columns: Columns, name: str = "frame") -> Source:
    """The pieces of a file, a folder of `datasets`, a name on the hub, or a frame. Whatever is wrong is in them."""
    if not isinstance(source, str | Path):
        return Source(name, "row", _guarded(tabular.of_object(source, columns, name=name)))
    if str(source) == STDIN:
        stream = sys.stdin.buffer if sys.stdin is not None else io.BytesIO()
        return Source("stdin", "line", _guarded(_jsonl("stdin", stream, columns)))
    if tabular.is_hub_name(str(source)):
        return Source(str(source), "row", _guarded(tabular.of_hub(str(source), columns)))
    path = Path(source)
    name = fields.shown(str(path))
    if path.is_dir() or not (path.exists() or path.is_symlink()):
        return Source(name, "row", _guarded(tabular.of_folder(path, columns, name=name)))
    *inner, suffix = ("", *(part.lower() for part in path.suffixes))
    packing = _PACKINGS.get(suffix)
    kind = inner[-1] if packing and inner else suffix
    if kind in _TEXTS:
        return Source(name, "line", _guarded(_text_file(path, _TEXTS[kind], packing, columns, name=name)))
    return Source(name, "row", _guarded(_frame_file(path, kind, packing, columns, name=name)))


def names_in(source: object, *, rows: int = 100) -> list[str]:
    """The columns of a source, of JSON lines those of the first rows; none where it shows none, or cannot be read."""
    if not isinstance(source, str | Path):
        found = getattr(source, "column_names", None) or getattr(source, "columns", None)
        return [str(name) for name in found or ()]
    path = Path(source)
    *inner, suffix = ("", *(part.lower() for part in path.suffixes))
    packing = _PACKINGS.get(suffix)
    kind = inner[-1] if packing and inner else suffix
    if path.is_dir():
        return _names_of_folder(path)
    if not path.is_file():
        return []
    try:
        with _opened(path, packing, name=str(path)) as stream:
            if kind in (".csv", ".tsv"):
                header = next(csv.reader(_csv_lines(str(path), stream), delimiter="\t" if kind == ".tsv" else ","), [])
                return [fields.named(column.strip()) for column in header]
            if kind in _TEXTS:
                return _names_of_lines(_lines(str(path), stream), rows=rows)
            if packing is None:
                return tabular.names_in(stream, kind)
            with _unpacked(stream) as whole:
                return tabular.names_in(whole, kind)
    except (Unreadable, ValueError, csv.Error):  # reading the rows says what is wrong
        return []


def _names_of_lines(lines: Iterator[tuple[int, str]], *, rows: int) -> list[str]:
    """The keys of the first rows that can be read."""
    found: dict[str, None] = {}
    with suppress(Unreadable):
        for _, line in islice(((number, line) for number, line in lines if line.strip()), rows):
            with suppress(ValueError, RecursionError):
                body = json.loads(line)
                found |= dict.fromkeys(body if isinstance(body, dict) else ())
    return list(found)


def _names_of_folder(path: Path) -> list[str]:
    """The columns of a folder that `datasets` wrote."""
    try:
        features = json.loads((path / "dataset_info.json").read_text(encoding="utf-8"))["features"]
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return []
    return [str(name) for name in features] if isinstance(features, dict) else []


def _guarded(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """What stops a source becomes its last piece."""
    try:
        yield from pieces
    except Unreadable as error:
        yield Piece(problems=[str(problem) for problem in error.args])


@contextmanager
def _opened(path: Path, packing: str | None, *, name: str) -> Iterator[BinaryIO]:
    try:
        with ExitStack() as stack:
            if packing is None:  # polars and pyarrow would read a name with `*` as many files
                yield stack.enter_context(path.open("rb"))
            else:
                packed = stack.enter_context(path.open("rb"))
                stream = stack.enter_context(pyarrow.CompressedInputStream(packed, packing))
                yield io.BufferedReader(stream, 2**20)
    except (OSError, EOFError) as error:
        said = getattr(error, "strerror", None) or error
        raise Unreadable(f"{name}: cannot be read: {said}") from error


def _text_file(
    path: Path, parse: Callable[..., Iterator[Piece]], packing: str | None, columns: Columns, *, name: str
) -> Iterator[Piece]:
    with _opened(path, packing, name=name) as stream:
        yield from parse(name, stream, columns)


def _frame_file(path: Path, kind: str, packing: str | None, columns: Columns, *, name: str) -> Iterator[Piece]:
    if kind not in tabular.KINDS:
        known = f"{', '.join([*_TEXTS, *tabular.KINDS])}, alone or packed as {', '.join(_PACKINGS)}"
        raise Unreadable(f"{name}: {kind or 'no suffix'} is not one of {known}")
    with _opened(path, packing, name=name) as stream:
        if packing is None:
            yield from tabular.KINDS[kind](name, stream, columns)
            return
        with _unpacked(stream) as whole:
            yield from tabular.KINDS[kind](name, whole, columns)


@contextmanager
def _unpacked(stream: BinaryIO) -> Iterator[BinaryIO]:
    """The whole of a packed file, for kinds that are read from their end."""
    with tempfile.TemporaryFile() as whole:
        while body := stream.read(2**24):
            whole.write(body)
        whole.seek(0)
        yield whole


def _lines(name: str, stream: BinaryIO, *, carriage_returns: bool = False) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file, counted from 1; carriage returns that stand alone may count as their ends."""
    number = 0
    while raw := stream.readline(LINE_BYTES + 1):
        number += 1
        if number == 1 and (raw[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in raw[:2]):
            raise Unreadable(f"{name}: is UTF-16; save it as UTF-8")
        if len(raw) > LINE_BYTES:
            raise Unreadable(
                f"{name} line {number}: is longer than {LINE_BYTES // 2**20} MiB; is it one record a line?"
            )
        try:
            yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            number += len(_LONE.findall(raw, 0, error.start)) if carriage_returns else 0
            said = f"not UTF-8 (byte 0x{raw[error.start]:02x}); save the file as UTF-8"
            raise Unreadable(f"{name} line {number}: {said}") from None
        if carriage_returns:
            number += len(_LONE.findall(raw))


@dataclass
class _Gathered:
    """Rows of one source on their way into pieces."""

    name: str
    columns: Columns
    numbers: list[int] = field(default_factory=list)
    rows: list[dict[str, object]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    size: int = 0

    @property
    def full(self) -> bool:
        return len(self.rows) + len(self.problems) >= ROWS or self.size >= CHARACTERS

    def put(self, number: int, row: dict[str, object], *, size: int) -> None:
        self.numbers.append(number)
        self.rows.append(row)
        self.size += size

    def refuse(self, number: int, said: str) -> None:
        self.problems.append(RowProblem(f"{self.name} line {number}: {said}"))

    def piece(self) -> Piece:
        """What was gathered, and begin anew."""
        columns, schema = self.columns, tabular.cells_of(self.columns)
        cells: dict[str, list[str | None]] = {part: [] for part in list(schema)[1:]}
        numbers: list[int] = []
        for number, row in zip(self.numbers, self.rows, strict=True):
            found = {part: fields_.value(row, part=part) for part, fields_ in columns.fields.items()}
            wrong = {
                said if columns.fields[part].is_template else f"{columns.fields[part].text!r} {said}": None
                for part, said in found.items()
                if isinstance(said, Problem)
            }
            for said in wrong:
                self.refuse(number, said)
            if not wrong:
                numbers.append(number)
                for part, column in cells.items():
                    otherwise = columns.domain_is if part == "domain" else None
                    column.append(found.get(tabular.PART_OF.get(part, part), otherwise))
        frame = pl.DataFrame({"number": numbers, **cells}, schema=schema)
        if columns.domain_sql is not None:
            kept = set(numbers)
            rows = [row for number, row in zip(self.numbers, self.rows, strict=True) if number in kept]
            given = {name: [_for_sql(row.get(name)) for row in rows] for name in columns.sql_names}
            named = pl.DataFrame(given, schema=dict.fromkeys(columns.sql_names, pl.String))
            frame = tabular.with_domain(self.name, frame, columns, named=named)
        piece = Piece(frame, self.problems)
        self.numbers, self.rows, self.problems, self.size = [], [], [], 0
        return piece


def _with_rest(gathered: _Gathered, pieces: Iterator[Piece]) -> Iterator[Piece]:
    """What was gathered before a source could not be read on has its problems too."""
    try:
        yield from pieces
    except Unreadable:
        yield gathered.piece()
        raise


def _jsonl(name: str, stream: BinaryIO, columns: Columns) -> Iterator[Piece]:
    gathered = _Gathered(name, columns)
    yield from _with_rest(gathered, _objects(gathered, stream))


def _objects(gathered: _Gathered, stream: BinaryIO) -> Iterator[Piece]:
    name, columns = gathered.name, gathered.columns
    keys: dict[str, None] = {}
    unmet = set(columns.names)
    read_rows, empty = 0, True
    decoder, spelt = _decoder(), not all(key.isascii() for key in columns.keys)
    for number, line in _lines(name, stream):
        if not line.strip():
            continue
        if empty and line.lstrip().startswith("["):
            raise Unreadable(f"{name}: is a JSON array; write one object a line")
        empty = False
        body = _object(line, decoder, columns)
        if gathered.full:
            yield gathered.piece()
        if isinstance(body, Problem):
            gathered.refuse(number, body)
            continue
        if spelt:
            body = {fields.named(key): value for key, value in body.items()}
        if len(keys) < _MOST_KEYS:
            keys |= dict.fromkeys(body)
        row = {path: fields.at(body, path) for path in columns.names}
        unmet -= {path for path in unmet if row[path] is not NOWHERE}
        if columns.may_lack:
            row = {path: None if value is NOWHERE else value for path, value in row.items()}
        lacking = [path for path in columns.paths if row[path] is NOWHERE]
        if lacking:
            listed = fields.shown(", ".join(list(body)[:100])) or "none"
            gathered.refuse(number, f"no key {', '.join(map(repr, lacking))} (it has: {listed})")
        else:
            gathered.put(number, row, size=len(line))
        read_rows += 1
        if unmet and read_rows == _ENOUGH_ROWS:
            break
    if unmet and read_rows:
        yield Piece(problems=fields.absent(name, sorted(unmet, key=columns.names.index), list(keys)), instead=True)
        return
    last = gathered.piece()
    yield last if not empty else Piece(problems=[f"{name}: holds no rows"])


def _csv(name: str, stream: BinaryIO, columns: Columns, *, delimiter: str = ",") -> Iterator[Piece]:
    old = csv.field_size_limit(LINE_BYTES)  # a prompt may be longer than the 128 KiB that csv allows
    gathered = _Gathered(name, columns)
    try:
        yield from _with_rest(gathered, _records(gathered, _csv_lines(name, stream), delimiter=delimiter))
    finally:
        csv.field_size_limit(old)


def _csv_lines(name: str, stream: BinaryIO) -> Iterator[str]:
    """Lines as csv wants them: their ends kept, and cut at a carriage return that stands alone too."""
    for _, line in _lines(name, stream, carriage_returns=True):
        if "\r" in line[:-2]:
            yield from io.StringIO(line, newline="")
        else:
            yield line


def _records(gathered: _Gathered, lines: Iterator[str], *, delimiter: str) -> Iterator[Piece]:
    name, columns = gathered.name, gathered.columns
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    places: Mapping[str, int] = {}
    begins, empty = 1, True
    try:
        for record in reader:
            number, begins = begins, reader.line_num + 1
            if not record:
                continue
            if header is None:
                header = [fields.named(column.strip()) for column in record]
                places = _places(name, header, columns)
                continue
            empty = False
            if len(record) != len(header):
                gathered.refuse(number, f"{len(record)} fields, the header has {len(header)}")
            else:
                row: dict[str, object] = {path: record[place] for path, place in places.items()}
                gathered.put(number, row, size=sum(map(len, record)))
            if gathered.full:
                yield gathered.piece()
    except csv.Error as error:
        raise Unreadable(f"{name} line {begins}: {error}") from error
    yield gathered.piece() if not empty else Piece(problems=[f"{name}: holds no rows"])


def _places(name: str, header: list[str], columns: Columns) -> dict[str, int]:
    problems = fields.absent(name, columns.names, header)
    for path in columns.names:
        if header.count(path) > 1:
            problems.append(f"{name}: column {path!r} stands {header.count(path)} times")
    if problems:
        raise Unreadable(*problems)
    return {path: header.index(path) for path in columns.names}


def _decoder() -> json.JSONDecoder:
    """Numbers come as they are written; of a key that stands twice, a note."""
    return json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=float, object_pairs_hook=_once)


class _Twice(dict[str, object]):
    """An object in which a key stands more than once."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        super().__init__(pairs)
        self.keys_twice = {key for key, count in Counter(key for key, _ in pairs).items() if count > 1}


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    body = dict(pairs)
    return body if len(body) == len(pairs) else _Twice(pairs)


def _object(line: str, decoder: json.JSONDecoder, columns: Columns) -> dict[str, object] | Problem:
    try:
        body = decoder.decode(line)
    except json.JSONDecodeError as error:
        return Problem(f"not JSON: {error.msg} at column {error.colno}")
    except RecursionError:
        return Problem("not JSON that can be read: nested too deeply")
    if not isinstance(body, dict):
        return Problem(f"not a JSON object: {line.strip()[:40]}")
    if isinstance(body, _Twice) and (twice := sorted(body.keys_twice & columns.keys)):
        return Problem(f"key {twice[0]!r} stands twice")
    return body


def _for_sql(value: object) -> str | None:
    """A JSON value as SQL sees it: text; what is nested, as JSON text."""
    if value is NOWHERE or value is None:
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()


_LONE = re.compile(rb"\r(?!\n|$)")
_PACKINGS = {".gz": "gzip", ".zst": "zstd"}
_TEXTS: Mapping[str, Callable[..., Iterator[Piece]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _jsonl,
    ".csv": _csv,
    ".tsv": partial(_csv, delimiter="\t"),
}
