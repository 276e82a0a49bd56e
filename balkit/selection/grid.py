"""Vectors on a grid, where similarities are whole numbers.

Vectors are rounded to multiples of 2**-11. Their dot products, in units of 2**-22, are then whole numbers below
2**24, which float32 adds without error, so that ties, gains and the chosen rows are the same on every machine,
for every BLAS, number of threads and block size. A cosine moves by ~2e-4.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from balkit.errors import VectorError

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

GRID = 2048.0
ONE = GRID * GRID  # the dot product of a unit vector with itself, on the grid
CELLS_AT_ONCE = 1 << 22  # similarities in one block: 16 MiB


def on_grid(vectors: Floats, *, name: str, order: Indices | None = None) -> Floats:
    """`(n, d) float32` whole numbers: the vectors times 2**11, rounded, in an order of rows where one is given.

    One copy is made. Raises `VectorError` as `unit` does.
    """
    checked = unit(vectors, name=name)
    scaled = checked.copy() if order is None else checked[order]
    scaled *= np.float32(GRID)
    return np.asarray(np.rint(scaled, out=scaled))


def unit(vectors: Floats, *, name: str) -> Floats:
    """The vectors as float32; raises `VectorError`, naming the row, where one is not finite or not of length 1."""
    if not len(vectors):
        return np.zeros((0, 0), dtype=np.float32)
    if vectors.ndim != 2:
        raise VectorError(f"{name}: expected vectors as (rows, dimensions), got the shape {vectors.shape}")
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    bad = np.flatnonzero(~(np.abs(norms - 1) < 1e-2))
    if len(bad):
        raise VectorError(
            f"{name}: {len(bad)} of {len(vectors)} vectors are not of length 1; "
            f"the first, in row {bad[0]}, has the length {norms[bad[0]]:.4g}"
        )
    return np.asarray(vectors, dtype=np.float32)


def to_nearest(vectors: Floats, *, among: Floats) -> Floats:
    """`(n,) float32`: max(cosine, 0) to the nearest row of `among`, in the vectors' unit; 0 where it is empty."""
    nearest = np.zeros(len(vectors), dtype=np.float32)
    if not len(among):
        return nearest
    for rows in blocks(len(vectors), size=max(1, CELLS_AT_ONCE // len(among))):
        nearest[rows] = (vectors[rows] @ among.T).max(axis=1, initial=0)
    return nearest


def nearest_row(vectors: Floats, *, among: Floats) -> Indices:
    """`(n,) int64`: the row of `among` that is nearest, ties to the lower."""
    parts = [
        (vectors[rows] @ among.T).argmax(axis=1)
        for rows in blocks(len(vectors), size=max(1, CELLS_AT_ONCE // len(among)))
    ]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def blocks(n: int, *, size: int) -> list[Indices]:
    """The rows 0 .. n-1 in runs of `size`."""
    return [np.arange(start, min(start + size, n)) for start in range(0, n, size)]
