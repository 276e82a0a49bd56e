"""What a training that is stopped goes on from: weights, optimizer and course, in a folder beside its checkpoint.

The state is written under a new name, flushed, and then named by `state.json` with its sha256, so that a kill leaves
the one before. A state of other inputs, or one that is not as it was written, is not used.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from balkit.errors import need
from balkit.student.checkpoint import sha256

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Memory:
    """Where the state of a training lies; `key` names its inputs. Every process reads, the main one writes."""

    folder: Path
    key: str
    every_s: float
    writes: bool

    @classmethod
    def of(cls, out: Path, *, key: str, every_s: float, writes: bool) -> Memory:
        """That of a checkpoint's folder."""
        return cls(out.parent / f".{out.name}.resume", key, every_s, writes)

    def load(self) -> dict[str, Any] | None:
        """The state that was kept last; None where there is none that fits."""
        try:
            said = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
            file = self.folder / said["file"]
            if said["key"] != self.key:
                log.info("%s: of other inputs, not used", self.folder)
                return None
            if sha256(file) != said["sha256"]:
                log.warning("%s: not as it was written; training starts again from the first step", file)
                return None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s: cannot be read (%s); training starts again from the first step", self.folder, error)
            return None
        state: dict[str, Any] = need("torch", extra="train").load(file, map_location="cpu", weights_only=True)
        return state

    def keep(self, state: Mapping[str, Any], *, step: int) -> None:
        """Replace what was kept. A disk without room is said, and training goes on."""
        if not self.writes:
            return
        file = self.folder / f"step-{step}.pt"
        unfinished = file.with_suffix(".partial")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as stream:
                need("torch", extra="train").save(dict(state), stream)
                stream.flush()
                os.fsync(stream.fileno())
            unfinished.replace(file)
            body = {"key": self.key, "step": step, "file": file.name, "sha256": sha256(file)}
            partial = self.folder / "state.json.partial"
            partial.write_text(json.dumps(body) + "\n", encoding="utf-8")
            partial.replace(self.folder / "state.json")
        except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into the latter
            with suppress(OSError):
                unfinished.unlink()
            log.warning("%s: step %d could not be kept for a resume (%s); training goes on", self.folder, step, error)
            return
        for other in self.folder.glob("step-*.pt"):
            if other != file:
                other.unlink(missing_ok=True)

    def forget(self) -> None:
        """The checkpoint is written; nothing has to be gone on with."""
        if self.writes:
            shutil.rmtree(self.folder, ignore_errors=True)


def copied(weights: Mapping[str, Any]) -> dict[str, Any]:
    """The weights as they are now, on the CPU."""
    return {name: weight.detach().to("cpu", copy=True) for name, weight in weights.items()}


def put(weights: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """The values into the weights of the same names."""
    torch = need("torch", extra="train")
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(values[name])
