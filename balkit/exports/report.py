"""EXPORT_REPORT.json: what went into an export, what was left out and why, how long the rows are, what was checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl
import pyarrow as pa

from balkit.exports.files import Material, Written
from balkit.exports.rows import control_tokens, quantiles


def build(
    material: Material,
    considered: pl.DataFrame,
    *,
    written: Mapping[str, Written],
    listing: Mapping[str, Mapping[str, object]],
) -> dict[str, Any]:
    """The report as a JSON value. Lengths are tokens of the counter named there, texts only, without the template's."""
    options = material.options
    settings = {
        "rationale": options.rationale,
        "system": options.system,
        "max_length": options.max_length,
        "license": options.license,
    }
    return {
        "snapshot": {"id": material.snapshot_id, "digest": material.digest, "version": material.version},
        "options": settings,
        "rows": {part: rows.height for part, rows in material.parts.items()},
        "dropped": _dropped(considered),
        "tokens": _tokens(material),
        "targets": {name: _target(material, done) for name, done in written.items()},
        "warnings": _warnings(material, considered, written=written),
        "check": {"done": "every data file was read back and compared", "loader": f"pyarrow {pa.__version__}"},
        "files": dict(listing),
    }


def _dropped(considered: pl.DataFrame) -> dict[str, dict[str, int]]:
    counts = considered.filter(~pl.col("kept")).group_by("part", "reason").len().sort("part", "reason")
    found: dict[str, dict[str, int]] = {}
    for part, reason, count in counts.rows():
        found.setdefault(part, {})[reason] = count
    return found


def _tokens(material: Material) -> dict[str, Any]:
    counter = material.options.counter
    lengths = {
        part: quantiles(rows["n_tokens"].to_list())
        | {"total": int(rows["n_tokens"].sum()), "trainable": int(rows["completion_tokens"].sum())}
        for part, rows in material.parts.items()
    }
    return {"counter": counter.name, "exact": counter.exact, **lengths}


def _over(material: Material, limit: int) -> int:
    return sum(int((rows["n_tokens"] > limit).sum()) for rows in material.parts.values())


def _target(material: Material, done: Written) -> dict[str, Any]:
    if done.default_limit is None:
        return {"default_limit": None}
    over = _over(material, done.default_limit)
    return {"default_limit": done.default_limit, "rows_over_default_limit": over, "settings": dict(done.settings)}


def _warnings(material: Material, considered: pl.DataFrame, *, written: Mapping[str, Written]) -> list[str]:
    counter, said = material.options.counter, []
    if not counter.exact:
        said.append(f"lengths are by {counter.name}; give the student's tokenizer for exact ones")
    dropped = considered.height - sum(rows.height for rows in material.parts.values())
    if dropped:
        said.append(f"{dropped} of {considered.height} rows were left out; rows.parquet says why")
    marked = control_tokens(considered)
    if marked:
        shown = ", ".join(marked[:3])
        said.append(f"{len(marked)} rows hold a chat template's control tokens, kept as they stand: {shown}")
    for name, done in written.items():
        over = 0 if done.default_limit is None else _over(material, done.default_limit)
        if over:
            said.append(f"{name}: {over} rows pass its default of {done.default_limit} tokens; use its config here")
    return said
