"""Plain JSON lines with the canonical row, provenance included: for scripts, not for a trainer that guesses columns."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from balkit.exports.files import Material, Written, write_jsonl
from balkit.exports.rows import canonical


def write(material: Material, folder: Path) -> Written:
    """train.jsonl, and validation.jsonl where there are such rows."""
    for part, rows in material.parts.items():
        write_jsonl(partial(_rows, canonical(rows)), folder / f"{part}.jsonl")
    return Written()


def _rows(rows: pl.DataFrame) -> Iterator[dict[str, Any]]:
    return rows.iter_rows(named=True)
