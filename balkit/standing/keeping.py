"""A run's status.json: replaced about once a second, so that another process can tell where the run stands."""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from balkit.errors import OTHERS, BalkitError
from balkit.events import Event, Notify
from balkit.standing.process import birth
from balkit.standing.tracking import Tracker

FILE = "status.json"
#: Seconds between two writes.
EVERY_S = 1.0


class Keeper:
    """Passes events on, and keeps where the run stands in its folder. A full disk or a read-only folder is no error."""

    def __init__(self, notify: Notify) -> None:
        self._notify = notify
        self._tracker = Tracker()
        self._folder: Path | None = None
        self._written = -EVERY_S
        self._about = {
            "pid": os.getpid(),
            "birth": birth(os.getpid()),
            "host": socket.gethostname(),
            "since": _now(),
            "command": own_command(),
            "directory": str(Path.cwd()),
        }

    def note(self, event: Event) -> None:
        """Pass it on, then write where that is due."""
        self._notify(event)
        is_new = self._tracker.key != (event.stage, event.step)
        self._tracker.note(event)
        if is_new or time.monotonic() - self._written >= EVERY_S:
            self._write(None)

    @contextmanager
    def into(self, folder: Path) -> Iterator[None]:
        """Keep it in a run's folder from now on, and how the run ended."""
        self._folder = folder
        self._write(None)
        try:
            yield
        except BalkitError as error:
            self._write({"how": "stopped", "code": error.code, "said": str(error), "fix": error.fix})
            raise
        except (KeyboardInterrupt, SystemExit):
            fix = OTHERS["interrupted"][1]
            self._write({"how": "stopped", "code": "interrupted", "said": "interrupted", "fix": fix})
            raise
        except Exception as error:
            code = "system" if isinstance(error, OSError) else "defect"
            said = f"{type(error).__name__}: {error}"
            self._write({"how": "stopped", "code": code, "said": said, "fix": OTHERS[code][1]})
            raise
        self._write({"how": "done"})

    def _write(self, end: dict[str, str] | None) -> None:
        """Without a flush to the disk: a power cut may take it, and the run does not wait."""
        if self._folder is None:
            return
        self._written = time.monotonic()
        standing = None if self._tracker.key is None else self._tracker.now().as_dict()
        body: dict[str, Any] = {"process": self._about, "changed": _now(), "standing": standing, "end": end}
        file = self._folder / FILE
        draft = file.with_name(FILE + ".new")
        with suppress(OSError):
            draft.write_text(json.dumps(body, ensure_ascii=False, indent=1), encoding="utf-8", errors="replace")
            draft.replace(file)


def own_command() -> str | None:
    """The command line that goes on with what this process does; None where it is no command of balkit's."""
    program = Path(sys.argv[0]) if sys.argv else Path()
    if program.stem != "balkit" and program.parts[-2:] != ("balkit", "__main__.py"):
        return None
    return shlex.join(["balkit", *(part for part in sys.argv[1:] if part != "--new")])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
