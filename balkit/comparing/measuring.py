"""One cell: rows by the recipe, a student trained on them, its answers to eval, what it cost."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from balkit import selection, stages, steps, student
from balkit.basis import Basis
from balkit.comparing.experiment import Cell, Experiment
from balkit.errors import RunError
from balkit.events import Event, Notify
from balkit.pool import Pool
from balkit.recipe import Recipe
from balkit.teacher import Teacher


@dataclass(frozen=True)
class Measuring:
    """What the cells of an experiment share."""

    pool: Pool
    experiment: Experiment
    teacher: Teacher | None
    notify: Notify

    def of(self, cell: Cell) -> dict[str, Any]:
        """The cell's numbers: accuracies are fractions 0-1, money US dollars, time seconds.

        `cost_usd` is what the arm would have cost alone, `paid_usd` what this cell paid for what no other had asked.
        """
        started, head = time.monotonic(), self.head(cell.recipe.budget_rows)
        body = self.trained(cell.recipe) if cell.trained else self.untrained(cell.recipe)
        summary = student.summarise(body.pop("evaluations"), head=head)
        counts = body.pop("train_rows")
        per_domain = {
            name: {"accuracy": round(one["accuracy"], 4), "rows": one["rows"], "train_rows": counts.get(name, 0)}
            for name, one in summary["per_domain"].items()
        }
        return {
            "arm": cell.arm,
            "budget": cell.recipe.budget_rows,
            "seed": cell.recipe.seed,
            "recipe_digest": cell.recipe.run_digest(),
            **{name: summary[f"{name}_accuracy"] for name in ("macro", "micro", "head", "tail")},  # type: ignore[literal-required]
            **body,
            "per_domain": per_domain,
            "head_domains": sorted(head),
            "seconds": round(time.monotonic() - started, 1),
        }

    def trained(self, recipe: Recipe) -> dict[str, Any]:
        """All stages; students before the last one are trained only where the recipe goes by them."""
        goes_by = needs_students(recipe)
        result = stages.run(self.pool, recipe, teacher=self.teacher, train=goes_by, evaluate="last", notify=self.notify)
        rows = self.pool.snapshot(result.snapshot_id).rows
        if rows.height < recipe.budget_rows:
            raise RunError(
                f"{recipe.name}, seed {recipe.seed}: {rows.height:,} of {recipe.budget_rows:,} rows could be had, and "
                f"arms are compared at equal rows; {result.refused}. `repeat` at the end of `fill` always gives them"
            )
        last = steps.train(self.pool, result.snapshot_id, recipe=recipe, progress=self.on_step)
        is_copy, is_real = pl.col("copy") > 0, pl.col("origin") == "source"
        return {
            "rows": rows.height,
            "steps": last.steps,
            "trainable_tokens": last.trainable_tokens,
            "real": rows.filter(~is_copy & is_real).height,
            "synthetic": rows.filter(~is_copy & ~is_real).height,
            "repeats": rows.filter(is_copy).height,
            "train_rows": dict(rows.group_by("domain").len().iter_rows()),
            "evaluations": steps.measured(self.pool, last.path, recipe=recipe, progress=self.on_rows).found,
            "run_id": result.run_id,
            **self.costs(result.run_id),
        }

    def untrained(self, recipe: Recipe) -> dict[str, Any]:
        """The student as it is before training."""
        folder = steps.untrained(self.pool, recipe=recipe, basis=Basis.of(self.pool, recipe))
        found = steps.measured(self.pool, folder, recipe=recipe, progress=self.on_rows).found
        none = dict.fromkeys(
            ("rows", "steps", "trainable_tokens", "real", "synthetic", "repeats", "calls", "bought"), 0
        )
        return {**none, "cost_usd": 0.0, "paid_usd": 0.0, "train_rows": {}, "evaluations": found}

    def costs(self, run_id: str) -> dict[str, Any]:
        """Calls and dollars of a run, with and without what the ledger served."""
        every = self.pool.calls()
        mine = every.filter(pl.col("run_id") == run_id)
        charged = every.group_by("key").agg(pl.col("cost_microusd").max())
        alone = mine.select("key").unique().join(charged, on="key")["cost_microusd"].sum()
        return {
            "calls": mine["key"].n_unique(),
            "bought": mine.filter(pl.col("status") != "cached").height,
            "cost_usd": float(alone) / 1e6,
            "paid_usd": float(mine["cost_microusd"].sum()) / 1e6,
        }

    def head(self, budget: int) -> frozenset[str]:
        """The domains whose quotas real examples can meet, in the arm that the experiment splits by."""
        if budget not in self._heads:
            recipe = self.experiment.recipe(self.experiment.split_by, budget=budget)
            self._heads[budget] = Basis.of(self.pool, recipe).head
        return self._heads[budget]

    @cached_property
    def _heads(self) -> dict[int, frozenset[str]]:
        return {}

    def on_step(self, step: int, steps: int, loss: float) -> None:
        self.notify(Event(0, 0, "train", f"loss {loss:.3f}", done=step, total=steps))

    def on_rows(self, done: int, total: int) -> None:
        self.notify(Event(0, 0, "evaluate", done=done, total=total))


def needs_students(recipe: Recipe) -> bool:
    """Whether what a stage takes depends on the student of the one before; with a scorer of its own only quotas may."""
    scored = recipe.select.scorer is None and selection.needs_scores(recipe.select.then) is not None
    return (scored or recipe.balance.policy == "feedback") and recipe.stages > 1
