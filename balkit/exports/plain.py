"""Plain files with provenance in every row, for scripts and tables: JSON lines, Parquet, CSV.

A trainer that guesses a format by its columns should not be pointed at these: they carry more than it looks for.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from balkit.errors import ExportError
from balkit.exports.files import arrow_schema, write_jsonl, write_parquet
from balkit.exports.material import Material, Target, object_schema, turns_schema
from balkit.exports.rows import CANONICAL, canonical

#: A text that begins with one of these is a formula to some spreadsheet; one with the mark is one that was escaped.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
ESCAPE = "'"

#: The columns of CSV files, which have no lists.
FLAT = [name for name in CANONICAL if name not in ("messages", "reference")]
CSV_COLUMNS = ["row_id", "system", "prompt", "completion", *FLAT[1:], "reference"]

_TEXT, _NUMBER = {"type": "string"}, {"type": "integer"}
_NUMBERS = ("stage", "copy", "n_tokens")
CANONICAL_ROW = object_schema(
    **{name: _NUMBER if name in _NUMBERS else _TEXT for name in CANONICAL}
    | {
        "messages": turns_schema("user", "assistant", keys=("reasoning_content",)),
        "reference": {"type": ["string", "null"]},
    }
)


def canonical_schema(material: Material) -> Any:
    """The Arrow schema of canonical rows, whatever they hold."""
    keys = ["role", "content"] + ["reasoning_content"] * (material.options.rationale == "reasoning_content")
    return arrow_schema(CANONICAL, message=keys)


def canonical_rows(material: Material, part: str) -> Iterator[dict[str, Any]]:
    """The canonical rows of a part, in order."""
    return (row for rows in material.blocks(part) for row in canonical(rows, options=material.options))


def write_as_jsonl(material: Material, folder: Path) -> Mapping[str, object]:
    """train.jsonl, and validation.jsonl where there are such rows."""
    for part in material.parts:
        rows = partial(canonical_rows, material, part)
        write_jsonl(rows, folder / f"{part}.jsonl", schema=canonical_schema(material))
    return {}


def write_as_parquet(material: Material, folder: Path) -> Mapping[str, object]:
    """train.parquet, and validation.parquet where there are such rows."""
    for part in material.parts:
        rows = partial(canonical_rows, material, part)
        write_parquet(rows, folder / f"{part}.parquet", schema=canonical_schema(material))
    return {}


def write_as_csv(material: Material, folder: Path) -> Mapping[str, object]:
    """train.csv, and validation.csv where there are such rows: every cell quoted, UTF-8, `\\n` between rows.

    A cell that a spreadsheet could take for a formula gets an apostrophe in front, and so does one that begins with an
    apostrophe: taking one away gives every text back. With `keep_formulas` cells stay as they are. An absent reference
    is an empty cell. Read back and compared with Python's csv module.
    """
    escape = not material.options.keep_formulas
    for part in material.parts:
        path = folder / f"{part}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
            writer.writerow(CSV_COLUMNS)
            writer.writerows(_cells(material, part, escape=escape))
        _same_cells(path, _cells(material, part, escape=escape))
    return {"formulas_escaped": escape}


def _cells(material: Material, part: str, *, escape: bool) -> Iterator[list[str]]:
    for row in canonical_rows(material, part):
        said = {message["role"]: message["content"] for message in row["messages"]}
        row |= {"system": said.get("system", ""), "prompt": said["user"], "completion": said["assistant"]}
        cells = ["" if row[name] is None else str(row[name]) for name in CSV_COLUMNS]
        yield [ESCAPE + cell if escape and cell.startswith((*FORMULA, ESCAPE)) else cell for cell in cells]


def _same_cells(path: Path, rows: Iterator[list[str]]) -> None:
    longest = csv.field_size_limit(1 << 30)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            found = csv.reader(file)
            next(found)
            for at, (cells, row) in enumerate(zip(found, rows, strict=True)):
                if cells != row:
                    raise ExportError(f"{path.name}: row {at} does not read back as it was written")
    finally:
        csv.field_size_limit(longest)


JSONL = Target(
    write=write_as_jsonl,
    about="canonical rows as JSON lines",
    files="*.jsonl",
    row=CANONICAL_ROW,
    reader="balkit",
    learns="nothing",
)
PARQUET = Target(
    write=write_as_parquet,
    about="canonical rows as Parquet",
    files="*.parquet",
    row=CANONICAL_ROW,
    reader="balkit",
    learns="nothing",
)
CSV = Target(
    write=write_as_csv,
    about="flat canonical rows for spreadsheets",
    files="*.csv",
    row=object_schema(**dict.fromkeys(CSV_COLUMNS, _TEXT)),
    reader="balkit",
    learns="nothing",
)
