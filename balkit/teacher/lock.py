"""The operating system's lock on a ledger: one paying process at a time. A killed process leaves none behind."""

from __future__ import annotations

import os
from pathlib import Path

from balkit.errors import PoolLocked


class Lock:
    """An exclusive lock on a file beside the ledger. The file stays; only the lock on it counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def acquire(self) -> None:
        """Take the lock or raise `PoolLocked` with the holder's process id."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(file)
        except OSError as error:
            holder = os.pread(file, 20, 1).decode("ascii", "replace").strip() if hasattr(os, "pread") else ""
            os.close(file)
            pid = int(holder) if holder.isdigit() else None
            other = "this process, in an `ask` that is still open," if pid == os.getpid() else f"process {pid or '?'}"
            raise PoolLocked(
                f"{self._path.with_suffix('')}: {other} is asking the teacher; wait for it or stop it. "
                "Reading is possible all the time",
                pid=pid,
            ) from error
        os.ftruncate(file, 0)
        os.write(file, f" {os.getpid()}\n".encode())  # byte 0 is the locked one
        self._file = file

    def release(self) -> None:
        """Give the lock back."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _lock(file: int) -> None:
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
