"""Coverage: k-center, and how well chosen rows stand for all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from balkit.selection.facility import Picks
from balkit.selection.grid import ONE, Floats, Indices, nearest_row, on_grid, to_nearest, unit


@dataclass(frozen=True)
class Spread:
    """How well chosen rows stand for all rows; a similarity is max(cosine, 0), a distance 1 minus it.

    radius           the largest distance of a row to its nearest chosen one
    mean_similarity  the mean similarity of a row to its nearest chosen one, 0-1
    """

    radius: float
    mean_similarity: float


def spread(chosen: Floats, every: Floats) -> Spread:
    """How well `chosen` (m, d) covers `every` (n, d), both float32 with L2-normalised rows."""
    if not len(every):
        return Spread(radius=0.0, mean_similarity=1.0)
    nearest = np.minimum(to_nearest(unit(every, name="every"), among=unit(chosen, name="chosen")), 1)
    return Spread(radius=float(1 - nearest.min()), mean_similarity=float(nearest.mean(dtype=np.float64)))


def nearest(vectors: Floats, *, among: Floats) -> Indices:
    """`(n,) int64`: the row of `among` (m, d), m > 0, that is nearest to each of `vectors` (n, d), ties to the lower.

    Both float32 with L2-normalised rows, rounded as `on_grid` does.
    """
    return nearest_row(on_grid(vectors, name="vectors"), among=on_grid(among, name="among"))


def k_center(vectors: Floats, *, chosen: Floats, depth: int) -> Picks:
    """Farthest first (Gonzalez 1985): always the row least similar to all chosen so far, ties to the lower row.

    vectors, chosen  on the grid; without chosen rows the first pick is the most central
    gains            the distance 1 - max(cosine, 0) to the nearest chosen row when it was picked
    """
    nearest = to_nearest(vectors, among=chosen)
    open_ = np.ones(len(vectors), dtype=bool)
    picks: list[int] = []
    gains: list[float] = []
    while len(picks) < depth:
        central = not picks and not len(chosen)
        row = _most_central(vectors) if central else int(np.argmin(np.where(open_, nearest, np.inf)))
        picks.append(row)
        gains.append(max(0.0, float(1 - nearest[row] / ONE)))
        open_[row] = False
        nearest = np.maximum(nearest, vectors @ vectors[row])
    return Picks(picks, gains)


def _most_central(vectors: Floats) -> int:
    return int(np.argmax(vectors.astype(np.float64) @ vectors.sum(axis=0, dtype=np.float64)))
