"""Vectors on a grid, and what is exact there: nearest centres, means, the rows' own order, silhouettes.

Rows are rounded to multiples of 2**-11. Their dot products, in units of 2**-22, are whole numbers below 2**24,
which float32 adds without error in any order, so that no number of threads and no BLAS changes who is nearest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from balkit.errors import VectorError

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

GRID = 2048.0
ONE = GRID * GRID  # the dot product of a unit vector with itself, on the grid

_CELLS_AT_ONCE = 1 << 22


def on_grid(vectors: Floats, *, ids: Sequence[str] | None = None) -> Floats:
    """`(n, d) float32` whole numbers: every row brought to length 1, times 2**11, rounded.

    Raises `VectorError`, naming the id (without ids, the row), where a vector is not finite or has no direction.
    """
    if vectors.ndim != 2 or not vectors.shape[1]:
        raise VectorError(f"expected vectors as (rows, dimensions), got an array of shape {vectors.shape}")
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    for bad, what in ((~np.isfinite(norms), "are not finite"), (norms == 0, "are zero and point nowhere")):
        if bad.any():
            rows = [int(row) for row in np.flatnonzero(bad)]
            first = f"row {rows[0]}" if ids is None else min(ids[row] for row in rows)
            raise VectorError(
                f"{len(rows)} of {len(vectors)} vectors {what}; the first is that of {first}. "
                "Leave that example out, or encode it again"
            )
    scale = np.asarray(GRID / np.maximum(norms, np.finfo(np.float64).tiny), dtype=np.float32)
    return np.asarray(np.rint(vectors * scale[:, None]), dtype=np.float32)


def unit_on_grid(sums: Doubles) -> Floats:
    """`(k, d) float32` whole numbers: the directions of sums of rows. A sum of zero stays zero."""
    norms = np.sqrt(np.square(sums).sum(axis=1, keepdims=True))
    return np.asarray(np.rint(sums * (GRID / np.where(norms > 0, norms, 1))), dtype=np.float32)


def nearest(rows: Floats, centres: Floats) -> tuple[Indices, Floats]:
    """For every row its nearest centre, ties to the lower, and its similarity to it in units of 2**-22."""
    labels = np.empty(len(rows), dtype=np.int64)
    best = np.empty(len(rows), dtype=np.float32)
    step = max(1, _CELLS_AT_ONCE // len(centres))
    for start in range(0, len(rows), step):
        block = rows[start : start + step] @ centres.T
        labels[start : start + step] = block.argmax(axis=1)
        best[start : start + step] = block.max(axis=1)
    return labels, best


def sums_of(rows: Floats, labels: Indices, *, count: int) -> Doubles:
    """`(count, d) float64`: the sum of the rows of every label, exact; zero for a label without rows."""
    sums = np.zeros((count, rows.shape[1]))
    used, starts = np.unique(labels[order := np.argsort(labels, kind="stable")], return_index=True)
    for label, start, end in zip(used, starts, [*starts[1:], len(rows)], strict=True):
        sums[label] = rows[order[start:end]].sum(axis=0, dtype=np.float64)
    return sums


def own_order(rows: Floats) -> tuple[Indices, int]:
    """An order of the rows that depends on their values alone, and how many of them are distinct."""
    packed = np.ascontiguousarray(rows, dtype=">i2")
    keys = packed.view(np.dtype((np.void, packed.shape[1] * packed.itemsize))).ravel()
    order = np.argsort(keys, kind="stable")
    ordered = packed[order]
    return order, 1 + int((ordered[1:] != ordered[:-1]).any(axis=1).sum())


def distances(rows: Floats) -> Doubles:
    """`(n, n) float64`: 1 minus cosine in units of 2**-22, at least 0."""
    return np.asarray(np.maximum(np.float32(ONE) - rows @ rows.T, 0), dtype=np.float64)


def silhouette(apart: Doubles, labels: Indices, *, count: int) -> float:
    """The mean silhouette of rows (Rousseeuw 1987), -1 to 1; a row alone in its cluster counts 0."""
    members = np.eye(count)[labels]
    sizes = members.sum(axis=0)
    sums = apart @ members  # of whole numbers below 2**53: exact
    at = np.arange(len(labels))
    own = sums[at, labels] / np.maximum(sizes[labels] - 1, 1)
    means = np.where(sizes > 0, sums / np.maximum(sizes, 1), np.inf)
    means[at, labels] = np.inf
    other = means.min(axis=1)
    if not np.isfinite(other).all():  # one cluster only
        return 0.0
    larger = np.maximum(own, other)
    values = np.where((sizes[labels] > 1) & (larger > 0), (other - own) / np.where(larger > 0, larger, 1), 0.0)
    return float(values.mean())
