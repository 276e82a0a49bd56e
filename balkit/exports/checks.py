"""An export read by the trainers' own loaders, each in an environment of its own that is made when it is first needed.

The environments lie under BALKIT_CACHE, else XDG_CACHE_HOME/balkit, else ~/.cache/balkit; they are always safe to
delete. Nothing of them is in balkit's own installation.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from balkit import texts
from balkit.errors import ExportError
from balkit.exports import loaders, preferences
from balkit.exports.material import Material
from balkit.exports.rows import Message

#: What pip installs for each loader: first a package without its own requirements, then what its reader needs of them.
_DATASETS = ("datasets==5.2.0",)
_TRL = ("trl==1.16.0", (*_DATASETS, "transformers==5.23.0", "jinja2"))
_LLAMAFACTORY = ("llamafactory==0.9.5", _DATASETS)
REQUIREMENTS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "trl": _TRL,
    "llamafactory": _LLAMAFACTORY,
    "mlx": ("mlx-lm==0.32.2", ("transformers==5.23.0",)),
    "trl-dpo": _TRL,
    "trl-kto": _TRL,
    "llamafactory-dpo": _LLAMAFACTORY,
    "hf": (None, _DATASETS),
    "together": (None, ("together==3.1.1",)),
}


def check(name: str, folder: Path, material: Material, *, python: Path | None = None) -> dict[str, Any]:
    """What the target's own loader says of the files in `folder`: loader, version, rows.

    `python` is the interpreter of an environment that has the loader; one is made if not given, which needs a package
    index. Raises `ExportError` where the loader fails, or sees other rows, roles or texts than were written.
    """
    script = Path(loaders.__file__)
    with tempfile.TemporaryDirectory() as cache:
        command = [str(python or environment(name)), "-I", str(script), name, str(folder.resolve()), cache]
        quiet = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HOME": cache}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **quiet})
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
        raise ExportError(f"{name}: its own loader does not take the export: {' / '.join(said)}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    rows, sha256 = loaders.digest(_turns(material, name=name))
    if (found["rows"], found.pop("sha256")) != (rows, sha256):
        raise ExportError(f"{name}: its own loader sees {found['rows']} rows, and not the {rows} that were written")
    return found


def environment(name: str) -> Path:
    """The Python of the loader's environment, made with pip where it is not there yet. Raises `ExportError`."""
    package, others = REQUIREMENTS[name]
    key = texts.digest([package, others, sys.version_info[:2]])[:12]
    home = _cache() / "loaders" / f"{name.partition('-')[0]}-{key}"
    python = home / "bin" / "python"
    if not python.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=home.parent))
        try:
            _run([sys.executable, "-m", "venv", str(fresh)], name=name)
            install = [str(fresh / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            _run([*install, *others], name=name)
            if package:
                _run([*install, "--no-deps", package], name=name)
            if not home.exists():  # another process may have been faster
                fresh.rename(home)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return python


def _cache() -> Path:
    own, shared = os.environ.get("BALKIT_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else (Path(shared) if shared else Path.home() / ".cache") / "balkit"


def _run(command: Sequence[str], *, name: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise ExportError(f"{name}: an environment for its loader cannot be made: {said[0]}; export without --check")


def _turns(material: Material, *, name: str) -> Iterator[list[tuple[str, str]]]:
    """The roles and texts that the loader must see; of a pair the rejected message follows the chosen one."""
    if name == "trl-kto":
        for part in material.pairs:
            for prompt, message, wanted in preferences.judgements(material.pair_blocks(part), options=material.options):
                yield [*_said(prompt), *_said([message]), ("label", str(wanted))]
        return
    if name in ("trl-dpo", "llamafactory-dpo"):
        for part in material.pairs:
            for prompt, good, bad in preferences.chats(material.pair_blocks(part), options=material.options):
                yield _said([*prompt, good, bad])
        return
    for part in material.parts:
        for chat in material.chats(part):
            yield _said(chat)


def _said(messages: Sequence[Message]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in messages]
