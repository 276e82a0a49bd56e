"""The quickstart: the whole job offline on a small long-tailed pool of support tickets, with one table at the end."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import polars as pl

from balkit import recipe as recipes
from balkit.assets import quickstart_folder, recipes_folder
from balkit.events import Notify
from balkit.planning import plan
from balkit.pool import Pool
from balkit.recipe import Recipe
from balkit.report import drawn, printed
from balkit.results import RunResult
from balkit.stages import run
from balkit.steps import validation_rows

#: The arms: name in the report -> shipped recipe.
ARMS = {"natural_random": "quickstart_natural_random", "baldistill_adaptive": "quickstart"}
BALANCED = "baldistill_adaptive"
OVERALL = ("macro", "micro", "head", "tail")


def quickstart(
    folder: Path, *, seed: int = 0, notify: Notify | None = None, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Both arms by the shipped recipes; see `compare`."""
    shipped = {arm: recipes.load(recipes_folder() / f"{name}.yaml") for arm, name in ARMS.items()}
    seeded = {arm: recipe.model_copy(update={"seed": seed}) for arm, recipe in shipped.items()}
    return compare(folder, seeded, notify=notify, say=say)


def compare(
    folder: Path, arms: Mapping[str, Recipe], *, notify: Notify | None = None, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Make the pool in `folder` (or go on with it), run the arms, print one table, export, write report.json.

    Returns the report: accuracies are fractions 0-1, money US dollars (made-up prices), time seconds.
    """
    start = time.monotonic()
    pool = open_pool(folder / "pool")
    say(printed(drawn(pool.coverage()), title="The pool: a long tail\n"))
    results = {}
    for arm, recipe in arms.items():
        made = plan(pool, recipe)
        say(
            printed(
                made.by_domain(), title=f"\n{arm}: {recipe.budget_rows} rows, {recipe.stages} stage(s), as planned\n"
            )
        )
        say("\n".join(made.notes))
        results[arm] = run(pool, recipe, notify=notify)
    found = {arm: _arm(pool, result, head=results[BALANCED].head) for arm, result in results.items()}
    say(printed(side_by_side(found), title="\nRows trained on, and accuracy (%) on the eval split\n"))
    exported = export_last(pool, results[BALANCED], folder / "export")
    report = {"arms": found, "wall_seconds": round(time.monotonic() - start, 1), "peak_rss_mib": peak_rss_mib()}
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    say(f"\n{folder / 'report.json'} holds these numbers, {exported} the balanced snapshot for TRL.")
    say(f"Go on: balkit report {pool.path} makes one page of it; balkit status {pool.path} tells of the last run;")
    say(f'       balkit sql {pool.path} "SELECT * FROM coverage_by_stage"')
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


def side_by_side(arms: Mapping[str, Mapping[str, Any]]) -> pl.DataFrame:
    """One row a domain, then macro, micro, head and tail: training rows and accuracy in percent of every arm."""
    first = next(iter(arms.values()))
    rows: list[dict[str, Any]] = [{"domain": domain} for domain in first["per_domain"]]
    rows += [{"domain": f"= {name}"} for name in OVERALL]
    for arm, body in arms.items():
        for row in rows:
            name = row["domain"].removeprefix("= ")
            here = body["per_domain"].get(row["domain"])
            accuracy = here["accuracy"] if here else body[f"{name}_accuracy"]
            row[f"{arm} rows"] = (
                here["train_rows"] if here else body["train_rows"] if name in ("macro", "micro") else None
            )
            row[f"{arm} %"] = None if accuracy is None else round(100 * accuracy, 1)
    return pl.DataFrame(rows)


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


def _arm(pool: Pool, result: RunResult, *, head: frozenset[str]) -> dict[str, Any]:
    """One arm of the report. Head and tail are those of the balanced arm, so that both arms are split alike."""
    last = result.stages[-1]
    assert last.summary is not None
    trained = dict(pool.snapshot(result.snapshot_id).rows.group_by("domain").len().iter_rows())
    per_domain = {
        domain: {**body, "train_rows": trained.get(domain, 0), "head": domain in head}
        for domain, body in last.summary["per_domain"].items()
    }
    split = {"head": [], "tail": []}  # type: dict[str, list[float]]
    for body in per_domain.values():
        split["head" if body["head"] else "tail"].append(body["accuracy"])
    summary = {
        **last.summary,
        **{f"{part}_accuracy": mean(found) if found else None for part, found in split.items()},
    }
    return {
        **summary,
        "per_domain": per_domain,
        "train_rows": last.rows,
        "calls": result.spent.calls,
        "cost_usd": result.spent.cost_microusd / 1e6,
        "run_id": result.run_id,
        "snapshot": result.snapshot_id,
    }
