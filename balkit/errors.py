"""Every error that balkit raises on purpose.

    BalkitError
    |-- RecipeError          a recipe file is wrong; all its problems at once
    |-- IngestError          rows or files that cannot enter a pool; all their problems at once
    |-- FrameError           a frame lacks a column or has one of another type
    |-- MissingExtra         an optional package is not installed
    |-- BudgetError          a budget that no quota can meet
    |-- PoolError            a pool cannot be read or written
    |   |-- PoolMissing      no pool lies there
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

A class has a `code`, which stays as it is from version to version, and a `fix`: what helps in general, with the next
command. The command line shows both below the message, and `balkit errors` lists them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import ClassVar


class BalkitError(Exception):
    """The root: `except BalkitError` catches everything that a user can mend."""

    code: ClassVar[str] = "balkit"
    fix: ClassVar[str] = "Mend the value that the message names."


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

    code: ClassVar[str] = "recipe"
    fix: ClassVar[str] = (
        "Mend the lines named; `balkit recipes schema` lists every key, `balkit recipes show "
        "quickstart` a whole recipe."
    )


class IngestError(Problems):
    """Rows cannot be added. Each problem names the file and the row or line; nothing was added."""

    code: ClassVar[str] = "ingest"
    fix: ClassVar[str] = (
        "Mend the rows or name other columns (--prompt, --answer, --domain); `balkit add ... --dry-run` only tries."
    )


class FrameError(BalkitError):
    """A frame does not have the declared columns."""

    code: ClassVar[str] = "frame"
    fix: ClassVar[str] = "Give the frame the columns that the message names, of their types."


class MissingExtra(BalkitError):
    """A package of an optional extra is not installed."""

    code: ClassVar[str] = "missing-extra"
    fix: ClassVar[str] = "Run the command in the message; `balkit doctor` lists what is installed."

    def __init__(self, module: str, extra: str) -> None:
        self.module = module
        self.extra = extra
        super().__init__(f"{module} is needed here and is not installed: pip install 'balkit[{extra}]'")


class BudgetError(BalkitError):
    """A budget or a policy's parameters admit no quotas."""

    code: ClassVar[str] = "budget"
    fix: ClassVar[str] = (
        "Change budget_rows, stages or balance in the recipe; `balkit plan POOL RECIPE` shows the quotas."
    )


class PoolError(BalkitError):
    """A pool cannot be read or written."""

    code: ClassVar[str] = "pool"
    fix: ClassVar[str] = "`balkit log POOL` lists versions and tags, `balkit doctor POOL` looks at the folder."


class PoolMissing(PoolError):
    """No pool lies where one was looked for."""

    code: ClassVar[str] = "pool-missing"
    fix: ClassVar[str] = "`balkit` alone lists the pools of this folder; `balkit add POOL FILE ...` makes one."


class PoolLocked(PoolError):
    """Another process holds the pool. `pid` is its process id where it is known."""

    code: ClassVar[str] = "pool-locked"
    fix: ClassVar[str] = (
        "`balkit status POOL` says who holds it and how far that is; wait, or end that process. Reading "
        "goes on meanwhile."
    )

    def __init__(self, message: str, *, pid: int | None = None) -> None:
        self.pid = pid
        super().__init__(message)


class PoolDamaged(PoolError):
    """What is stored differs from what was committed."""

    code: ClassVar[str] = "pool-damaged"
    fix: ClassVar[str] = "`balkit check POOL` names all that is harmed; take that from a copy of the folder."


class SqlError(PoolError):
    """A user's query failed or was refused."""

    code: ClassVar[str] = "sql"
    fix: ClassVar[str] = 'Mend the query; docs/sql.md lists the views, `balkit sql POOL "DESCRIBE examples"` shows one.'


class VectorError(BalkitError):
    """Texts or vectors that cannot be embedded, stored or searched."""

    code: ClassVar[str] = "vectors"
    fix: ClassVar[str] = "Choose another vectors.model, or delete the folder POOL/vectors: it is made again."


