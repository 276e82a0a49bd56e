"""Frames, Parquet, Arrow and `datasets` in pieces: columns with types, which become cells of text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl
import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from balkit.errors import MissingExtra, need
from balkit.pool import chat, database, fields
from balkit.pool.fields import Columns, Field, Problem, RowProblem

#: Rows and characters of a piece at most.
ROWS, CHARACTERS = 20_000, 2**25

PARTS = ("prompt", "reference", "domain")
#: What `Columns.fields` calls them.
PART_OF = {"prompt": "prompt", "reference": "answer", "domain": "domain"}
CELLS = {"number": pl.Int64, **dict.fromkeys(PARTS, pl.String)}


def cells_of(columns: Columns) -> dict[str, type[pl.DataType]]:
    """The names and types of the cells that these columns are read into."""
    return {**CELLS, **dict.fromkeys((name for name, _ in columns.more), pl.String)}


HUB = "hf:"
_HUB_NAME = re.compile(r"hf:(?P<name>.+?)(?::(?P<config>[^:/@]+))?(?:@(?P<split>[^/@]+))?")

#: Rows that `datasets` puts together at once; it makes Python objects of them.
_DATASET_ROWS = 5000


@dataclass(frozen=True)
class Piece:
    """Cells (number, prompt, reference, domain), and problems: of a row where it is a `RowProblem`, or of the source.

    `instead` says that the problems stand for all that was said of the source before.
    """

    cells: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=CELLS))
    problems: list[str] = field(default_factory=list)
    instead: bool = False


class Unreadable(Exception):
    """A source that cannot be read on; `args` are its problems."""


def of_object(source: Any, columns: Columns, *, name: str) -> Iterator[Piece]:
    """The pieces of a frame: polars, pandas, Arrow, DuckDB, `datasets`, or whatever gives an Arrow stream."""
    if isinstance(source, pl.DataFrame):
        yield from _pieces(name, source.iter_slices(ROWS) if source.height else [source], columns)
    elif isinstance(source, pl.LazyFrame):
        with _Translated(name, "a frame that can be collected"):
            names = source.collect_schema().names()
        part = source.select(pl.col(_roots(name, columns, names)))
        yield from _pieces(name, _collected(name, part), columns, seen=names)
    elif type(source).__module__.startswith("datasets."):
        yield from _of_dataset(name, source, columns)
    elif hasattr(source, "__arrow_c_stream__"):
        with _Translated(name, "a frame"):
            found = pyarrow.RecordBatchReader.from_stream(source)
        wanted = _roots(name, columns, found.schema.names)
        part = pyarrow.schema([found.schema.field(column) for column in wanted])
        batches = (batch.select(wanted) for batch in _read(name, found))
        yield from _pieces(name, _frames(name, batches, schema=part), columns, seen=found.schema.names)
    else:
        raise Unreadable(f"{name}: is a {type(source).__name__}, not a path or a polars frame")


def _collected(name: str, frame: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    with _Translated(name, "a frame that can be collected"):
        found = frame.head(0).collect()
        for found in frame.collect_batches(chunk_size=ROWS, maintain_order=True):
            yield from found.iter_slices(ROWS)
        yield found.clear()


def _read(name: str, batches: Iterable[Any]) -> Iterator[Any]:
    with _Translated(name, "a frame"):
        yield from batches


def of_parquet(name: str, source: BinaryIO, columns: Columns) -> Iterator[Piece]:
    """A Parquet file, of which only the columns that are named are read."""
    with _Translated(name, "a Parquet file"):
        file = pyarrow.parquet.ParquetFile(source)
        schema = file.schema_arrow
    wanted = _roots(name, columns, schema.names)

    def batches() -> Iterator[Any]:
        with _Translated(name, "a Parquet file"):
            yield from file.iter_batches(batch_size=ROWS, columns=wanted)

    part = pyarrow.schema([schema.field(column) for column in wanted])
    yield from _pieces(name, _frames(name, batches(), schema=part), columns, seen=schema.names)


def of_arrow(name: str, source: BinaryIO, columns: Columns) -> Iterator[Piece]:
    """An Arrow file, also as `feather` writes it, or an Arrow stream."""
    with _Translated(name, "an Arrow file"):
        is_file = source.read(6) == b"ARROW1"
        source.seek(0)
        reader = pyarrow.ipc.open_file(source) if is_file else pyarrow.ipc.open_stream(source)
    names = reader.schema.names
    wanted = _roots(name, columns, names)

    def batches() -> Iterator[Any]:
        with _Translated(name, "an Arrow file"):
            given = (reader.get_batch(n) for n in range(reader.num_record_batches)) if is_file else iter(reader)
            yield from (batch.select(wanted) for batch in given)

    part = pyarrow.schema([reader.schema.field(column) for column in wanted])
    yield from _pieces(name, _frames(name, batches(), schema=part), columns, seen=names)


def names_in(source: BinaryIO, kind: str) -> list[str]:
    """The columns of a Parquet or Arrow file; none where it cannot be read."""
    try:
        if kind == ".parquet":
            return list(pyarrow.parquet.ParquetFile(source).schema_arrow.names)
        return list(pyarrow.ipc.open_file(source).schema.names) if kind in KINDS else []
    except (pyarrow.ArrowException, OSError):
        return []


KINDS: Mapping[str, Callable[[str, BinaryIO, Columns], Iterator[Piece]]] = {
    ".parquet": of_parquet,
    ".arrow": of_arrow,
    ".feather": of_arrow,
}


def of_folder(path: Path, columns: Columns, *, name: str) -> Iterator[Piece]:
    """A folder that `datasets` wrote with `save_to_disk`."""
    if not path.exists():
        raise Unreadable(f"{name}: no such file")
    if (path / "dataset_dict.json").exists():
        splits = ", ".join(str(one) for one in sorted(path.iterdir()) if one.is_dir())
        raise Unreadable(f"{name}: holds several splits; name one: {splits}")
    if not (path / "state.json").exists():
        raise Unreadable(f"{name}: is a folder; name its files")
    with _Translated(name, "a folder of datasets"):
        found = _datasets(name).load_from_disk(str(path))
    yield from _of_dataset(name, found, columns)


def is_hub_name(source: str) -> bool:
    """Whether a source is a data set on the hub: `hf:OWNER/NAME[:CONFIG][@SPLIT]`."""
    return source.startswith(HUB)


def of_hub(source: str, columns: Columns) -> Iterator[Piece]:
    """A data set by its name on the hub, or the folder of one, streamed; `is_hub_name` says how it is written."""
    found = _HUB_NAME.fullmatch(source)
    shown = fields.shown(source)
    if found is None:
        raise Unreadable(f"{shown}: is not {HUB}OWNER/NAME, with :CONFIG and @SPLIT behind it where they are needed")
    with _Translated(shown, "a data set that can be loaded"):
        datasets = _datasets(shown)
        loaded = datasets.load_dataset(found["name"], found["config"], split=found["split"], streaming=True)
    if isinstance(loaded, Mapping) and len(loaded) == 1:
        loaded = next(iter(loaded.values()))
    yield from _of_dataset(shown, loaded, columns)


def _datasets(name: str) -> Any:
    try:
        return need("datasets", extra="datasets")
    except MissingExtra as error:
        raise Unreadable(f"{name}: {error}") from error


def _of_dataset(name: str, found: Any, columns: Columns) -> Iterator[Piece]:
    if isinstance(found, Mapping):
        first = next(iter(found), "train")
        which = f"{name}@{first}" if name.startswith(HUB) else f"[{first!r}]"
        raise Unreadable(f"{name}: holds the splits {', '.join(map(str, found))}; name one: {which}")
    names = found.column_names
    if names is not None:
        found = found.select_columns(_roots(name, columns, names))
    yield from _pieces(name, _tables_of(name, found), columns, seen=names)


def _tables_of(name: str, found: Any) -> Iterator[pl.DataFrame]:
    first = 0
    with _Translated(name, "a data set that can be loaded"):
        for table in found.with_format("arrow").iter(batch_size=_DATASET_ROWS):
            yield _frame_of(name, table.combine_chunks(), first=first)
            first += table.num_rows


def _roots(name: str, columns: Columns, names: Sequence[str]) -> list[str]:
    """The source's columns that the paths begin in. Raises `Unreadable` for one that it lacks or has twice."""
    lost = [path for path in columns.names if path not in names and path.partition(".")[0] not in names]
    if lost:
        raise Unreadable(*fields.absent(name, lost, names))
    wanted = {path if path in names else path.partition(".")[0] for path in columns.names}
    twice = [path for path in sorted(wanted) if names.count(path) > 1]
    if twice:
        raise Unreadable(*(f"{name}: column {path!r} stands {names.count(path)} times" for path in twice))
    return [column for column in names if column in wanted]


