"""A student's folder: what says that it is complete, and how it appears all at once.

Files are written into a hidden folder beside the target, `manifest.json` last, and the folder is then renamed.
So a folder with a manifest is whole, and a run that was stopped leaves none.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from balkit import texts
from balkit.errors import StudentError

MANIFEST = "manifest.json"
_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "accelerate", "peft")


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `target` if the block ends well and vanishes if it does not."""
    staging = target.parent / f".{target.name}.{os.getpid()}.tmp"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        for file in staging.iterdir():
            _sync(file)
        if target.exists():
            shutil.rmtree(target)
        staging.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_manifest(folder: Path, body: dict[str, Any]) -> dict[str, Any]:
    """Write `manifest.json`: the body, with the files' sha256 and the packages' versions added."""
    full = {**body, "files": file_digests(folder), "packages": _versions()}
    text = json.dumps(full, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return full


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a complete folder; raises `StudentError` where there is none."""
    file = Path(folder) / MANIFEST
    try:
        body: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudentError(
            f"{folder}: no {MANIFEST}, so this is no student of balkit's: "
            "name a folder that `student.base` or `student.train` made"
        ) from None
    except (OSError, ValueError) as error:
        raise StudentError(f"{file}: cannot be read ({error}); delete the folder and make it again") from error
    return body


def digest(folder: Path) -> str:
    """What names a base or a checkpoint in SCORES and EVALUATIONS: digest of its base and its trained weights."""
    return str(read_manifest(folder)["digest"])


def complete(folder: Path, *, key: str) -> dict[str, Any] | None:
    """The manifest if the folder was made from the inputs that `key` names and its files are intact, else None.

    Raises `StudentError` if the folder holds something made from other inputs.
    """
    if not (folder / MANIFEST).exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise StudentError(f"{folder} exists and holds no student: name another folder, or empty this one")
        return None
    body = read_manifest(folder)
    if body.get("key") != key:
        raise StudentError(
            f"{folder} holds a student made from other inputs (digest {body.get('digest', '?')[:12]}): "
            "name another folder, or delete this one"
        )
    return body if body.get("files") == file_digests(folder) else None


def file_digests(folder: Path) -> dict[str, str]:
    """sha256 by name of every file in the folder, the manifest left out."""
    return {file.name: sha256(file) for file in sorted(folder.iterdir()) if file.is_file() and file.name != MANIFEST}


def changed(folder: Path, manifest: dict[str, Any]) -> str | None:
    """A file that is not as the manifest says; None where there is none."""
    said, found = manifest.get("files", {}), file_digests(folder)
    return next((name for name in sorted(said) if said[name] != found.get(name)), None)


def weights_digest(folder: Path) -> str:
    """sha256 over the names and bytes of the folder's safetensors files: equal weights, equal digest."""
    return texts.digest({name: hexes for name, hexes in file_digests(folder).items() if name.endswith(".safetensors")})


def sha256(file: Path) -> str:
    """sha256 of a file's bytes, 64 hex digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
