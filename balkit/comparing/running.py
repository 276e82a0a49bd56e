"""The cells of an experiment one after another, each kept in a file of its own as soon as it is measured."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

import polars as pl

from balkit import texts
from balkit.comparing.elsewhere import read, refuse_unequal, taken
from balkit.comparing.experiment import SHIPPED, Experiment, chosen, load
from balkit.comparing.measuring import Measuring
from balkit.comparing.summary import differences, markdown, means, natural, shown
from balkit.errors import MissingExtra, PoolError, RunError
from balkit.events import Event, Notify
from balkit.figures import arms_figure
from balkit.pool import Pool
from balkit.quickstart import open_pool
from balkit.runs import write
from balkit.teacher import Teacher

#: Whose versions stand beside the results.
_PACKAGES = ("torch", "transformers", "peft", "numpy", "polars", "duckdb")


@dataclass(frozen=True)
class Comparison:
    """What came of an experiment so far. `missing` names the cells that have not run."""

    body: dict[str, Any]  # what results.json holds
    out: Path
    missing: tuple[str, ...]

    @property
    def cells(self) -> list[dict[str, Any]]:
        """One measured cell each: arm, budget, seed, rows, steps, accuracies (0-1), cost (US dollars), seconds."""
        found: list[dict[str, Any]] = self.body["cells"]
        return found

    def table(self) -> pl.DataFrame:
        """One row a budget and arm: means with 95 % intervals over seeds, in percent, and paired differences."""
        return shown(self.body)


def compare(
    experiment: Experiment | str | Path,
    *,
    out: str | Path | None = None,
    only: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    budgets: Sequence[int] | None = None,
    results: Sequence[str | Path] = (),
    run: bool = True,
    teacher: Teacher | None = None,
    notify: Notify | None = None,
    say: Callable[[str], None] = print,
) -> Comparison:
    """Run an experiment's cells, or go on with them, and write results.json, results.md and a figure into `out`.

    `out` is comparisons/<name> if not given. Cells that are there are read back; one that was killed goes on where its
    run stood. `only`, `seeds` and `budgets` choose cells; without `run` none is run and what is there is put together.
    `results` are results.json files of the same experiment, measured elsewhere: all their cells that `out` lacks are
    copied into it, of a cell in two files that of the first. `teacher` stands in for the recipe's own. Raises
    `RunError` for an arm, seed or budget that is not there, for results that cannot be read or are of other examples,
    and for a cell whose rows, training steps or head domains are not those of the others at its budget; and what
    `balkit.run` raises.
    """
    plan = experiment if isinstance(experiment, Experiment) else load(experiment)
    folder = Path(out) if out is not None else Path("comparisons") / plan.name
    wanted = chosen(plan, only=only, seeds=seeds, budgets=budgets)
    elsewhere = [read(Path(file)) for file in results]
    pool = _pool(plan, folder)
    source = pool.examples(origin="source")
    material = texts.digest(sorted(source["example_id"]))
    done = _finished(plan, folder, material=material)
    for found in elsewhere:
        new = taken(found, plan.cells(), done=done, material=material)
        for name, body in new.items():
            write(_file(folder, name), json.dumps(body, indent=1))
        done |= new
        say(found.told(new, versions=versions()))
    if run:
        todo = [cell for cell in wanted if cell.name not in done]
        clock = _Clock(list(done.values()), left=[cell.arm for cell in todo])
        say(f"{plan.name}: {len(wanted)} cells, {len(wanted) - len(todo)} of them there already")
        told = _Parts(notify or (lambda event: None))
        measuring = Measuring(pool, plan, teacher=teacher, notify=told)
        for number, cell in enumerate(todo, start=1):
            told.part = f"cell {number} of {len(todo)}: {cell}"
            one = measuring.of(cell) | {"material": material}
            refuse_unequal(one, done.values())
            write(_file(folder, cell.name), json.dumps(one, indent=1))
            done[cell.name] = one
            said = f"macro {100 * one['macro']:.1f} %, {one['seconds']:.0f} s"
            say(f"[{number}/{len(todo)}] {cell}: {said}; {clock.after(cell.arm, one['seconds'])}")
    train = source.filter(pl.col("split") == "train").group_by("domain").len()
    return _result(plan, folder, done, shares=dict(train.iter_rows()))


def _finished(experiment: Experiment, out: Path, *, material: str) -> dict[str, dict[str, Any]]:
    """The measured cells of an experiment in a folder by name, in the experiment's order.

    A cell of another recipe than the experiment's now is left out, and so runs again. Raises `RunError` for cells of
    other examples than `material` says the pool has.
    """
    found = {}
    for cell in experiment.cells():
        file = _file(out, cell.name)
        if not file.exists():
            continue
        try:
            body = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(f"{file}: is no measured cell ({error}); delete it, and it is measured again") from error
        if body["recipe_digest"] != cell.recipe.run_digest():
            continue
        if body["material"] != material:
            raise RunError(f"{file}: the pool's examples were others then; compare into another folder (--out)")
        found[cell.name] = body
    return found


def _file(folder: Path, name: str) -> Path:
    return folder / "cells" / f"{name}.json"


def _pool(experiment: Experiment, folder: Path) -> Pool:
    if experiment.pool == SHIPPED:
        folder.mkdir(parents=True, exist_ok=True)
        return open_pool(folder / "pool")
    try:
        return Pool.open(experiment.pool)
    except PoolError as error:
        raise RunError(f"experiment {experiment.name}: {error}") from error


def _result(
    experiment: Experiment, folder: Path, done: dict[str, dict[str, Any]], *, shares: dict[str, int]
) -> Comparison:
    order = [cell.name for cell in experiment.cells() if cell.name in done]
    cells = [done[name] | {"natural": natural(done[name]["per_domain"], shares)} for name in order]
    body = {
        "experiment": experiment.model_dump(mode="json", exclude={"pool", "base"}) | {"base": experiment.base.name},
        "versions": versions(),
        "head": {str(cell["budget"]): cell["head_domains"] for cell in cells},
        "means": means(cells),
        "differences": differences(cells, from_arms=[experiment.baseline, *filter(None, [experiment.against])]),
        "cells": [{key: value for key, value in cell.items() if key != "head_domains"} for cell in cells],
    }
    missing = tuple(cell.name for cell in experiment.cells() if cell.name not in done)
    result = Comparison(body, folder, missing)
    if cells:
        write(folder / "results.json", _lines(body))
        write(folder / "results.md", markdown(body))
        try:
            arms_figure(body, folder / "figure.svg")
        except MissingExtra:
            (folder / "figure.svg").unlink(missing_ok=True)
    return result


def _lines(body: dict[str, Any]) -> str:
    """JSON with a line for each cell, mean and difference: small, and its changes can be read."""
    parts = []
    for key, value in body.items():
        rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in value) if isinstance(value, list) else ""
        parts.append(f"{json.dumps(key)}: " + (f"[\n{rows}\n]" if rows else json.dumps(value, ensure_ascii=False)))
    return "{" + ",\n".join(parts) + "}\n"


@cache
def versions() -> dict[str, str]:
    """Of balkit, Python and what trains and chooses."""
    found = {"python": platform.python_version()}
    for package in ("balkit", *_PACKAGES):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


class _Parts:
    """Passes events on with the cell that they are of."""

    def __init__(self, notify: Notify) -> None:
        self._notify = notify
        self.part = ""

    def __call__(self, event: Event) -> None:
        self._notify(replace(event, part=self.part))


class _Clock:
    """How long the cells that are left will take, by those of the same arm, else by all."""

    def __init__(self, done: Sequence[dict[str, Any]], *, left: Sequence[str]) -> None:
        self._seconds: dict[str, list[float]] = {}
        self._left = list(left)
        for cell in done:
            self._seconds.setdefault(cell["arm"], []).append(cell["seconds"])
        self._start = time.monotonic()

    def after(self, arm: str, seconds: float) -> str:
        """What is left once this cell is done."""
        self._seconds.setdefault(arm, []).append(seconds)
        self._left.remove(arm)
        every = mean(mean(values) for values in self._seconds.values())
        left = sum(mean(self._seconds[name]) if name in self._seconds else every for name in self._left)
        return (
            f"about {left / 60:.0f} min left"
            if self._left
            else f"{(time.monotonic() - self._start) / 60:.0f} min in all"
        )
