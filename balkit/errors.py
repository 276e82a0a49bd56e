"""Every error that balkit raises on purpose.

    BalkitError
    |-- RecipeError          a recipe file is wrong; all its problems at once
    |-- IngestError          rows or files that cannot enter a pool; all their problems at once
    |-- FrameError           a frame lacks a column or has one of another type
    |-- MissingExtra         an optional package is not installed
    |-- BudgetError          a budget that no quota can meet
    |-- PoolError            a pool cannot be read or written
    |   |-- PoolLocked       another process holds it
    |   |-- PoolDamaged      what is stored is not what was committed
    |   `-- SqlError         a query by the user failed or was refused
    |-- VectorError          texts or vectors that cannot be embedded or searched
    |-- TeacherError         the teacher cannot go on
    |   |-- CapReached       the next call could pass a cap on calls, tokens or money
    |   |-- TeacherStopped   every further call would fail too (no key, no quota, unknown model)
    |   |-- TeacherPaused    some calls ran out of tries; a later run asks again
    |   `-- PriceUnknown     a model without a price
    |-- StudentError         the student cannot be built, trained or read
    |-- RunError             a run cannot start or go on
    `-- ExportError          a snapshot cannot be written for its target

Each says what happened, the value, where, and what to do next. All of them are for what a user can
mend; anything else that escapes from balkit is a defect of balkit.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType


class BalkitError(Exception):
    """The root: `except BalkitError` catches everything that a user can mend."""


class Problems(BalkitError):
    """An error that lists everything found wrong, not only the first thing.

    `problems` holds one line each; `total` counts them, also those beyond what an error keeps.
    """

    def __init__(self, what: str, problems: Sequence[str], *, total: int | None = None) -> None:
        self.what = what
        self.problems = list(problems)
        self.total = len(self.problems) if total is None else total
        shown = [f"  - {line}" for line in self.problems[:50]]
        if self.total > len(shown):
            shown.append(f"  ... and {self.total - len(shown):,} more")
        super().__init__("\n".join([what, *shown]))


class RecipeError(Problems):
    """A recipe is wrong. Each problem starts with its path in the file."""


class IngestError(Problems):
    """Rows cannot be added. Each problem names the file and the row or line; nothing was added."""


class FrameError(BalkitError):
    """A frame does not have the declared columns."""


class MissingExtra(BalkitError):
    """A package of an optional extra is not installed."""

    def __init__(self, module: str, extra: str) -> None:
        self.module = module
        self.extra = extra
        super().__init__(f"{module} is needed here and is not installed: pip install 'balkit[{extra}]'")


class BudgetError(BalkitError):
    """A budget or a policy's parameters admit no quotas."""


class PoolError(BalkitError):
    """A pool cannot be read or written."""


class PoolLocked(PoolError):
    """Another process holds the pool. `pid` is its process id where it is known."""

    def __init__(self, message: str, *, pid: int | None = None) -> None:
        self.pid = pid
        super().__init__(message)


class PoolDamaged(PoolError):
    """What is stored differs from what was committed."""


class SqlError(PoolError):
    """A user's query failed or was refused."""


class VectorError(BalkitError):
    """Texts or vectors that cannot be embedded, stored or searched."""


class TeacherError(BalkitError):
    """The teacher cannot go on. What was paid for is kept; the same command continues."""


class CapReached(TeacherError):
    """The next call could pass a cap. `cap` names it (`run.usd`, `stage 2.calls`, `domain Geometry.tokens`)."""

    def __init__(self, message: str, *, cap: str, limit: float, spent: float) -> None:
        self.cap = cap
        self.limit = limit
        self.spent = spent
        super().__init__(message)


class TeacherStopped(TeacherError):
    """Every further call would fail in the same way (401, 403, no quota, unknown model)."""


class TeacherPaused(TeacherError):
    """Some calls ran out of tries. No row was rejected for it; a later run asks again."""


class PriceUnknown(TeacherError):
    """No price is known for a model, and the recipe does not say that it is free."""


class StudentError(BalkitError):
    """The student cannot be built, trained, read or scored."""


class RunError(BalkitError):
    """A run cannot start or go on."""


class ExportError(BalkitError):
    """A snapshot cannot be written for its target."""


def need(module: str, *, extra: str) -> ModuleType:
    """Import an optional package, or say which extra brings it. Raises `MissingExtra`."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and not module.startswith(error.name):
            raise
        raise MissingExtra(module, extra) from error
