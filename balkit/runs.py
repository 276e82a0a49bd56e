"""The runs/ folder of a pool: which runs of a recipe there are, and from which version each began."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from balkit import texts
from balkit.errors import PoolDamaged, PoolError

FILE = "run.json"
FORECAST = "forecast.json"
MEASURES = "measures.json"


@dataclass(frozen=True)
class RunRecord:
    """What identifies a run. `number` counts the runs of one recipe on a pool from 0."""

    run_id: str
    name: str
    recipe_digest: str
    base_version: int
    number: int
    started: str

    @classmethod
    def first(cls, *, name: str, recipe_digest: str, base_version: int, number: int) -> RunRecord:
        """A run that begins now."""
        started = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(
            texts.digest([recipe_digest, base_version, number]), name, recipe_digest, base_version, number, started
        )

    def folder(self, pool: Path) -> Path:
        """Where the run keeps its recipe and its report."""
        return pool / "runs" / self.run_id[:12]

    def save(self, pool: Path) -> None:
        """Write run.json."""
        write(self.folder(pool) / FILE, json.dumps(asdict(self)))


def runs_of(pool: Path, *, recipe_digest: str) -> list[RunRecord]:
    """The runs of a recipe, the oldest first. Raises `PoolDamaged` for a run.json that cannot be read."""
    found = [read_record(file) for file in sorted((pool / "runs").glob(f"*/{FILE}"))]
    return sorted((run for run in found if run.recipe_digest == recipe_digest), key=lambda run: run.number)


def record_of(pool: Path, *, run_id: str) -> RunRecord:
    """The record of a run. Raises `PoolDamaged` for one that is missing or cannot be read."""
    return read_record(pool / "runs" / run_id[:12] / FILE)


def read_record(file: Path) -> RunRecord:
    """A run.json. Raises `PoolDamaged` for one that is missing or cannot be read."""
    try:
        return RunRecord(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise PoolDamaged(
            f"{file}: is no record of a run ({error}); move the folder {file.parent} away, and the run that it was "
            "begins again, with its paid replies served from the ledger"
        ) from error


def write(file: Path, text: str) -> None:
    """Replace a file as a whole, so that a power cut leaves the old or the new one."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(file.name + ".new")
        with draft.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(file)
    except OSError as error:
        raise PoolError(f"{file}: cannot be written ({error.strerror}); what was there is as it was") from error


def forecast_of(pool: Path, *, run_id: str) -> list[dict[str, Any]] | None:
    """What was forecast when a run began (`Plan.costs`, as rows); None for a run without, by an older balkit.

    Raises `PoolDamaged` for a file that cannot be read.
    """
    return _rows(pool / "runs" / run_id[:12] / FORECAST, key="costs", what="forecast")


def measures_of(pool: Path, *, run_id: str) -> list[dict[str, Any]]:
    """What a run's rows stand for (MEASURES, as rows), of the stages of which it was kept.

    Raises `PoolDamaged` for a file that cannot be read.
    """
    return _rows(pool / "runs" / run_id[:12] / MEASURES, key="measures", what="list of measures") or []


def _rows(file: Path, *, key: str, what: str) -> list[dict[str, Any]] | None:
    try:
        rows: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))[key]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise PoolDamaged(f"{file}: is no {what} of a run ({error}); delete it, nothing else needs it") from error
    return rows
