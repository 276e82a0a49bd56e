"""What the pool knows around a snapshot and an export makes use of: families, calls, pairs, how the run went."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl
import yaml

from balkit import recipe as recipes
from balkit.errors import RecipeError
from balkit.pool import Snapshot, SnapshotScan
from balkit.pool.pairs import PAIRS
from balkit.recipe import Recipe
from balkit.runs import measures_of

if TYPE_CHECKING:
    from balkit.pool import Pool, View

_S, _I = pl.String(), pl.Int64()

_PARENTS = {"example_id": _S, "parents": pl.List(_S)}
_CALLS = {"rationale_id": _S, "call_key": _S, "model": _S, "cost_usd": pl.Float64()}


@dataclass(frozen=True)
class Making:
    """How the run of a snapshot went until that was made, for its card.

    `recipe` is None where this balkit cannot read it. `quotas`: domain, quota (rows over all stages so far); empty
    where the run's folder is gone. `rejected` and `spent` are as `View.rejected_of` and `View.spent_of` give them;
    `eval_rows` are those of the pool.
    """

    run_id: str
    recipe: Recipe | None
    quotas: pl.DataFrame
    rejected: pl.DataFrame
    spent: pl.DataFrame
    eval_rows: int


@dataclass(frozen=True)
class Background:
    """Frames beside a snapshot's rows; an empty one is never asked for.

    `parents`: example_id and the example_ids that it was written after. `calls`: per rationale_id the call that wrote
    it and what that cost. `pairs`: PAIRS of the snapshot's rows and the validation rows, or what gives those of the
    examples of some rows. `making` is for the card.
    """

    parents: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_PARENTS))
    calls: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_CALLS))
    pairs: pl.DataFrame | Callable[[pl.DataFrame], pl.DataFrame] = field(default_factory=PAIRS.empty)
    making: Making | None = None

    def pairs_of(self, rows: pl.DataFrame) -> pl.DataFrame:
        """PAIRS of the examples of some rows with their texts."""
        if isinstance(self.pairs, pl.DataFrame):
            return self.pairs.join(rows, on="example_id", how="semi")
        return self.pairs(rows)


def around(
    pool: Pool, snapshot: Snapshot | SnapshotScan, *, pairs: int | None = None, validation: pl.DataFrame | None = None
) -> Background:
    """What the pool knows around a snapshot, at its version; with `pairs` up to so many an example."""
    view = pool.at(snapshot.version)
    return Background(
        parents=view.parents(),
        pairs=PAIRS.empty() if pairs is None else _paired(view, snapshot, validation, per_example=pairs),
        calls=view.rationale_calls().select(pl.col(name).cast(dtype) for name, dtype in _CALLS.items()),
        making=Making(
            run_id=snapshot.run_id,
            recipe=_recipe(snapshot.recipe_yaml),
            quotas=_quotas(pool, snapshot),
            rejected=view.rejected_of(snapshot.run_id),
            spent=view.spent_of(snapshot.run_id),
            eval_rows=view.size("eval"),
        ),
    )


def _paired(
    view: View, snapshot: Snapshot | SnapshotScan, validation: pl.DataFrame | None, *, per_example: int
) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Gives the pairs of the examples of some rows; all worked answers of an example count, wherever they stand."""
    keys = snapshot.rows if isinstance(snapshot, Snapshot) else snapshot.keys()
    named = ["example_id", "rationale_id", "domain", "split"]
    chosen = pl.concat([rows.select(named) for rows in (keys, validation) if rows is not None])
    reviewed = view.reviewed()

    def among(rows: pl.DataFrame) -> pl.DataFrame:
        texts = rows.select("example_id", "prompt", "reference").unique("example_id")
        return view.pairs_among(chosen.join(texts, on="example_id"), per_example=per_example, reviewed=reviewed)

    return among


def _recipe(text: str) -> Recipe | None:
    try:
        body = yaml.safe_load(text)
        return recipes.load(body) if isinstance(body, dict) else None
    except (RecipeError, yaml.YAMLError):
        return None


def _quotas(pool: Pool, snapshot: Snapshot | SnapshotScan) -> pl.DataFrame:
    """Rows asked for by domain over the stages up to the snapshot's, where they were kept of all of these."""
    kept = [row for row in measures_of(pool.path, run_id=snapshot.run_id) if 1 <= row["stage"] <= snapshot.stage]
    found = pl.DataFrame(kept, schema={"stage": _I, "domain": _S, "quota": _I})
    if found["stage"].n_unique() < snapshot.stage:
        found = found.clear()
    return found.group_by("domain").agg(pl.col("quota").sum()).sort("domain")