class _Translated:
    """Whatever a library says of a source that it cannot read is the source's problem."""

    def __init__(self, name: str, kind: str) -> None:
        self._said = f"{name}: not {kind}"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, Unreadable):
            first = next(iter(str(error).splitlines()), "")
            raise Unreadable(f"{self._said}: {first or type(error).__name__}") from error


def _frames(name: str, batches: Iterable[Any], *, schema: Any) -> Iterator[pl.DataFrame]:
    """Arrow batches as frames of at most `ROWS` rows; one without rows where there is no batch."""
    first = 0
    for batch in batches:
        yield from _frame_of(name, batch, first=first).iter_slices(ROWS)
        first += batch.num_rows
    if not first:
        yield _frame_of(name, schema.empty_table())


def _frame_of(name: str, batch: Any, *, first: int = 0) -> pl.DataFrame:
    try:
        batch.validate(full=True)  # text that is no UTF-8 would end the process in polars
    except pyarrow.ArrowInvalid as error:
        raise Unreadable(_where_invalid(name, batch, first=first) or f"{name}: {error}") from error
    found = {}
    for column, values in zip(batch.schema.names, batch.columns, strict=True):
        types = pyarrow.types
        if types.is_decimal256(values.type) or types.is_interval(values.type):  # polars would print a panic
            raise Unreadable(f"{name}: column {column!r} is {values.type}, which cannot be read")
        try:
            found[column] = pl.Series(column, values)
        except (Exception, pl.exceptions.PanicException) as error:
            raise Unreadable(f"{name}: column {column!r} is {values.type}, which cannot be read") from error
    return pl.DataFrame(found)


