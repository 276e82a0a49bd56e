"""Sources read whole, for whoever wants their rows and no pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from balkit.errors import IngestError
from balkit.pool import fields, tabular
from balkit.pool.fields import Columns
from balkit.pool.files import names_in, read
from balkit.pool.ingest import Source, sources_of
from balkit.pool.tabular import is_hub_name

__all__ = ["Columns", "Table", "is_hub_name", "names_in", "read_whole", "sources_of"]

_SUFFIXES_WITH_A_HEADER = (".csv", ".tsv")


@dataclass(frozen=True)
class Table:
    """The cells of one source: its name, and one row a row of it.

    cells  `row` (counted from 0: lines of JSON lines, else rows below the header), prompt, reference, domain and what
           `Columns.more` names; null where a row has nothing
    """

    name: str
    cells: pl.DataFrame


def read_whole(sources: Sequence[Source], *, columns: Sequence[Columns], most: int | None = None) -> list[Table]:
    """Every source by its columns, whole, or the pieces in which its first `most` rows are.

    Raises `IngestError` with every problem of every source, by line or row.
    """
    problems, tables = list[str](), list[Table]()
    for number, (source, wanted) in enumerate(zip(sources, columns, strict=True)):
        found = read(source, columns=wanted, name="frame" if len(sources) == 1 else f"frame {number}")
        frames, own = [pl.DataFrame(schema=tabular.cells_of(wanted))], list[str]()
        for piece in found.pieces:
            own = [*piece.problems] if piece.instead else [*own, *piece.problems]
            if not piece.cells.is_empty():  # a piece of problems alone has no columns of its own
                frames.append(piece.cells)
            if most is not None and sum(frame.height for frame in frames) >= most:
                break
        problems += own
        cells = pl.concat(frames)
        by_line = found.unit == "line" and not any(mark in found.name.lower() for mark in _SUFFIXES_WITH_A_HEADER)
        row = pl.col("number") - 1 if by_line else pl.int_range(pl.len(), dtype=pl.Int64)
        tables.append(Table(found.name, cells.with_columns(row.alias("row")).drop("number")))
    if problems:
        raise IngestError("these files cannot be read:", [fields.shown(line) for line in problems])
    return tables
