"""Plain JSON lines with the canonical row, provenance included: for scripts, not for a trainer that guesses columns."""

from __future__ import annotations

from pathlib import Path

from balkit.exports.files import Material, Written, write_jsonl
from balkit.exports.rows import canonical


def write(material: Material, folder: Path) -> Written:
    """train.jsonl, and validation.jsonl where there are such rows."""
    for part, rows in material.parts.items():
        write_jsonl(canonical(rows).to_dicts(), folder / f"{part}.jsonl")
    return Written()
