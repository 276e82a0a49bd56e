"""What the pool knows around a snapshot and an export makes use of: validation rows, families, calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

from balkit.pool.pairs import PAIRS

if TYPE_CHECKING:
    from balkit.pool import Pool, Snapshot

_S = pl.String()

_PARENTS = {"example_id": _S, "parents": pl.List(_S)}
_CALLS = {"rationale_id": _S, "call_key": _S, "model": _S, "cost_usd": pl.Float64()}


@dataclass(frozen=True)
class Background:
    """Frames beside a snapshot's rows; an empty one is never asked for.

    `parents`: example_id and the example_ids that it was written after. `calls`: per rationale_id the call that wrote
    it and what that cost. `pairs`: PAIRS of the snapshot's rows and the validation rows.
    """

    parents: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_PARENTS))
    calls: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_CALLS))
    pairs: pl.DataFrame = field(default_factory=PAIRS.empty)


def around(
    pool: Pool, snapshot: Snapshot, *, pairs: int | None = None, validation: pl.DataFrame | None = None
) -> Background:
    """What the pool knows around a snapshot, at its version; with `pairs` up to so many an example."""
    view = pool.at(snapshot.version)
    written = view.examples(origin="synthetic")
    return Background(
        parents=written.select(*_PARENTS).filter(pl.col("parents").list.len() > 0),
        pairs=PAIRS.empty() if pairs is None else view.pairs(chosen=_chosen(snapshot, validation), per_example=pairs),
        calls=view.rationale_calls().select(pl.col(name).cast(dtype) for name, dtype in _CALLS.items()),
    )


def _chosen(snapshot: Snapshot, validation: pl.DataFrame | None) -> pl.DataFrame:
    rows = [snapshot.rows] + ([] if validation is None else [validation])
    return pl.concat(rows).rename({"rationale": "text"})
