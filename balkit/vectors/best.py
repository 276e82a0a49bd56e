"""The k best columns of every row, from blocks of similarities that come in any order; and all blocks in turn."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

#: Bits of a packed candidate: row, 2**20 - similarity in millionths, column.
_COLUMN_BITS, _SIMILARITY_BITS = 24, 21
_ONE = 1 << (_SIMILARITY_BITS - 1)
MOST_COLUMNS = 1 << _COLUMN_BITS
MOST_ROWS = 1 << 17  # whose candidates are held at one time

_ROWS, _COLUMNS = 1024, 4096  # of a block: 16 MiB
_WAITING = 1 << 22
_UNKNOWN = -2.0
_SLACK = 2e-6  # more than rounding can move a similarity by


class Best:
    """The k best columns seen so far of each of `rows` rows; `least` is what a column must reach to be among them."""

    def __init__(self, rows: int, *, k: int) -> None:
        self.k = k
        self.least = np.full(rows, _UNKNOWN, np.float32)
        self._keys = np.zeros(0, np.int64)
        self._waiting: list[Indices] = []
        self._count = 0

    def offer(self, rows: Indices, columns: Indices, block: Floats) -> None:
        """The similarities `(len(rows), len(columns))` of some rows to columns that were not offered to them before."""
        least, width = self.least[rows], len(columns)
        if width > self.k and (least <= _UNKNOWN).any():
            own = np.partition(block, width - self.k, axis=1)[:, width - self.k] - np.float32(_SLACK)
            np.maximum(least, own, out=least)
        flat = np.flatnonzero(block >= least[:, None])
        units = _ONE - np.rint(block.ravel()[flat] * np.float32(1e6)).astype(np.int64)
        row, column = np.divmod(flat, width)
        key = rows[row] << np.int64(_SIMILARITY_BITS) | units.clip(0, 2 * _ONE - 1)
        self._waiting.append(key << np.int64(_COLUMN_BITS) | columns[column])
        self._count += len(flat)
        if self._count > _WAITING:
            self.settle()

    def settle(self) -> None:
        """Keep the k best of each row, ties by the lower column."""
        keys = np.concatenate([self._keys, *self._waiting])
        self._waiting, self._count = [], 0
        keys.sort()
        first = self._firsts(keys)
        self._keys = keys[np.arange(len(keys)) - np.repeat(first[:-1], np.diff(first)) < self.k]
        first = self._firsts(self._keys)
        full = np.flatnonzero(np.diff(first) == self.k)
        units = self._keys[first[full + 1] - 1] >> np.int64(_COLUMN_BITS) & np.int64(2 * _ONE - 1)
        self.least[full] = (_ONE - units) / 1e6 - _SLACK

    def columns(self) -> Indices:
        """`(rows, k) int64`, best first; -1 throughout where a row was offered fewer than k columns."""
        self.settle()
        first = self._firsts(self._keys)
        full = np.diff(first) == self.k
        found = np.full((len(full), self.k), -1, np.int64)
        chosen = self._keys[np.repeat(full, np.diff(first))] & np.int64(MOST_COLUMNS - 1)
        found[full] = chosen.reshape(-1, self.k)
        return found

    def _firsts(self, keys: Indices) -> Indices:
        """Where each row's candidates begin in sorted keys, and where the last one's end."""
        bounds = np.arange(len(self.least) + 1, dtype=np.int64) << np.int64(_COLUMN_BITS + _SIMILARITY_BITS)
        return np.searchsorted(keys, bounds)


def exact(queries: Floats, among: Floats, *, k: int) -> Indices:
    """`(n, k) int64`: the k nearest rows of `among`, of all of them, nearest first.

    k is at most their number, and that is at most `MOST_COLUMNS`.
    """
    found = np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), _ROWS):
        block = queries[start : start + _ROWS]
        best, rows, settled = Best(len(block), k=k), np.arange(len(block)), 1
        for at, first in enumerate(range(0, len(among), _COLUMNS), 1):
            part = among[first : first + _COLUMNS]
            best.offer(rows, np.arange(first, first + len(part)), block @ part.T)
            if at >= settled:  # less and less often: what must be reached changes less and less
                best.settle()
                settled = 2 * at
        found[start : start + _ROWS] = best.columns()
    return found


def measured(queries: Floats, among: Floats, found: Indices) -> tuple[Indices, Floats]:
    """The same neighbours with their similarities, from the vectors themselves and so the same in every block.

    Six decimals, best first, ties by the lower index.
    """
    similarities = np.empty(found.shape, np.float32)
    step = max(1, (1 << 20) // (found.shape[1] * among.shape[1]))
    for start in range(0, len(found), step):
        part = slice(start, start + step)
        similarities[part] = np.einsum("nd,nkd->nk", queries[part], among[found[part]])
    np.divide(np.rint(similarities * np.float32(1e6)), np.float32(1e6), out=similarities)
    order = np.lexsort((found, -similarities), axis=1)
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(similarities, order, axis=1)
