"""From rows to a tree of clusters: many small k-means cells, then merged two at a time.

k-means alone cuts a big cluster into pieces of like size before it finds a small one. Merging cells by Ward's rise
in variance, n m / (n + m) d**2, does the same, for its first factor grows with the sizes; merging by distance alone
ends in one giant and outliers. The square root of that factor stands between the two: docs/benchmarks.md compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from balkit.clusters.grid import Doubles, Floats, Indices, nearest, sums_of, unit_on_grid

CELLS = 256
_ROWS_FITTED = 50_000  # k-means learns from a sample of so many rows; all rows are then put into cells
_ROWS_SEEDED = 10_000
_ROUNDS = 30


@dataclass(frozen=True)
class Cells:
    """Small clusters of all rows, none of them empty.

    sums   (m, d) float64, the sum of each cell's rows on the grid
    sizes  (m,) int64, rows of each cell
    """

    sums: Doubles
    sizes: Indices


def cells_of(rows: Floats, *, count: int, rng: np.random.Generator) -> Cells:
    """At most `count` cells by spherical k-means (Dhillon & Modha 2001), seeded by k-means++ on a sample."""
    sample = rows[_some(len(rows), _ROWS_FITTED, rng)]
    centres = _seeds(sample[_some(len(sample), _ROWS_SEEDED, rng)], count=count, rng=rng)
    before = np.full(len(sample), -1, dtype=np.int64)
    for _ in range(_ROUNDS):
        labels, _ = nearest(sample, centres)
        if np.array_equal(labels, before):
            break
        sums = sums_of(sample, labels, count=len(centres))
        full = np.bincount(labels, minlength=len(centres)) > 0
        centres = np.where(full[:, None], unit_on_grid(sums), centres)
        before = labels
    labels, _ = nearest(rows, centres)
    used, labels = np.unique(labels, return_inverse=True)
    return Cells(sums_of(rows, labels, count=len(used)), np.bincount(labels).astype(np.int64))


def _some(n: int, most: int, rng: np.random.Generator) -> Indices:
    if n <= most:
        return np.arange(n)
    return np.sort(rng.choice(n, size=most, replace=False)).astype(np.int64)


def _seeds(rows: Floats, *, count: int, rng: np.random.Generator) -> Floats:
    """k-means++ (Arthur & Vassilvitskii 2007); d**2 of unit vectors is twice 1 minus cosine. Fewer if rows run out."""
    chosen = [int(rng.integers(len(rows)))]
    norms = np.einsum("nd,nd->n", rows, rows)
    apart = np.full(len(rows), np.inf)
    while len(chosen) < count:
        last = rows[chosen[-1]]
        apart = np.minimum(apart, norms + norms[chosen[-1]] - 2 * np.asarray(rows @ last, dtype=np.float64))
        total = np.cumsum(apart)
        if total[-1] <= 0:
            break
        chosen.append(int(np.searchsorted(total, rng.random() * total[-1], side="right")))
    return rows[chosen].copy()


def levels(cells: Cells) -> list[Indices]:
    """The group of every cell, from one group down to one for each cell: entry i has i + 1 groups.

    Each step joins the two groups a, b with the least sqrt(n_a n_b / (n_a + n_b)) |mean_a - mean_b|**2, ties to the
    lower ones. Memory: cells * cells; no matrix product, so that the number of threads changes nothing.
    """
    sums, sizes = cells.sums.copy(), cells.sizes.astype(np.float64)
    group = np.arange(len(sizes))
    cost = np.stack([_costs(sums, sizes, i) for i in range(len(sizes))])
    found = [group.copy()]
    for _ in range(len(sizes) - 1):
        a, b = sorted(divmod(int(cost.argmin()), len(sizes)))
        sums[a] += sums[b]
        sizes[a] += sizes[b]
        sizes[b] = 0
        group[group == b] = a
        cost[b, :] = cost[:, b] = np.inf
        cost[a, :] = cost[:, a] = _costs(sums, sizes, a)
        found.append(group.copy())
    return found[::-1]


def _costs(sums: Doubles, sizes: Doubles, i: int) -> Doubles:
    """What joining group i with each other one costs; infinite for itself and for those joined before."""
    means = sums / np.maximum(sizes, 1)[:, None]
    factor = np.sqrt(sizes * sizes[i] / np.maximum(sizes + sizes[i], 1))
    costs = factor * np.square(means - means[i]).sum(axis=1)
    costs[sizes == 0] = np.inf
    costs[i] = np.inf
    return np.asarray(costs, dtype=np.float64)


def cuts(cells: Cells, *, most: int, min_rows: int) -> Iterator[Floats]:
    """Centres on the grid for 2, 3, ... groups of at least `min_rows` rows, as far as the tree has them.

    Smaller groups at a level are left out: their rows will go to the nearest centre.
    """
    reached = 1
    for group in levels(cells):
        sizes = np.bincount(group, weights=cells.sizes, minlength=len(group))
        large = np.flatnonzero(sizes >= min_rows)
        if reached < len(large) <= most:
            reached = len(large)
            yield unit_on_grid(np.stack([cells.sums[group == g].sum(axis=0) for g in large]))
