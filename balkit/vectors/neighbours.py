"""Nearest neighbours by cosine similarity: exact in blocks, by cells, or through an hnswlib index on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from balkit.errors import VectorError
from balkit.vectors import cells, graph
from balkit.vectors.best import MOST_COLUMNS, Floats, Indices, exact, measured

Method = Literal["auto", "exact", "cells", "graph"]

#: The share of exact neighbours that cells are chosen for. What was found is measured on other queries.
RECALL = 0.993

#: Queries a cell, below which making cells does not pay; see docs/vectors.md.
_QUERIES_A_CELL = 8


@dataclass(frozen=True)
class Neighbours:
    """The nearest rows of `among` for every query, nearest first.

    indices       (n, k) int64, rows of `among`
    similarities  (n, k) float32, cosine, rounded to 6 decimals
    method        how they were looked for: exact, cells or graph
    recall        the share of the exact neighbours that was found: 1 where exact, else measured on 500 of the queries
    """

    indices: Indices
    similarities: Floats
    method: str = "exact"
    recall: float = 1.0


@dataclass(frozen=True)
class Closest:
    """The one nearest row for every query; index -1 and similarity -1 where there was nothing to be near to.

    index       (n,) int64
    similarity  (n,) float32, cosine
    """

    index: Indices
    similarity: Floats


def neighbours(
    queries: Floats, *, among: Floats, k: int, method: Method = "auto", cache: Path | None = None
) -> Neighbours:
    """The k nearest rows of `among` to every query; all of them, in order, where `among` has fewer than k.

    queries, among  (n, d) and (m, d) float32, rows L2-normalised
    method          exact looks at every row; cells at those around the nearest of some centres, as many as recall asks
                    for; graph is hnswlib's index (exact where that is missing). auto: cells where there are enough
                    queries to pay for making them, and exact where these would not be quicker
    cache           graph: a folder for the index, which is kept by the digest of `among`, always safe to delete

    A row of `among` that is also a query finds itself first. Ties go to the lower index. Memory: a copy of `among` and
    ~100 MB. Raises `VectorError` for vectors that are not finite or not of one dimension.
    """
    _check(queries, among)
    k = min(k, len(among))
    if k < 1 or not len(queries):
        nothing = (len(queries), max(k, 0))
        return Neighbours(np.zeros(nothing, np.int64), np.zeros(nothing, np.float32))
    found = None
    if method == "graph":
        found = graph.search(queries, among=among, k=k, cache=cache)
    elif method == "cells" or (method == "auto" and len(queries) >= _QUERIES_A_CELL * cells.number_of(len(among))):
        method = "cells"
        found = cells.search(queries, among, k=k, recall=RECALL) if len(among) <= MOST_COLUMNS else None
    if found is None:
        return Neighbours(*_exact(queries, among, k=k))
    indices, similarities = measured(queries, among, found)
    return Neighbours(indices, similarities, method, _recall(queries, among, similarities))


def most_similar(queries: Floats, *, among: Floats) -> Closest:
    """The nearest row of `among` for every query, by exact search."""
    if not len(among):
        return Closest(np.full(len(queries), -1, np.int64), np.full(len(queries), -1.0, np.float32))
    found = neighbours(queries, among=among, k=1, method="exact")
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


def _exact(queries: Floats, among: Floats, *, k: int) -> tuple[Indices, Floats]:
    found = []
    for start in range(0, len(among), MOST_COLUMNS):
        part = among[start : start + MOST_COLUMNS]
        found.append(exact(queries, part, k=min(k, len(part))) + start)
    indices, similarities = measured(queries, among, np.concatenate(found, axis=1))
    return indices[:, :k], similarities[:, :k]


def _recall(queries: Floats, among: Floats, similarities: Floats) -> float:
    """Of some queries the share of neighbours that are as near as the exact ones."""
    tried = cells.sample(len(queries), second=len(queries) >= 2 * cells.SAMPLE)
    _, wanted = _exact(queries[tried], among, k=similarities.shape[1])
    return float(np.mean(similarities[tried] >= wanted[:, -1:] - np.float32(1e-6)))
