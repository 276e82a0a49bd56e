"""Where the runs of a pool stand, read from another process: files alone, without opening or locking anything."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from balkit.errors import PoolDamaged
from balkit.runs import FILE as RECORD
from balkit.runs import RunRecord, read_record
from balkit.standing.keeping import FILE
from balkit.standing.process import is_alive
from balkit.standing.tracking import Standing
from balkit.teacher import Spent, spent_so_far

#: running, done, stopped (it said why), dead (it ended without a word: killed, or a power cut), elsewhere (on another
#: machine, so that nobody can tell), unknown (by an older balkit, which kept nothing)
State = Literal["running", "done", "stopped", "dead", "elsewhere", "unknown"]


@dataclass(frozen=True)
class RunStatus:
    """One run. `end` says why it stopped: `code`, `said` and `fix`; `command` is what goes on with it.

    `process` has `pid`, `host`, `since`, `command` and `directory` of the process that worked on it last, `changed` is
    when it last said something; both are None for a run by an older balkit.
    """

    record: RunRecord
    state: State
    standing: Standing | None
    spent: Spent | None
    changed: str | None
    process: dict[str, Any] | None
    end: dict[str, str] | None
    command: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        spent = self.spent and {
            "calls": self.spent.calls,
            "tokens": self.spent.tokens,
            "cost_usd": self.spent.cost_microusd / 1e6,
        }
        return {
            "run_id": self.record.run_id,
            "name": self.record.name,
            "started": self.record.started,
            "state": self.state,
            "changed": self.changed,
            "process": self.process,
            "standing": self.standing and self.standing.as_dict(),
            "spent": spent,
            "end": self.end,
            "command": self.command,
        }


@dataclass(frozen=True)
class Status:
    """A pool's runs, the one that something happened to last first. `holder` is the process that works on it now."""

    pool: Path
    holder: int | None
    runs: tuple[RunStatus, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"pool": str(self.pool), "holder": self.holder, "runs": [run.as_dict() for run in self.runs]}


def look(pool: Path) -> Status:
    """Where a pool's runs stand. A record that cannot be read is left out; `balkit check` is for that."""
    holder = _holder(pool / "lock")
    found = [_run(pool, file, holder=holder) for file in pool.glob(f"runs/*/{RECORD}")]
    runs = [run for run in found if run is not None]
    runs.sort(key=lambda run: (run.state == "running", run.changed or run.record.started), reverse=True)
    return Status(pool, holder, tuple(runs))


def _holder(lock: Path) -> int | None:
    """The living process whose number stands in a lock file: it is taken out when a run ends, unless that is killed."""
    try:
        said = lock.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
    return int(said) if said.isdecimal() and is_alive(int(said)) else None


def _run(pool: Path, file: Path, *, holder: int | None) -> RunStatus | None:
    try:
        record = read_record(file)
    except PoolDamaged:
        return None
    kept = _kept(file.parent)
    process, end = kept.get("process"), kept.get("end")
    return RunStatus(
        record,
        _state(process, end, is_done=(file.parent / "report.json").exists(), holder=holder),
        _standing(kept.get("standing")),
        spent_so_far(pool / "calls.sqlite", record.run_id),
        kept.get("changed"),
        process,
        end,
        (process or {}).get("command") or shlex.join(["balkit", "run", str(pool), str(file.parent / "recipe.yaml")]),
    )


def _kept(folder: Path) -> dict[str, Any]:
    try:
        body = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return body if isinstance(body, dict) else {}


def _standing(body: dict[str, Any] | None) -> Standing | None:
    try:
        return None if body is None else Standing.from_dict(body)
    except (KeyError, TypeError, ValueError):  # by another version of balkit
        return None


def _state(process: dict[str, Any] | None, end: dict[str, str] | None, *, is_done: bool, holder: int | None) -> State:
    if end is not None:
        return "done" if end.get("how") == "done" else "stopped"
    pid = None if process is None else process.get("pid")
    if process is None or not isinstance(pid, int):
        return "done" if is_done else "unknown"
    alive = is_alive(pid, born=process.get("birth"), host=process.get("host"))
    if alive is None:
        return "elsewhere"
    return "running" if alive and holder in (None, pid) else "dead"
