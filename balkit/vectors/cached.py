"""Vectors on disk: every text is encoded once.

A folder per encoder holds segments (`segments`), each with the vectors of some texts and checksums. A damaged one is
noticed, dropped and encoded again, and two processes that write at the same time at worst store a text twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from balkit import texts as texts_
from balkit.errors import VectorError
from balkit.vectors import segments
from balkit.vectors.encoders import Encoder
from balkit.vectors.files import drop
from balkit.vectors.segments import Floats, Keys, Segment

_TEXTS_AT_FIRST, _TEXTS_AT_ONCE = 32, 512
_SECONDS_A_BATCH = 2.0  # a quicker batch is followed by one of twice as many texts
_SECONDS_AT_RISK = 10.0
_SEGMENT_BYTES = 32 << 20
_FEW_SMALL = 16

_Rows = npt.NDArray[np.int64]

#: Called with (texts done, texts to encode); cached texts are not counted.
Progress = Callable[[int, int], None]

log = logging.getLogger(__name__)


class Vectors:
    """The vectors of texts by one encoder, kept under `folder`, which is always safe to delete.

    Opening reads nothing. `of` reads the keys of the encoder's segments, verifies those that it needs vectors of
    (about 1 s a GB) and maps them into memory. Only texts never seen are encoded, the longest first and texts of like
    length together; they are stored after the first batch that ends 10 s or more from the last time, so that a
    killed process loses little: a batch is 32 texts, and more, up to 512, where these take less than 2 s.
    Not for several threads at once; several processes are fine.
    """

    def __init__(self, folder: Path, encoder: Encoder) -> None:
        self.encoder = encoder
        self._root = folder
        self._segments: dict[str, Segment] = {}
        self._index: _Index | None = None

    def of(self, texts: Sequence[str], *, progress: Progress | None = None) -> Floats:
        """`(n, dim) float32`, rows L2-normalised, in the order of the texts.

        Raises `VectorError`, naming the text, when the encoder returns a vector that is not finite, and naming the
        folder when it cannot be written; what was encoded before is kept.
        """
        if not len(texts):
            return np.zeros((0, self.encoder.dim), dtype=np.float32)
        keys = segments.keys_of(texts)
        where = self._locate(keys)
        while (missing := np.flatnonzero(where < 0)).size:
            _, first = np.unique(keys[missing], axis=0, return_index=True)
            self._encode(texts, keys, rows=missing[first], progress=progress)
            where = self._locate(keys)
        return self._gather(where)

    @property
    def folder(self) -> Path:
        """Where this encoder's segments lie."""
        return self._root / texts_.digest(self.encoder.name)[:16]

    # -- finding ----------------------------------------------------------------------------------------------------

    def _locate(self, keys: Keys) -> _Rows:
        """Of each key its number in the index, or -1; only sound segments are named."""
        while True:
            self._read_new_segments()
            index = self._indexed()
            where = index.find(keys)
            used = np.unique(index.segment[where[where >= 0]])
            damaged = [number for number in used if not self._sound(index.segments[number])]
            if not damaged:
                return where

    def _indexed(self) -> _Index:
        if self._index is None:
            self._index = _Index(list(self._segments.values()))
        return self._index

    def _gather(self, where: _Rows) -> Floats:
        index = self._indexed()
        numbers, rows = index.segment[where], index.row[where]
        dim = index.segments[numbers[0]].vectors.shape[1]  # the encoder's, without loading its model
        gathered = np.empty((len(where), dim), dtype=np.float32)
        order = np.argsort(numbers, kind="stable")
        bounds = np.searchsorted(numbers[order], np.arange(len(index.segments) + 1))
        for segment, start, stop in zip(index.segments, bounds[:-1], bounds[1:], strict=True):
            if stop > start:
                to = order[start:stop]
                gathered[to] = segment.vectors[rows[to]]
        return gathered

    def _sound(self, segment: Segment) -> bool:
        try:
            segment.verify()
        except ValueError as error:
            self._forget(segment.file, error)
            return False
        return True

    def _read_new_segments(self) -> None:
        for file in sorted(self.folder.glob("*.vectors")):
            if file.name not in self._segments:
                try:
                    self._adopt(segments.read(file))
                except FileNotFoundError:  # another process dropped it
                    continue
                except ValueError as error:
                    self._forget(file, error)

    def _adopt(self, segment: Segment) -> None:
        self._segments[segment.file.name] = segment
        self._index = None

    def _forget(self, file: Path, error: ValueError) -> None:
        log.warning("%s: dropped, its texts are encoded again (%s)", file, error)
        self._segments.pop(file.name, None)
        self._index = None
        drop(file)

    # -- encoding ---------------------------------------------------------------------------------------------------

    def _encode(self, texts: Sequence[str], keys: Keys, *, rows: _Rows, progress: Progress | None) -> None:
        lengths = np.array([len(texts[row]) for row in rows])
        rows = rows[np.argsort(-lengths, kind="stable")]
        waiting: list[tuple[_Rows, Floats]] = []
        done, size, since = 0, min(_TEXTS_AT_FIRST, _TEXTS_AT_ONCE), time.monotonic()
        try:
            while done < len(rows):
                part, began = rows[done : done + size], time.monotonic()
                wanted = [texts[row] for row in part]
                waiting.append((part, _checked(self.encoder.encode(wanted), texts=wanted, encoder=self.encoder)))
                done += len(part)
                if time.monotonic() - began < _SECONDS_A_BATCH:
                    size = min(2 * size, _TEXTS_AT_ONCE)
                full = sum(len(part) for part, _ in waiting) + size > self._rows_a_segment
                if full or time.monotonic() - since > _SECONDS_AT_RISK:
                    self._store(keys, waiting)
                    since = time.monotonic()
                if progress is not None:
                    progress(done, len(rows))
        finally:
            self._store(keys, waiting)
        self._merge()

    @property
    def _rows_a_segment(self) -> int:
        return max(_TEXTS_AT_ONCE, _SEGMENT_BYTES // (4 * self.encoder.dim))

    def _store(self, keys: Keys, waiting: list[tuple[_Rows, Floats]]) -> None:
        """Write what waits and empty it."""
        if waiting:
            parts = [part for part, _ in waiting]
            rows, vectors = np.concatenate(parts), np.concatenate([vectors for _, vectors in waiting])
            waiting.clear()
            self._adopt(self._write(keys[rows], vectors))

    def _write(self, keys: Keys, vectors: Floats) -> Segment:
        try:
            return segments.write(self.folder, keys, vectors)
        except OSError as error:
            raise VectorError(
                f"{self.folder}: {len(vectors)} vectors cannot be kept ({error.strerror or error}). Those stored "
                "before are whole; make room, and the same command goes on from there"
            ) from error

    def _merge(self) -> None:
        """Make one of many small segments, each key once, so that their number does not grow with that of calls.

        Those that another process has merged and dropped meanwhile are forgotten: their rows are in its segment.
        """
        small = [one for one in self._segments.values() if 2 * len(one) < self._rows_a_segment]
        there = [one for one in small if one.file.exists() and self._sound(one)]
        if len(there) < _FEW_SMALL:
            return
        keys, vectors = np.concatenate([one.keys for one in there]), np.concatenate([one.vectors for one in there])
        _, first = np.unique(keys, axis=0, return_index=True)
        made = set()
        for start in range(0, len(first), self._rows_a_segment):
            part = first[start : start + self._rows_a_segment]
            segment = self._write(keys[part], vectors[part])
            self._adopt(segment)
            made.add(segment.file.name)  # that of an old one, where it has the same keys
        for one in small:
            if one.file.name not in made:
                self._segments.pop(one.file.name, None)
                drop(one.file)
        self._index = None


class _Index:
    """Which row of which segment a key has, by the first 8 of its bytes in order."""

    def __init__(self, found: list[Segment]) -> None:
        self.segments = found
        keys = np.concatenate([one.keys for one in found]) if found else np.zeros((0, 4), np.uint64)
        order = np.argsort(keys[:, 0], kind="stable")
        self._keys = keys[order]
        self._first = np.ascontiguousarray(self._keys[:, 0])
        lengths = [len(one) for one in found]
        self.segment = np.repeat(np.arange(len(found)), lengths)[order]
        self.row = np.concatenate([np.zeros(0, np.int64), *(np.arange(length) for length in lengths)])[order]

    def find(self, keys: Keys) -> _Rows:
        """The place of each key, -1 where it is not there."""
        place, found = np.searchsorted(self._first, keys[:, 0]), np.full(len(keys), -1, np.int64)
        open_ = np.arange(len(keys))
        while True:
            open_ = open_[place[open_] < len(self._first)]
            open_ = open_[self._first[place[open_]] == keys[open_, 0]]
            if not len(open_):
                return found
            same = (self._keys[place[open_]] == keys[open_]).all(axis=1)
            found[open_[same]] = place[open_[same]]
            open_ = open_[~same]
            place[open_] += 1


def drop_damaged(folder: Path) -> list[Path]:
    """Remove the segments of all encoders under `folder` that are not as they were written; which these were."""
    dropped = []
    for file in sorted(folder.glob("*/*.vectors")):
        try:
            segments.read(file).verify()
        except FileNotFoundError:  # another process merged it
            continue
        except ValueError:
            drop(file)
            dropped.append(file)
    return dropped


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
