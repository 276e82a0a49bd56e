"""A process in a terminal of its own, and what it shows there."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Mapping, Sequence
from typing import Literal


def shown_in(stream: Literal["stdout", "stderr"], command: Sequence[str], environment: Mapping[str, str]) -> bytes:
    """All that a command writes to a terminal by one of its streams; it has to succeed."""
    parent, child = pty.openpty()
    ends: dict[str, int] = {stream: child}
    with subprocess.Popen(command, env=environment, stdout=ends.get("stdout"), stderr=ends.get("stderr")) as process:
        os.close(child)
        shown = b""
        try:
            while part := os.read(parent, 65536):
                shown += part
        except OSError:  # the other end was closed
            pass
        assert process.wait(timeout=60) == 0
    os.close(parent)
    return shown