def _where_invalid(name: str, batch: Any, *, first: int) -> str | None:
    for column, values in zip(batch.schema.names, batch.columns, strict=True):
        if pyarrow.types.is_string(values.type) or pyarrow.types.is_large_string(values.type):
            for row, value in enumerate(values.cast(pyarrow.large_binary()).to_pylist()):
                try:
                    (value or b"").decode()
                except UnicodeDecodeError:
                    return f"{name} row {first + row}: {column!r} is not UTF-8"
    return None


def _pieces(
    name: str, frames: Iterable[pl.DataFrame], columns: Columns, *, seen: Sequence[str] | None = None
) -> Iterator[Piece]:
    """`seen` are the columns of the source, where the frames hold some of them only."""
    first, unmet = 0, set(columns.names)
    known: list[str] = []
    for frame in frames:
        known = list(seen or frame.columns)
        series_of = {path: _series(frame, path) for path in columns.names}
        lost = [path for path, found in series_of.items() if found is None]
        if lost:
            raise Unreadable(*fields.absent(name, lost, known))
        unmet -= {path for path, found in series_of.items() if found is not None and found.met}
        if frame.height:
            yield _piece(name, {path: found.series for path, found in series_of.items() if found}, columns, first=first)
        first += frame.height
    if first == 0:
        raise Unreadable(f"{name}: holds no rows")
    if unmet:
        yield Piece(problems=fields.absent(name, sorted(unmet), known), instead=True)


@dataclass(frozen=True)
class _Found:
    """What a path leads to; `met` says whether any row has it."""

    series: pl.Series
    met: bool


def _series(frame: pl.DataFrame, path: str) -> _Found | None:
    """A column, or what a path into one leads to; None where no row can have it."""
    if path in frame.columns:
        return _Found(frame[path], True)
    root, *parts = path.split(".")
    if root not in frame.columns:
        return None
    found, met = frame[root], True
    for part in parts:
        if isinstance(found.dtype, pl.Struct) and part in {inner.name for inner in found.dtype.fields}:
            found = found.struct.field(part)
        elif isinstance(found.dtype, pl.List | pl.Array) and fields.is_place(part):
            listed = found if isinstance(found.dtype, pl.List) else found.arr.to_list()
            met &= bool((listed.list.len() > int(part)).any())
            found = listed.list.get(int(part), null_on_oob=True)
        else:
            return None
    return _Found(found, met)


