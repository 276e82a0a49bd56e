"""The lock "one paying process per pool": the operating system's, so that it ends with its process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from balkit.errors import PoolLocked


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the file `lock`, with this process's PID in it. Raises `PoolLocked` with the PID of who holds it."""
    import fcntl

    with (folder / "lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            said = file.read().strip()
            message = f"{folder}: process {said or '(unknown)'} is running on this pool; wait for it, or end it"
            raise PoolLocked(message, pid=int(said) if said.isdecimal() else None) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)