class TeacherError(BalkitError):
    """The teacher cannot go on. What was paid for is kept; the same command continues."""

    code: ClassVar[str] = "teacher"
    fix: ClassVar[str] = (
        "`balkit doctor --call RECIPE` tries the teacher with one tiny call; then the same command goes on."
    )


class CapReached(TeacherError):
    """The next call could pass a cap. `cap` names it (`run.usd`, `stage 2.calls`, `domain Geometry.tokens`)."""

    code: ClassVar[str] = "cap-reached"
    fix: ClassVar[str] = (
        "Raise the cap in the recipe; the same command goes on and pays nothing twice. `balkit spend "
        "POOL` shows what was paid."
    )

    def __init__(self, message: str, *, cap: str, limit: float, spent: float) -> None:
        self.cap = cap
        self.limit = limit
        self.spent = spent
        super().__init__(message)


class TeacherStopped(TeacherError):
    """Every further call would fail in the same way (401, 403, no quota, unknown model)."""

    code: ClassVar[str] = "teacher-stopped"
    fix: ClassVar[str] = (
        "Mend key, quota or model; `balkit doctor --call RECIPE` tries one tiny call; then the same command goes on."
    )


class TeacherPaused(TeacherError):
    """Some calls ran out of tries. No row was rejected for it; a later run asks again."""

    code: ClassVar[str] = "teacher-paused"
    fix: ClassVar[str] = "Run the same command again later: it asks only for what is missing."


class PriceUnknown(TeacherError):
    """No price is known for a model, and the recipe does not say that it is free."""

    code: ClassVar[str] = "price-unknown"
    fix: ClassVar[str] = (
        "Write teacher.price into the recipe: {input_usd_per_mtok: 0.15, output_usd_per_mtok: 0.60}, or free."
    )


class StudentError(BalkitError):
    """The student cannot be built, trained, read or scored."""

    code: ClassVar[str] = "student"
    fix: ClassVar[str] = (
        "Mend `student`, `train` or `evaluate` in the recipe; `balkit doctor` checks torch, GPU and disk."
    )


class RunError(BalkitError):
    """A run cannot start or go on."""

    code: ClassVar[str] = "run"
    fix: ClassVar[str] = "`balkit status POOL` says how far the run is, `balkit plan POOL RECIPE` what it would do."


class ExportError(BalkitError):
    """A snapshot cannot be written for its target."""

    code: ClassVar[str] = "export"
    fix: ClassVar[str] = "docs/exports.md says what each target takes; what was there before is untouched."


def need(module: str, *, extra: str) -> ModuleType:
    """Import an optional package, or say which extra brings it. Raises `MissingExtra`."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and not module.startswith(error.name):
            raise
        raise MissingExtra(module, extra) from error


#: What else a command may end with: code -> what it means, what helps.
OTHERS = {
    "usage": ("A command, option or argument is not one that balkit knows.", "`balkit COMMAND --help` shows them."),
    "system": (
        "The operating system refused something: no room, no permission, no such file.",
        "Mend what the message says; nothing that was stored before is lost, and the same command goes on.",
    ),
    "interrupted": ("Ctrl-C, or a signal to end.", "What was done is kept, and the same command goes on from there."),
    "defect": (
        "Something that balkit did not foresee, with a traceback.",
        "Report it with the traceback; nothing that was stored before is lost.",
    ),
}


def codes() -> dict[str, tuple[str, str]]:
    """Every code, in the order of the tree and then `OTHERS`: what it means, what helps."""
    found = {error.code: (" ".join((error.__doc__ or "").split()), error.fix) for error in _tree(BalkitError)}
    return found | OTHERS


def _tree(root: type[BalkitError]) -> Iterator[type[BalkitError]]:
    if root is not Problems:
        yield root
    for child in root.__subclasses__():
        yield from _tree(child)
