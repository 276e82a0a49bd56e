"""Rows whose vectors are close: an exact search, made quick by an upper bound on every cosine.

Rotated so that their first s coordinates vary most, two rows have x.y <= x1.y1 + |x2| |y2| (Cauchy-Schwarz on the
rest), which is the product of rows of s + 1 numbers. Few pairs pass it; these are measured in float64. The bound
decides only how long it takes: neither blocks nor threads nor the rotation change a result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balkit.duplicates.found import Duplicates, Floats, Indices, none_of
from balkit.errors import VectorError

_ROWS, _COLUMNS = 1024, 8192  # of a tile of cosines: 32 MiB
_PAIRS = 8192  # measured at once
_SAMPLE = 2048  # rows that the rotation and its length are chosen by
_PAIR_COST = 400  # what measuring one pair costs, in coordinates of the bound
_DENSE = 64  # one pair in so many passes the bound: the whole product is cheaper than measuring them


def semantic(vectors: Floats, *, threshold: float) -> Duplicates:
    """Rows with a cosine of at least `threshold` to an earlier kept row: the first such.

    vectors    (n, d) float32, rows L2-normalised
    threshold  cosine, compared after rounding to 6 decimals

    Exact. 100,000 rows take seconds to a minute, memory 2 n d bytes and 100 MB. Raises `VectorError` for vectors that
    are not finite.
    """
    _check(vectors, "vectors")
    search, found = _Search.of(vectors, vectors, threshold=threshold), none_of(len(vectors))
    kept, count = np.empty(len(vectors), np.int64), 0
    for start in range(0, len(vectors), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(vectors)))
        found.other[rows] = search.first(rows, kept[:count])
        left = rows[found.other[rows] < 0]
        for row, column in zip(*(side.tolist() for side in search.matches(left, left)), strict=True):
            if column < row and found.other[left[column]] < 0 and found.other[left[row]] < 0:
                found.other[left[row]] = left[column]
        left = left[found.other[left] < 0]
        kept[count : count + len(left)] = left
        count += len(left)
    return search.told(found)


def semantic_among(new: Floats, *, among: Floats, threshold: float) -> Duplicates:
    """Rows of `new` with a cosine of at least `threshold` to a row of `among`: the first such. As `semantic`."""
    _check(new, "new")
    _check(among, "among")
    found = none_of(len(new))
    if not len(new) or not len(among):
        return found
    if new.shape[1] != among.shape[1]:
        raise VectorError(f"new vectors have {new.shape[1]} dimensions, those among which to look {among.shape[1]}")
    search, every = _Search.of(new, among, threshold=threshold), np.arange(len(among))
    for start in range(0, len(new), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(new)))
        found.other[rows] = search.first(rows, every)
    return search.told(found)


def _check(vectors: Floats, name: str) -> None:
    if vectors.ndim != 2:
        raise VectorError(f"{name}: expected (rows, dimensions), got an array of shape {vectors.shape}")
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise VectorError(f"{name}: {len(bad)} of {len(vectors)} vectors are not finite, the first in row {bad[0]}")


@dataclass(frozen=True)
class _Search:
    """Rows of `left` against rows of `right`; the products of their short rows, `low` and `high`, bound the cosines."""

    left: Floats
    right: Floats
    low: Floats
    high: Floats
    threshold: float

    @classmethod
    def of(cls, left: Floats, right: Floats, *, threshold: float) -> _Search:
        axes = _axes(right, threshold=threshold - _slack(right.shape[1]))
        high = _short(right, axes)
        low = high if left is right else _short(left, axes)
        return cls(left, right, low, high, round(threshold, 6))

    def first(self, rows: Indices, columns: Indices) -> Indices:
        """For each of the rows the first of the columns that it matches, or -1."""
        best, open_ = np.full(len(rows), -1, np.int64), np.arange(len(rows))
        for start in range(0, len(columns), _COLUMNS):
            part = columns[start : start + _COLUMNS]
            row, column = self.matches(rows[open_], part)
            hit, at = np.unique(row, return_index=True)
            best[open_[hit]] = part[column[at]]
            open_ = open_[best[open_] < 0]
        return best

    def matches(self, rows: Indices, columns: Indices) -> tuple[Indices, Indices]:
        """Places (in `rows`, in `columns`) of all pairs from the threshold on, in their order."""
        slack = _slack(self.right.shape[1])
        bound = self.low[rows] @ self.high[columns].T
        reached = np.flatnonzero(bound.max(axis=1, initial=-np.inf) >= self.threshold - slack)
        row, column = np.nonzero(bound[reached] >= self.threshold - slack)
        if len(row) * _DENSE <= bound.size:
            good = self._near(rows[reached[row]], columns[column])
            return reached[row[good]], column[good]
        product = self.left[rows[reached]] @ self.right[columns].T
        match = product >= self.threshold + slack
        row, column = np.nonzero((product >= self.threshold - slack) & ~match)
        good = self._near(rows[reached[row]], columns[column])
        match[row[good], column[good]] = True
        row, column = np.nonzero(match)
        return reached[row], column

    def _near(self, rows: Indices, columns: Indices) -> NDArray[np.bool_]:
        return self.cosines(rows, columns) >= self.threshold

    def cosines(self, rows: Indices, columns: Indices) -> NDArray[np.float64]:
        """The cosines of pairs, to 6 decimals."""
        found = np.empty(len(rows))
        for part in _parts(len(rows), _PAIRS):
            found[part] = (self.left[rows[part]] * self.right[columns[part]].astype(np.float64)).sum(axis=1)
        return found.round(6)

    def told(self, found: Duplicates) -> Duplicates:
        """The same with the similarities filled in."""
        rows = np.flatnonzero(found.other >= 0)
        found.similarity[rows] = self.cosines(rows, found.other[rows]).clip(0, 1)
        return found


def _slack(d: int) -> float:
    """More than float32 can be wrong by in a product of d numbers, and half a unit of the sixth decimal."""
    return max(1e-4, d * 1.2e-7)


def _axes(vectors: Floats, *, threshold: float) -> NDArray[np.float64]:
    """(d, s) orthonormal columns: the principal axes of a sample, as many as make the search cheapest."""
    sample = vectors[np.linspace(0, len(vectors) - 1, min(len(vectors), _SAMPLE)).astype(np.int64)]
    centred = sample - sample.mean(axis=0, dtype=np.float64) if len(sample) else sample.astype(np.float64)
    d = vectors.shape[1]
    axes: NDArray[np.float64] = np.linalg.eigh(centred.T @ centred)[1][:, ::-1]
    costs = {}
    for s in {min(s, d) for s in (16, 32, 64, 128, 256)}:
        short = _short(sample, axes[:, :s])
        passed = float(np.mean(np.triu(short @ short.T >= threshold, 1))) * 2 if len(sample) else 0.0
        costs[s] = s + 16 + _PAIR_COST * passed * min(d, _DENSE)
    return axes[:, : min(costs, key=lambda s: (costs[s], s))]


def _short(vectors: Floats, axes: NDArray[np.float64]) -> Floats:
    """(n, s + 1) float32: the rows on the axes, and the length of what is left of them."""
    rows = np.empty((len(vectors), axes.shape[1] + 1), np.float32)
    basis = np.ascontiguousarray(axes, np.float32)
    for part in _parts(len(vectors), _COLUMNS):
        rows[part, :-1] = vectors[part] @ basis
        whole, seen = (np.square(side, dtype=np.float64).sum(axis=1) for side in (vectors[part], rows[part, :-1]))
        # Rounding may not make a rest shorter: a root of a small difference would be off by a thousandth.
        rows[part, -1] = np.sqrt(np.maximum(whole - seen, 0) + 1e-6)
    return rows


def _parts(rows: int, step: int) -> Iterator[slice[Any, Any, Any]]:
    return (slice(start, start + step) for start in range(0, rows, step))
