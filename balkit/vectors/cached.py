"""Vectors on disk: every text is encoded once.

A folder per encoder holds segments, each with the vectors of some texts. A segment is written once and never
changed; its name and its header carry the sha256 of its body, so a damaged one is noticed, dropped and encoded
again, and two processes that write at the same time at worst store a text twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from balkit import texts as texts_
from balkit.errors import VectorError
from balkit.vectors.encoders import Encoder, Floats
from balkit.vectors.files import drop, replace

_KEY_BYTES = 32
_TEXTS_AT_ONCE = 1024
_TEXTS_A_SEGMENT = 8 * _TEXTS_AT_ONCE
_MAPPED_FROM = 1024  # rows; a mapped segment keeps a file open, so small ones are read into memory

#: Called with (texts done, texts to encode); cached texts are not counted.
Progress = Callable[[int, int], None]

log = logging.getLogger(__name__)


class Vectors:
    """The vectors of texts by one encoder, kept under `folder`, which is always safe to delete.

    Opening reads nothing. The first `of` verifies the encoder's segments (about 1 s a GB) and maps them into
    memory; after that only texts never seen are encoded, 8192 to a segment, so a killed process loses one segment.
    Not for several threads at once; several processes are fine.
    """

    def __init__(self, folder: Path, encoder: Encoder) -> None:
        self.encoder = encoder
        self._root = folder
        self._segments: dict[str, npt.NDArray[np.float32]] = {}
        self._where: dict[bytes, tuple[str, int]] = {}

    def of(self, texts: Sequence[str], *, progress: Progress | None = None) -> Floats:
        """`(n, dim) float32`, rows L2-normalised, in the order of the texts.

        Raises `VectorError`, naming the text, when the encoder returns a vector that is not finite.
        """
        keys = [_key(text) for text in texts]
        self._read_new_segments()
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._where}
        self._encode(missing, progress=progress)
        return self._gather(keys)

    @property
    def folder(self) -> Path:
        """Where this encoder's segments lie."""
        return self._root / texts_.digest(self.encoder.name)[:16]

    def _gather(self, keys: Sequence[bytes]) -> Floats:
        if not keys:
            return np.zeros((0, self.encoder.dim), dtype=np.float32)
        rows: dict[str, tuple[list[int], list[int]]] = {}
        for position, key in enumerate(keys):
            segment, row = self._where[key]
            to, where = rows.setdefault(segment, ([], []))
            to.append(position)
            where.append(row)
        first = self._segments[next(iter(rows))]
        gathered = np.empty((len(keys), first.shape[1]), dtype=np.float32)
        for segment, (to, where) in rows.items():
            gathered[to] = self._segments[segment][where]
        return gathered

    def _encode(self, missing: dict[bytes, str], *, progress: Progress | None) -> None:
        keys = sorted(missing)
        for start in range(0, len(keys), _TEXTS_A_SEGMENT):
            parts = []
            for at in range(start, min(start + _TEXTS_A_SEGMENT, len(keys)), _TEXTS_AT_ONCE):
                wanted = [missing[key] for key in keys[at : at + _TEXTS_AT_ONCE]]
                parts.append(_checked(self.encoder.encode(wanted), texts=wanted, encoder=self.encoder))
                if progress is not None:
                    progress(at + len(wanted), len(keys))
            self._adopt(_write(self.folder, keys[start : start + _TEXTS_A_SEGMENT], np.concatenate(parts)))

    def _read_new_segments(self) -> None:
        for file in sorted(self.folder.glob("*.vectors")):
            if file.name not in self._segments:
                self._adopt(file)

    def _adopt(self, file: Path) -> None:
        try:
            keys, vectors = _read(file)
        except FileNotFoundError:  # another process dropped it
            return
        except ValueError as error:
            log.warning("%s: dropped, its texts are encoded again (%s)", file, error)
            drop(file)
            return
        self._segments[file.name] = vectors
        self._where.update((key, (file.name, row)) for row, key in enumerate(keys))


def drop_damaged(folder: Path) -> list[Path]:
    """Remove the segments of all encoders under `folder` that are not as they were written; which these were."""
    dropped = []
    for file in sorted(folder.glob("*/*.vectors")):
        try:
            _read(file)
        except ValueError:
            drop(file)
            dropped.append(file)
    return dropped


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _checked(vectors: Floats, *, texts: Sequence[str], encoder: Encoder) -> Floats:
    if vectors.shape != (len(texts), encoder.dim):
        raise VectorError(f"{encoder.name}: {len(texts)} texts gave vectors of shape {vectors.shape}")
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise VectorError(
            f"{encoder.name}: {len(bad)} of {len(texts)} vectors are not finite; the first is of the text "
            f"{texts[bad[0]][:80]!r}. Remove that row, or choose another vectors.model"
        )
    return np.ascontiguousarray(vectors, dtype="<f4")


def _write(folder: Path, keys: Sequence[bytes], vectors: Floats) -> Path:
    """One line of JSON, the keys (32 bytes each), the vectors (float32, little-endian)."""
    body = b"".join(keys) + vectors.tobytes()
    rows, dim = vectors.shape
    sha256 = hashlib.sha256(f"{rows} {dim}\n".encode() + body).hexdigest()
    header = {"rows": rows, "dim": dim, "sha256": sha256}
    file = folder / f"{sha256[:32]}.vectors"
    with replace(file) as temporary:
        temporary.write_bytes(json.dumps(header).encode() + b"\n" + body)
    return file


def _read(file: Path) -> tuple[list[bytes], npt.NDArray[np.float32]]:
    """Keys and vectors. Raises `ValueError` when anything differs from its digest."""
    with file.open("rb") as handle:
        try:
            header = json.loads(handle.readline(1024))
            rows, dim, sha256 = int(header["rows"]), int(header["dim"]), header["sha256"]
        except (KeyError, TypeError) as error:
            raise ValueError("its header is not ours") from error
        start = handle.tell()
        body = hashlib.sha256(f"{rows} {dim}\n".encode())
        for part in iter(lambda: handle.read(1 << 20), b""):
            body.update(part)
        if body.hexdigest() != sha256:
            raise ValueError("its content does not match its digest")
        handle.seek(start)
        stored = handle.read(rows * _KEY_BYTES)
    keys = [stored[i : i + _KEY_BYTES] for i in range(0, len(stored), _KEY_BYTES)]
    where = start + rows * _KEY_BYTES
    if rows < _MAPPED_FROM:
        return keys, np.fromfile(file, dtype="<f4", offset=where).reshape(rows, dim)
    return keys, np.memmap(file, dtype="<f4", mode="r", offset=where, shape=(rows, dim))
