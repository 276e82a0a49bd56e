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
    from balkit.assets import quickstart_folder as quickstart_folder
    from balkit.auditing import Audit as Audit
    from balkit.auditing import audit as audit
    from balkit.basis import Basis as Basis
    from balkit.comparing import compare as compare
    from balkit.errors import BalkitError as BalkitError
    from balkit.exports import export as export
    from balkit.pages import write_report as write_report
    from balkit.planning import Plan as Plan
    from balkit.planning import plan as plan
    from balkit.pool import Commit as Commit
    from balkit.pool import Pool as Pool
    from balkit.pool import Snapshot as Snapshot
    from balkit.pool import SnapshotDraft as SnapshotDraft
    from balkit.pool import answered as answered
    from balkit.pool import training_rows as training_rows
    from balkit.recipe import Recipe as Recipe
    from balkit.recipe import dump as dump_recipe  # noqa: F401
    from balkit.recipe import load as load_recipe  # noqa: F401
    from balkit.report import progress as progress
    from balkit.results import RunResult as RunResult
    from balkit.scoring import score as score
    from balkit.selection import Evidence as Evidence
    from balkit.selection import select as select
    from balkit.stages import run as run
    from balkit.steps import channel as channel
    from balkit.steps import evaluate as evaluate
    from balkit.steps import train as train
    from balkit.steps import validation_rows as validation_rows
    from balkit.student import summarise as summarise
    from balkit.synthesize import Channel as Channel
    from balkit.synthesize import Sources as Sources
    from balkit.synthesize import rationales as rationales
    from balkit.synthesize import write_examples as write_examples
    from balkit.teacher import Ledger as Ledger
    from balkit.teacher import Recorded as Recorded
    from balkit.teacher import Reply as Reply
    from balkit.teacher import Request as Request
    from balkit.teacher import Scripted as Scripted
    from balkit.teacher import Teacher as Teacher
    from balkit.teacher import make_teacher as make_teacher
    from balkit.vectors import Vectors as Vectors
    from balkit.vectors import make_encoder as make_encoder

__version__ = "0.1.0.dev0"

_HOME = {
    "answered": ("balkit.pool", "answered"),
    "Audit": ("balkit.auditing", "Audit"),
    "audit": ("balkit.auditing", "audit"),
    "BalkitError": ("balkit.errors", "BalkitError"),
    "Basis": ("balkit.basis", "Basis"),
    "Channel": ("balkit.synthesize", "Channel"),
    "channel": ("balkit.steps", "channel"),
    "Commit": ("balkit.pool", "Commit"),
    "compare": ("balkit.comparing", "compare"),
    "dump_recipe": ("balkit.recipe", "dump"),
    "evaluate": ("balkit.steps", "evaluate"),
    "Evidence": ("balkit.selection", "Evidence"),
    "export": ("balkit.exports", "export"),
    "Ledger": ("balkit.teacher", "Ledger"),
    "load_recipe": ("balkit.recipe", "load"),
    "make_encoder": ("balkit.vectors", "make_encoder"),
    "make_teacher": ("balkit.teacher", "make_teacher"),
    "Plan": ("balkit.planning", "Plan"),
    "plan": ("balkit.planning", "plan"),
    "Pool": ("balkit.pool", "Pool"),
    "quickstart_folder": ("balkit.assets", "quickstart_folder"),
    "progress": ("balkit.report", "progress"),
    "rationales": ("balkit.synthesize", "rationales"),
    "Recipe": ("balkit.recipe", "Recipe"),
    "Recorded": ("balkit.teacher", "Recorded"),
    "Reply": ("balkit.teacher", "Reply"),
    "Request": ("balkit.teacher", "Request"),
    "run": ("balkit.stages", "run"),
    "RunResult": ("balkit.results", "RunResult"),
    "score": ("balkit.scoring", "score"),
    "Scripted": ("balkit.teacher", "Scripted"),
    "select": ("balkit.selection", "select"),
    "Snapshot": ("balkit.pool", "Snapshot"),
    "SnapshotDraft": ("balkit.pool", "SnapshotDraft"),
    "Sources": ("balkit.synthesize", "Sources"),
    "summarise": ("balkit.student", "summarise"),
    "Teacher": ("balkit.teacher", "Teacher"),
    "train": ("balkit.steps", "train"),
    "training_rows": ("balkit.pool", "training_rows"),
    "validation_rows": ("balkit.steps", "validation_rows"),
    "Vectors": ("balkit.vectors", "Vectors"),
    "write_examples": ("balkit.synthesize", "write_examples"),
    "write_report": ("balkit.pages", "write_report"),
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'balkit' has no attribute {name!r}")
    module, attribute = _HOME[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
