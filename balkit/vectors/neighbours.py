"""Nearest neighbours by cosine similarity: exact in blocks, or through an hnswlib index on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from balkit.errors import VectorError
from balkit.vectors import graph
from balkit.vectors.encoders import Floats

Indices = npt.NDArray[np.int64]

#: Rows under which an exact search is the default. Ten neighbours of every row among all rows, 384 dimensions, two
#: busy CPU cores (tests/benchmarks/bench_neighbours.py), in seconds: 10,000 rows exact 3, index built 10, loaded 4;
#: 20,000 rows exact 20, built 44, loaded 8. Exact grows with n * n, building with n * log n: an index that is used
#: once pays from ~50,000 rows on (extrapolated), a kept one from ~10,000.
EXACT_BELOW = 50_000

_CELLS_AT_ONCE = 1 << 24  # similarities held at one time: 64 MiB


@dataclass(frozen=True)
class Neighbours:
    """The nearest rows of `among` for every query, nearest first.

    indices       (n, k) int64, rows of `among`
    similarities  (n, k) float32, cosine, rounded to 6 decimals
    """

    indices: Indices
    similarities: Floats


@dataclass(frozen=True)
class Closest:
    """The one nearest row for every query; index -1 and similarity -1 where there was nothing to be near to.

    index       (n,) int64
    similarity  (n,) float32, cosine
    """

    index: Indices
    similarity: Floats


def neighbours(
    queries: Floats, *, among: Floats, k: int, exact_below: int = EXACT_BELOW, cache: Path | None = None
) -> Neighbours:
    """The k nearest rows of `among` to every query; all of them, in order, where `among` has fewer than k.

    queries, among  (n, d) and (m, d) float32, rows L2-normalised
    exact_below     rows of `among` under which the search is exact; from there on it is hnswlib's (approximate,
                    repeatable), or still exact where hnswlib is not installed
    cache           a folder for the index, which is kept by the digest of `among` and always safe to delete

    A row of `among` that is also a query finds itself first. Ties go to the lower index. Memory: 64 MiB a block.
    Raises `VectorError` for vectors that are not finite or not of one dimension.
    """
    _check(queries, among)
    k = min(k, len(among))
    if k < 1 or not len(queries):
        return Neighbours(
            np.zeros((len(queries), max(k, 0)), np.int64), np.zeros((len(queries), max(k, 0)), np.float32)
        )
    if len(among) >= exact_below:
        found = graph.search(queries, among=among, k=k, cache=cache)
        if found is not None:
            return _ordered(queries, among, found)
    return _exact(queries, among, k=k)


def most_similar(queries: Floats, *, among: Floats) -> Closest:
    """The nearest row of `among` for every query, by exact search."""
    if not len(among):
        return Closest(np.full(len(queries), -1, np.int64), np.full(len(queries), -1.0, np.float32))
    found = neighbours(queries, among=among, k=1, exact_below=len(among) + 1)
    return Closest(found.indices[:, 0], found.similarities[:, 0])


def _check(queries: Floats, among: Floats) -> None:
    for name, rows in (("queries", queries), ("among", among)):
        if rows.ndim != 2:
            raise VectorError(f"{name}: expected (rows, dimensions), got an array of shape {rows.shape}")
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            raise VectorError(f"{name}: {len(bad)} of {len(rows)} vectors are not finite, the first in row {bad[0]}")
    if len(queries) and len(among) and queries.shape[1] != among.shape[1]:
        raise VectorError(
            f"queries have {queries.shape[1]} dimensions, the vectors among which to look {among.shape[1]}"
        )


def _exact(queries: Floats, among: Floats, *, k: int) -> Neighbours:
    indices = np.empty((len(queries), k), np.int64)
    similarities = np.empty((len(queries), k), np.float32)
    step = max(1, _CELLS_AT_ONCE // len(among))
    for start in range(0, len(queries), step):
        block = _rounded(queries[start : start + step] @ among.T)
        best = _top(block, k)
        indices[start : start + step] = best
        similarities[start : start + step] = np.take_along_axis(block, best, axis=1)
    return Neighbours(indices, similarities)


def _ordered(queries: Floats, among: Floats, found: Indices) -> Neighbours:
    """The index's neighbours with similarities from the vectors themselves, in the order of an exact search."""
    similarities = np.empty(found.shape, np.float32)
    step = max(1, _CELLS_AT_ONCE // (found.shape[1] * among.shape[1]))
    for start in range(0, len(found), step):
        part = slice(start, start + step)
        similarities[part] = _rounded(np.einsum("nd,nkd->nk", queries[part], among[found[part]]))
    order = np.lexsort((found, -similarities), axis=1)
    return Neighbours(np.take_along_axis(found, order, axis=1), np.take_along_axis(similarities, order, axis=1))


def _top(block: Floats, k: int) -> Indices:
    """Columns of the k highest values of each row, highest first, ties by the lower column."""
    if k == 1:
        return np.asarray(block.argmax(axis=1)[:, None], dtype=np.int64)
    least = -np.partition(-block, k - 1, axis=1)[:, k - 1]
    rows = []
    for values, low in zip(block, least, strict=True):
        above = np.flatnonzero(values > low)
        level = np.flatnonzero(values == low)[: k - len(above)]
        chosen = np.concatenate([above, level])
        rows.append(chosen[np.lexsort((chosen, -values[chosen]))])
    return np.array(rows, dtype=np.int64)


def _rounded(similarities: Floats) -> Floats:
    """Six decimals: a matrix product gives equal vectors values that differ in the seventh."""
    np.multiply(similarities, np.float32(1e6), out=similarities)
    np.rint(similarities, out=similarities)
    return np.divide(similarities, np.float32(1e6), out=similarities)
