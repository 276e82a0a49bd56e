"""The files of the cache of vectors: each holds the vectors of some texts, is written once and never changed.

One line of JSON, the keys (32 bytes each), the vectors (float32, little-endian). The header has a checksum of the
keys, which is verified on opening, and one of the vectors, which is verified before the first of them is used.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from balkit.vectors.files import replace

Keys = npt.NDArray[np.uint64]  # (n, 4): a text's sha256
Floats = npt.NDArray[np.float32]

_KEY_BYTES = 32
_FORMAT = 2
_MAPPED_FROM = 1024  # rows; a mapped segment keeps a file open, so small ones are read into memory
_PIECE = 1 << 22


@dataclass
class Segment:
    """An opened file whose keys are as they were written."""

    file: Path
    keys: Keys
    _vectors: Floats
    _crc: int
    _verified: bool = field(default=False)

    def __len__(self) -> int:
        return len(self.keys)

    def verify(self) -> None:
        """Read the vectors and compare them with their checksum, once. Raises `ValueError` when they differ."""
        if not self._verified:
            if _crc(self._vectors) != self._crc:
                raise ValueError("its vectors do not match their checksum")
            self._verified = True

    @property
    def vectors(self) -> Floats:
        """`(n, dim) float32`, verified."""
        self.verify()
        return self._vectors


def write(folder: Path, keys: Keys, vectors: Floats) -> Segment:
    """A new segment, synced and renamed into place: it is there whole or not at all."""
    keys, vectors = np.ascontiguousarray(keys, "<u8"), np.ascontiguousarray(vectors, "<f4")
    rows, dim = vectors.shape
    name = hashlib.blake2b(keys.data, digest_size=16).hexdigest()
    header = {"format": _FORMAT, "rows": rows, "dim": dim, "keys": _crc(keys), "vectors": _crc(vectors)}
    file = folder / f"{name}.vectors"
    with replace(file) as temporary, temporary.open("wb") as handle:
        handle.write(json.dumps(header).encode() + b"\n")
        handle.write(keys.data)
        handle.write(vectors.data)
    return Segment(file, keys, vectors, header["vectors"], True)


def read(file: Path) -> Segment:
    """Raises `ValueError` when its size, header or keys are not as written."""
    with file.open("rb") as handle:
        try:
            header = json.loads(handle.readline(1024))
            wanted = (header["format"], header["rows"], header["dim"], header["keys"], header["vectors"])
            shape, rows, dim, keys_crc, vectors_crc = map(int, wanted)
        except (KeyError, TypeError) as error:
            raise ValueError("its header is not ours") from error
        start = handle.tell()
        size = start + rows * (_KEY_BYTES + 4 * dim)
        if shape != _FORMAT or rows < 1 or dim < 1 or file.stat().st_size != size:
            raise ValueError("its length is not what its header says")
        keys = np.frombuffer(handle.read(rows * _KEY_BYTES), "<u8").reshape(rows, 4)
        if _crc(keys) != keys_crc:
            raise ValueError("its keys do not match their checksum")
        if rows < _MAPPED_FROM:
            vectors: Floats = np.frombuffer(handle.read(), "<f4").reshape(rows, dim)
        else:
            vectors = np.memmap(handle, "<f4", mode="r", offset=start + keys.nbytes, shape=(rows, dim))
    return Segment(file, keys, vectors, vectors_crc)


def keys_of(texts: Sequence[str]) -> Keys:
    """`(n, 4) uint64`: the sha256 of each text."""
    digests = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
    return np.frombuffer(b"".join(digests), "<u8").reshape(len(texts), 4)


def _crc(rows: npt.NDArray[np.generic]) -> int:
    """CRC-32 of an array's bytes and shape: every change of up to 32 bits in a row is noticed."""
    found, content = zlib.crc32(repr(rows.shape).encode()), np.ascontiguousarray(rows).data.cast("B")
    for start in range(0, len(content), _PIECE):
        found = zlib.crc32(content[start : start + _PIECE], found)
    return found
