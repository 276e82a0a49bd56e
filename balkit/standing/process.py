"""Whether a process that left its number is still there."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path


def birth(pid: int) -> str | None:
    """When a process began, in whatever form the system tells it: with its number it names one. None: it is gone."""
    try:
        # the name in parentheses may hold blanks; behind it come the state and, 20th from there, the start
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None if Path("/proc/self/stat").exists() else _told_by_ps(pid)
    return None if fields[0] in "ZX" else fields[19]


def _told_by_ps(pid: int) -> str | None:
    asked = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
    return " ".join(said[1:]) if said and not said[0].startswith("Z") else None


def is_alive(pid: int, *, born: str | None = None, host: str | None = None) -> bool | None:
    """Whether it is that process and running; None where it is another machine's, which cannot be told from here."""
    if host is not None and host != socket.gethostname():
        return None
    if pid == os.getpid():
        return True
    found = birth(pid)
    return found is not None and born in (None, found)
