"""balkit builds balanced distillation data sets under a fixed teacher budget, in several stages.

    import balkit

    pool = balkit.Pool.create("pools/math")
    pool.add("math.jsonl", prompt="text", answer="label", domain="source")
    result = balkit.run(pool, balkit.load_recipe("recipe.yaml"))
    balkit.export(pool.snapshot(result.snapshot_id), to=["trl"], out="out")

Nothing heavy is imported until it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from balkit.errors import BalkitError as BalkitError
    from balkit.exports import export as export
    from balkit.planning import Plan as Plan
    from balkit.planning import plan as plan
    from balkit.pool import Commit as Commit
    from balkit.pool import Pool as Pool
    from balkit.pool import Snapshot as Snapshot
    from balkit.recipe import Recipe as Recipe
    from balkit.recipe import load as load_recipe  # noqa: F401
    from balkit.stages import RunResult as RunResult
    from balkit.stages import run as run
    from balkit.teacher import Recorded as Recorded
    from balkit.teacher import Reply as Reply
    from balkit.teacher import Request as Request
    from balkit.teacher import Scripted as Scripted
    from balkit.teacher import Teacher as Teacher

__version__ = "0.1.0.dev0"

_HOME = {
    "BalkitError": ("balkit.errors", "BalkitError"),
    "Commit": ("balkit.pool", "Commit"),
    "Plan": ("balkit.planning", "Plan"),
    "Pool": ("balkit.pool", "Pool"),
    "Recipe": ("balkit.recipe", "Recipe"),
    "Recorded": ("balkit.teacher", "Recorded"),
    "Reply": ("balkit.teacher", "Reply"),
    "Request": ("balkit.teacher", "Request"),
    "RunResult": ("balkit.stages", "RunResult"),
    "Scripted": ("balkit.teacher", "Scripted"),
    "Snapshot": ("balkit.pool", "Snapshot"),
    "Teacher": ("balkit.teacher", "Teacher"),
    "export": ("balkit.exports", "export"),
    "load_recipe": ("balkit.recipe", "load"),
    "plan": ("balkit.planning", "plan"),
    "run": ("balkit.stages", "run"),
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'balkit' has no attribute {name!r}")
    module, attribute = _HOME[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
