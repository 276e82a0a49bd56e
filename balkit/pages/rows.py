"""Rows of a run one by one: where they lie among the others, and where each of them came from."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from balkit import figures
from balkit.errors import BalkitError
from balkit.pages.reading import Run
from balkit.pages.sections import Section, drawn
from balkit.pool import Overview, Pool
from balkit.recipe import Vectors as Section_
from balkit.vectors import Vectors, make_encoder

#: Points of the map at most: real examples of the pool, and rows of the run.
MAP_POOL, MAP_ROWS = 1_200, 1_500
#: Rows that can be looked up at most; fewer where the page would be too large.
ROWS = 4_000
#: Characters of a text in the list of rows.
CHARS = 140

_COLUMNS = (
    "row_id", "stage", "domain", "origin", "copy", "prompt", "answer", "rationale", "example_id", "rationale_id",
    "snapshot_id", "position", "author", "purpose", "model", "call_key", "cost_usd", "parents",
)  # fmt: skip


def sample(run: Run | None) -> pl.DataFrame | None:
    """Rows of a run for both sections, evenly over domains where there are more (`Overview.row_sample`)."""
    return None if run is None else Overview(run.pool.path).row_sample(run.run_id, rows=ROWS, chars=CHARS)


def of_map(run: Run | None, pool: Pool, *, drawn_rows: pl.DataFrame | None) -> Section:
    """The pool's prompts and the run's in two dimensions."""
    overview = Overview(pool.path)
    real = overview.real_sample(rows=MAP_POOL, version=run.version if run else pool.version)
    if real.is_empty():
        return {"said": "There are no real train examples to draw."}
    rows = _taken(run, drawn_rows)
    others = real.join(rows, on="example_id", how="anti").select("prompt", group=pl.lit("pool"))
    every = pl.concat([others, rows.select("prompt", "group")])
    section = run.recipe.vectors if run and run.recipe else Section_()
    try:
        vectors = Vectors(pool.path / "vectors", make_encoder(section)).of(every["prompt"].to_list())
    except (BalkitError, OSError) as error:
        return {"said": f"There are no vectors to draw: {error}"}
    points, explained = _flat(vectors)
    groups = {
        name: [tuple(points[at]) for at in np.flatnonzero((every["group"] == name).to_numpy())]
        for name in ("pool", "head", "tail", "synthetic")
    }
    total = int(run.coverage["real"].sum()) if run else int(pool.coverage()["real"].sum())
    made = int(run.snapshots["rows"][-1]) if run else 0
    note = [f"{real.height:,} of {total:,} real examples were drawn for it at random." if total > real.height else ""]
    if run and made > rows.height:
        note.append(f"Of {made:,} rows {rows.height:,} are shown, evenly over domains, each example once.")
    figure = figures.plane(groups, explained=explained)
    return {
        "figures": [drawn("map", figure, "Prompts by their vectors, in two dimensions")],
        "encoder": " ".join([section.encoder, *(section.model or "").split("/")[-2:]]).strip(),
        "layers": [{"name": name, "points": len(of)} for name, of in groups.items() if of],
        "note": " ".join(part for part in note if part),
        "explained": explained,
    }  # fmt: skip


def of_rows(run: Run | None, *, drawn_rows: pl.DataFrame | None, rows: int) -> Section:
    """At most so many rows with their lineage, as lists in the order of `columns`."""
    if run is None or drawn_rows is None:
        return {"said": "There are no rows to look up before a run has made some."}
    short = [pl.col(name).str.head(16) for name in ("example_id", "rationale_id", "call_key")]
    parents = pl.col("parents").cast(pl.List(pl.String)).list.eval(pl.element().str.head(12)).list.join(" ")
    table = drawn_rows.head(rows).sort("position").with_columns(*short, parents, pl.col("cost_usd").round(6))
    listed = [list(row) for row in table.select(_COLUMNS).iter_rows()]
    return {"columns": _COLUMNS, "rows": listed, "total": int(run.snapshots["rows"][-1]), "shown": len(listed)}


def _taken(run: Run | None, drawn_rows: pl.DataFrame | None) -> pl.DataFrame:
    """The rows of a run that a map shows: example_id, prompt, group."""
    if run is None or drawn_rows is None:
        return pl.DataFrame(schema=dict.fromkeys(("example_id", "prompt", "group"), pl.String))
    found = drawn_rows.head(MAP_ROWS).drop_nulls("whole_prompt")
    head = pl.col("domain").is_in(sorted(run.head))
    group = pl.when(pl.col("origin") == "synthetic").then(pl.lit("synthetic")).when(head).then(pl.lit("head"))
    once = found.unique("example_id", keep="first", maintain_order=True)
    return once.select("example_id", prompt="whole_prompt", group=group.otherwise(pl.lit("tail")))


def _flat(vectors: Any) -> tuple[Any, float]:
    """The first two principal components, and the share of the variance that they hold; signs are fixed."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0)
    values, axes = np.linalg.eigh(centred.T @ centred)
    both = axes[:, ::-1][:, :2]
    both = both * np.where(both[np.abs(both).argmax(axis=0), range(both.shape[1])] < 0, -1, 1)
    return centred @ both, float(values[::-1][:2].sum() / max(values.sum(), 1e-12))
