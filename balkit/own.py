"""A selection method or an export target of the user's own: one object in one Python file, named by its path.

The file is the user's program: it is run, with all that it may do, when the object is needed.
"""

from __future__ import annotations

import hashlib
import runpy
from functools import cache
from pathlib import Path
from typing import TypeVar

from balkit.errors import BalkitError

_Kind = TypeVar("_Kind")

SUFFIX = ".py"


def digest(file: str | Path) -> str:
    """sha256 of the file, in hex; empty where it cannot be read."""
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:
        return ""


def object_of(file: str | Path, kind: type[_Kind]) -> _Kind:
    """The one object of a kind that the file makes. Raises `BalkitError` where it makes none or several, or fails."""
    content = digest(file)
    if not content:
        raise BalkitError(f"{file}: cannot be read; it should be a Python file that makes a {kind.__name__}")
    names = _names(str(Path(file).absolute()), content)
    found = {id(value): value for value in names.values() if isinstance(value, kind)}
    if len(found) != 1:
        raise BalkitError(f"{file}: makes {len(found)} objects of {kind.__name__}; it should make one")
    return next(iter(found.values()))


@cache
def _names(file: str, content: str) -> dict[str, object]:
    """What the file's code makes, run once as long as its content is the same."""
    try:
        return runpy.run_path(file)
    except Exception as error:
        raise BalkitError(f"{file}: does not run: {type(error).__name__}: {error}") from error
