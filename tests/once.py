"""Pools that are made once a process and then copied: DuckDB takes a tenth of a second and more to make one."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from balkit.pool import Pool


def copied(make: Callable[[Path], object], folder: Path) -> Pool:
    """A copy in `folder` of the pool that `make` makes where it is told to. Give it the same `make` every time."""
    shutil.copytree(_made(make), folder)
    return Pool.open(folder)


@cache
def _made(make: Callable[[Path], object]) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="balkit-once-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    make(folder / "pool")
    return folder / "pool"
