"""Stratified order: random inside clusters, every cluster in its share."""

from __future__ import annotations

import numpy as np

from balkit.selection.grid import GRID, Floats, Indices, nearest_row

_ITERATIONS = 20


def clusters(vectors: Floats, *, k: int) -> Indices:
    """Spherical k-means from the first k rows, which the hash order makes random; some clusters may stay empty."""
    centres = vectors[:k]
    cluster = np.full(len(vectors), -1, dtype=np.int64)
    for _ in range(_ITERATIONS):
        before, cluster = cluster, nearest_row(vectors, among=centres)
        if np.array_equal(before, cluster):
            break
        sums = np.array([vectors[cluster == c].sum(axis=0, dtype=np.float64) for c in range(k)])
        norms = np.sqrt(np.square(sums).sum(axis=1, keepdims=True))
        moved = np.rint(sums / np.where(norms > 0, norms, 1) * GRID).astype(np.float32)
        centres = np.where(norms > 0, moved, centres)
    return cluster


def interleaved(cluster: Indices, *, depth: int) -> list[int]:
    """The first `depth` rows of an order in which each prefix holds p * size / n rows of a cluster, rounded up or down.

    Tijdeman, "The chairman assignment problem", Discrete Mathematics 32 (1980): of the clusters that may come
    next, the one that must come soonest.
    """
    sizes = np.bincount(cluster)
    sizes = sizes[sizes > 0]
    members = [iter(np.flatnonzero(cluster == c)) for c in np.unique(cluster)]
    share = sizes / sizes.sum()
    slack = 1 / (2 * len(sizes) - 2) if len(sizes) > 1 else 0.0
    taken = np.zeros(len(sizes))
    picks = []
    for place in range(1, depth + 1):
        owed = share * place - taken
        due = np.where((owed >= slack - 1e-9) & (taken < sizes), (1 - slack - owed) / share, np.inf)
        c = int(np.argmin(due))
        taken[c] += 1
        picks.append(int(next(members[c])))
    return picks
