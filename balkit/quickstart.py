"""The quickstart: the whole job offline on a small long-tailed pool of support tickets, with one table at the end."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from balkit import recipe as recipes
from balkit.assets import quickstart_folder, recipes_folder
from balkit.planning import plan
from balkit.pool import Pool
from balkit.report import table
from balkit.stages import Notify, RunResult, run
from balkit.steps import validation_rows

#: The arms: name in the report -> shipped recipe.
ARMS = {"natural_random": "quickstart_natural_random", "baldistill_adaptive": "quickstart"}


def quickstart(
    folder: Path, *, seed: int = 0, notify: Notify | None = None, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Make the pool in `folder` (or go on with it), run both arms, print one table, export, write report.json.

    Returns the report: accuracies are fractions 0-1, money US dollars (made-up prices), time seconds.
    """
    start = time.monotonic()
    pool = open_pool(folder / "pool")
    say(table(pool.coverage(), title="The pool: a long tail"))
    results = {}
    for arm, name in ARMS.items():
        recipe = recipes.load(recipes_folder() / f"{name}.yaml").model_copy(update={"seed": seed})
        made = plan(pool, recipe)
        say(table(made.rows, title=f"The plan of {name}: {recipe.budget_rows} rows, {recipe.stages} stages"))
        say("\n".join(made.notes))
        results[arm] = run(pool, recipe, notify=notify)
    say(table(compare(pool, results), title="Rows and accuracy (%) of both arms on the eval split"))
    exported = export_last(pool, results["baldistill_adaptive"], folder / "export")
    report = {
        "arms": {arm: _arm(pool, result) for arm, result in results.items()},
        "wall_seconds": round(time.monotonic() - start, 1),
        "peak_rss_mib": peak_rss_mib(),
    }
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    say(f"{folder / 'report.json'}: the numbers above\n{exported}: the last snapshot for TRL")
    return report


def open_pool(path: Path) -> Pool:
    """The quickstart's pool, made on the first call."""
    pool = Pool.open(path) if (path / "pool.duckdb").exists() else Pool.create(path)
    present = set(pool.examples()["split"])
    for split in ("train", "dev", "eval"):
        if split not in present:
            file = quickstart_folder() / f"{split}.jsonl"
            pool.add(file, prompt="ticket", answer="topic", domain="topic", split=split, message=f"quickstart {split}")
    return pool


def compare(pool: Pool, results: dict[str, RunResult]) -> pl.DataFrame:
    """One row a domain, then macro, micro, head and tail: rows and accuracy in percent of every arm."""
    parts = []
    for arm, result in results.items():
        summary = result.stages[-1].summary or {}
        rows = dict(pool.snapshot(result.snapshot_id).rows.group_by("domain").len().iter_rows())
        cells = [(domain, rows.get(domain, 0), 100 * b["accuracy"]) for domain, b in summary["per_domain"].items()]
        cells.sort()
        for name in ("macro", "micro", "head", "tail"):
            value = summary[f"{name}_accuracy"]
            cells.append((name, sum(rows.values()), None if value is None else 100 * value))
        schema = {"domain": pl.String, f"{arm} rows": pl.Int64, f"{arm} %": pl.Float64}
        parts.append(pl.DataFrame(cells, schema=schema, orient="row"))
    joined = parts[0]
    for part in parts[1:]:
        joined = joined.join(part, on="domain", maintain_order="left")
    return joined


def export_last(pool: Pool, result: RunResult, out: Path) -> Path:
    """The last snapshot for TRL, with the dev split as validation."""
    from balkit.exports import Options, export

    snapshot = pool.snapshot(result.snapshot_id)
    options = Options(overwrite=True)
    return export(
        snapshot, to=["trl"], out=out, validation=validation_rows(pool, at=snapshot.version), options=options
    ).out


def peak_rss_mib() -> float:
    """The most memory this process has held, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024**2 if sys.platform == "darwin" else 1024), 1)


def _arm(pool: Pool, result: RunResult) -> dict[str, Any]:
    summary = result.stages[-1].summary or {}
    return {
        **summary,
        "train_rows": result.stages[-1].rows,
        "calls": result.spent.calls,
        "cost_usd": result.spent.cost_microusd / 1e6,
        "run_id": result.run_id,
        "snapshot": result.snapshot_id,
    }
