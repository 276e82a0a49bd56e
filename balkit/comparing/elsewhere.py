"""Cells that another machine measured, out of its results.json, and what makes cells comparable."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from balkit.comparing.experiment import Cell
from balkit.errors import RunError

#: What a cell must say of itself to stand beside others; head and tail are None where no domain is either.
_NUMBERS = ("macro", "micro", "rows", "steps", "real", "synthetic", "repeats", "cost_usd", "seconds")
_NEEDED = {*_NUMBERS, "arm", "budget", "seed", "recipe_digest", "material", "head", "tail", "per_domain"}


@dataclass(frozen=True)
class Results:
    """A results.json: its cells by name, each with its `head_domains`, and the versions that measured them."""

    file: Path
    cells: Mapping[str, dict[str, Any]]
    versions: Mapping[str, str]

    def told(self, new: Mapping[str, Any], *, versions: Mapping[str, str]) -> str:
        """What came of it, for people."""
        said = f"{self.file}: {len(new)} of {len(self.cells)} cells taken"
        if len(new) < len(self.cells):
            said += "; the others are there already, or of no cell of this experiment as it is now"
        others = [f"{name} {version}" for name, version in self.versions.items() if versions.get(name) != version]
        return said + (f"; measured with {', '.join(others)}, which is not what is here" if others else "")


def read(file: Path) -> Results:
    """A results.json. Raises `RunError` with what is wrong with it."""
    fix = "give a results.json that `balkit compare` wrote"
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{file}: cannot be read ({error.strerror}); {fix}") from error
    except ValueError as error:
        raise RunError(f"{file}: no JSON ({error}); {fix}") from error
    parts = body if isinstance(body, dict) else {}
    cells, heads, versions = parts.get("cells"), parts.get("head"), parts.get("versions")
    if not (isinstance(cells, list) and isinstance(heads, dict) and isinstance(versions, dict)):
        raise RunError(f"{file}: lacks `cells`, `head` or `versions`; {fix}")
    found = {}
    for number, cell in enumerate(cells, start=1):
        lacking = sorted(_NEEDED - set(cell)) if isinstance(cell, dict) else sorted(_NEEDED)
        lacking += [] if lacking else [name for name in _NUMBERS if not isinstance(cell[name], int | float)]
        lacking += [] if lacking or str(cell["budget"]) in heads else [f"head of {cell['budget']} rows"]
        if lacking:
            raise RunError(f"{file}: cell {number} lacks {', '.join(lacking)}; {fix}")
        name = f"{cell['arm']}.{cell['budget']}.s{cell['seed']}"
        found[name] = cell | {"head_domains": heads[str(cell["budget"])]}
    return Results(file, found, versions)


def taken(
    results: Results, planned: Sequence[Cell], *, done: Mapping[str, dict[str, Any]], material: str
) -> dict[str, dict[str, Any]]:
    """The cells by name that are planned with the same recipe and not `done`.

    Raises `RunError` where one is of other examples than `material`, or does not compare with what is done.
    """
    new: dict[str, dict[str, Any]] = {}
    for plan in planned:
        cell = results.cells.get(plan.name)
        if cell is None or plan.name in done or cell["recipe_digest"] != plan.recipe.run_digest():
            continue
        if cell["material"] != material:
            raise RunError(
                f"{results.file}: {plan} is of other examples than this pool's; give results of the same pool"
            )
        try:
            refuse_unequal(cell, [*done.values(), *new.values()])
        except RunError as error:
            raise RunError(f"{results.file}: {error}") from None
        new[plan.name] = cell
    return new


def refuse_unequal(found: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> None:
    """Arms that were trained longer than others say nothing of their rows, nor do tails of other domains compare."""
    who = f"arm {found['arm']}, seed {found['seed']}"
    for other in others:
        if other["budget"] != found["budget"]:
            continue
        them = f"{other['arm']}, seed {other['seed']}"
        if other["steps"] and found["steps"] not in (0, other["steps"]):
            raise RunError(
                f"{who}: {found['steps']:,} training steps, and {other['steps']:,} of {them}; give `train` the same "
                "batch_size, epochs and max_steps in all arms"
            )
        if other["head_domains"] != found["head_domains"]:
            raise RunError(
                f"{who}: other domains are head than for {them}, since `against` or `baseline` or its recipe was "
                "another; compare into another folder (--out)"
            )