def _piece(name: str, series_of: Mapping[str, pl.Series], columns: Columns, *, first: int) -> Piece:
    height = next(iter(series_of.values())).len() if series_of else 0
    problems, lost = list[str](), list[str]()
    whole = pl.repeat(True, height, dtype=pl.Boolean, eager=True)
    cells: dict[str, pl.Series] = {"number": pl.int_range(first, first + height, dtype=pl.Int64, eager=True)}
    schema = cells_of(columns)
    for part in list(schema)[1:]:
        of = columns.fields.get(PART_OF.get(part, part))
        if of is None:
            given = columns.domain_is if part == "domain" else None
            cells[part] = pl.Series([given], dtype=pl.String).new_from_index(0, height)
            continue
        try:
            cells[part], odd = _texts(of, series_of, part=PART_OF.get(part, part))
        except Unreadable as error:
            lost += [f"{name}: {said}" for said in error.args]
            continue
        for row, said in odd.items():
            problems.append(RowProblem(f"{name} row {first + row}: {said}"))
        if odd:
            whole = whole.scatter(list(odd), False)
    if lost:
        raise Unreadable(*dict.fromkeys(lost))
    frame = pl.DataFrame(cells, schema=schema)
    if columns.domain_sql is not None:
        frame = with_domain(
            name, frame, columns, named=pl.DataFrame([*(series_of[n].alias(n) for n in columns.sql_names)])
        )
    return Piece(frame.filter(whole), list(dict.fromkeys(problems)))


def _texts(of: Field, series_of: Mapping[str, pl.Series], *, part: str) -> tuple[pl.Series, dict[int, str]]:
    """A field's texts, and what is wrong with rows whose cells are none. Raises `Unreadable` for a whole column."""
    if not of.is_template:
        return _text_of(of.text, series_of[of.text], part=part)
    pieces, odd = [], dict[int, str]()
    for number, (literal, path) in enumerate(of.parts):
        pieces.append(pl.lit(literal))
        if path is not None:
            text, wrong = _text_of(path, series_of[path], part="")
            odd |= wrong
            pieces.append(pl.lit(text.fill_null("").alias(f"part {number}")))
    made = pl.select(pl.concat_str(pieces)).to_series()
    height = next((series_of[path].len() for path in of.paths()), 0)
    return (made if made.len() == height else made.new_from_index(0, height)), odd


def _text_of(path: str, series: pl.Series, *, part: str) -> tuple[pl.Series, dict[int, str]]:
    dtype = series.dtype
    if _may_be_chat(dtype) and part in ("prompt", "answer"):
        found = [fields.as_text(cell, part=part) for cell in series.to_list()]
        odd = {row: f"{path!r} {said}" for row, said in enumerate(found) if isinstance(said, Problem)}
        texts = [None if isinstance(said, Problem) else said for said in found]
        return pl.Series(texts, dtype=pl.String), odd
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
        raise Unreadable(f"column {path!r} is {dtype}, not text, numbers or true/false")
    odd = {}
    if dtype.is_float():
        bad = (~series.is_finite()).fill_null(False).arg_true().to_list()
        odd = {row: f"{path!r} {fields.not_finite(float(series[row]))}" for row in bad}
    try:
        return series.cast(pl.String), odd
    except pl.exceptions.PolarsError:
        raise Unreadable(f"column {path!r} is {dtype}, which is no text; write it as text") from None


def _may_be_chat(dtype: pl.DataType) -> bool:
    inner = dtype.inner if isinstance(dtype, pl.List) else None
    names = {part.name for part in inner.fields} if isinstance(inner, pl.Struct) else set()
    return chat.has_keys(names)


def with_domain(name: str, frame: pl.DataFrame, columns: Columns, *, named: pl.DataFrame) -> pl.DataFrame:
    """The cells with the domain that `domain_sql` gives over the named columns of the same rows.

    A row in which it fails gets none. Raises `Unreadable` with DuckDB's words for what fails in every row.
    """
    import duckdb

    rows = named.with_columns(pl.int_range(frame.height, dtype=pl.Int64).alias(_ROW))
    try:
        with database.connected(config=database.CLOSED_OFF) as con:
            con.register("rows", rows)
            sql = f'SELECT {fields.in_sql(columns.domain_sql or "")} FROM rows ORDER BY "{_ROW}"'
            found = con.sql(sql).pl()["domain"]
    except (duckdb.Error, pyarrow.ArrowException, pl.exceptions.PolarsError) as error:
        first = next(iter(str(error).splitlines()), "")
        raise Unreadable(f"{name}: domain_sql {columns.domain_sql!r}: {first}") from error
    if found.len() != frame.height:
        raise Unreadable(
            f"{name}: domain_sql {columns.domain_sql!r}: gives {found.len()} values for {frame.height} rows"
        )
    return frame.with_columns(found.alias("domain"))


_ROW = "row of the piece"
