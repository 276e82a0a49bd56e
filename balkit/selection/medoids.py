"""k-medoids: rows that stand for clusters, each the member that is most similar to the others of its cluster."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from balkit.selection.facility import STEPS, Picks, Steps, facility_location, in_steps, similarities
from balkit.selection.grid import CELLS_AT_ONCE, Floats, Indices, blocks, to_nearest

_ROUNDS = 20
_MEMBERS = 8_192  # of a cluster that may become its medoid, and that it is judged by


def medoids(vectors: Floats, *, chosen: Floats, quota: int, depth: int) -> Picks:
    """`quota` medoids, the one that adds most similarity first; then, up to `depth`, greedy facility location goes on.

    The sum of distances that k-medoids makes small is facility location's objective turned round, so its greedy is
    the BUILD of PAM (Kaufman and Rousseeuw 1990). Then in turn every row goes to its nearest medoid and every
    cluster to its best member (Park and Jun 2009) until nothing changes or 20 times. No turn lowers the objective
    while clusters have 8,192 members at most; of larger ones so many are judged, by each other, and a turn may.

    vectors, chosen  on the grid, in an order that is random where there are more than 8,192 of a cluster;
                     chosen rows are medoids that stay where they are
    gains            the mean similarity that a medoid's cluster has from it beyond the chosen rows; then as there
    """
    first = facility_location(vectors, chosen=chosen, depth=depth)
    if quota <= 0 or quota >= len(vectors):
        return first
    covered = in_steps(to_nearest(vectors, among=chosen))
    rows = np.array(first.rows[:quota], dtype=np.int64)
    for _ in range(_ROUNDS):
        moved = _moved(rows, vectors, covered)
        if np.array_equal(moved, rows):
            break
        rows = moved
    cluster, similarity = _nearest(rows, vectors)
    above = np.maximum(similarity, covered).astype(np.int64) - covered
    stands_for = np.bincount(cluster, weights=above, minlength=len(rows))
    order = np.lexsort((rows, -stands_for))
    best = rows[order]
    after = facility_location(vectors, chosen=np.concatenate([chosen, vectors[best]]), depth=depth) if depth else first
    taken = set(best.tolist())
    more = [(row, gain) for row, gain in zip(after.rows, after.gains, strict=True) if row not in taken]
    more = more[: depth - len(best)]
    gains = (stands_for[order] / (len(vectors) * STEPS)).tolist()
    return Picks([*best.tolist(), *(row for row, _ in more)], [*gains, *(gain for _, gain in more)])


def _moved(rows: Indices, vectors: Floats, covered: Steps) -> Indices:
    """The best member of each medoid's cluster; a medoid stays where no member is better."""
    cluster, _ = _nearest(rows, vectors)
    moved = rows.copy()
    by_cluster = np.argsort(cluster, kind="stable")
    ends = np.searchsorted(cluster[by_cluster], np.arange(len(rows) + 1))
    for number, (start, end) in enumerate(pairwise(ends.tolist())):
        members = by_cluster[start:end][:_MEMBERS]
        if rows[number] not in members:
            members = np.append(members, rows[number])
        own = covered[members]
        sums = np.maximum(similarities(vectors[members], vectors[members]), own[:, None]).sum(axis=0, dtype=np.int64)
        if sums.max() > sums[members == rows[number]][0]:
            moved[number] = members[int(np.argmax(sums))]
    return moved


def _nearest(rows: Indices, vectors: Floats) -> tuple[Indices, Steps]:
    """Of every row: which medoid is nearest, ties to the earlier one, and how similar that is."""
    cluster = np.empty(len(vectors), dtype=np.int64)
    similarity = np.empty(len(vectors), dtype=np.int16)
    among = vectors[rows].T
    for block in blocks(len(vectors), size=max(1, CELLS_AT_ONCE // len(rows))):
        found = in_steps(vectors[block] @ among)
        cluster[block] = found.argmax(axis=1)
        similarity[block] = found.max(axis=1)
    cluster[rows] = np.arange(len(rows))  # of two equal rows each stands for itself
    return cluster, similarity
