"""Coverage: k-center, facility location, and how well chosen rows stand for all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from balkit.selection.grid import CELLS_AT_ONCE, ONE, Floats, Indices, blocks, to_nearest, unit

Steps = npt.NDArray[np.int16]

CELLS_KEPT = 1 << 29  # a similarity matrix up to this size is kept: 1 GiB, 23,170 candidates
_STEPS = 32767  # similarities of facility location are whole 32,768ths, in int16


@dataclass(frozen=True)
class Picks:
    """Rows in the order in which they were picked, and what each added when it was."""

    rows: list[int]
    gains: list[float]


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


def facility_location(vectors: Floats, *, chosen: Floats, depth: int, cells_kept: int = CELLS_KEPT) -> Picks:
    """Greedy on the mean over all rows of max(cosine, 0) to the nearest chosen row, ties to the lower row.

    A row that points away covers nothing, hence max(cosine, 0) and not (1 + cosine) / 2. The objective is
    monotone submodular, so greedy reaches at least 1 - 1/e of the best (Nemhauser et al. 1978).

    vectors, chosen  on the grid; coverage starts from what the chosen rows cover
    cells_kept       similarities (2 bytes each) that may be kept in memory; beyond, they are computed again and again
    gains            what the mean rose by, 0-1
    """
    covered = _in_steps(to_nearest(vectors, among=chosen))
    picks, gains = _lazy_greedy(_Similarities(vectors, cells_kept=cells_kept), covered, depth)
    return Picks(picks, [gain / (len(vectors) * (_STEPS + 1)) for gain in gains])


def _in_steps(similarities: Floats) -> Steps:
    return np.asarray(np.clip(similarities * np.float32((_STEPS + 1) / ONE), 0, _STEPS), dtype=np.int16)


class _Similarities:
    """max(cosine, 0) of some rows to all rows, in steps: from a kept matrix where that is small enough."""

    def __init__(self, vectors: Floats, *, cells_kept: int) -> None:
        self._vectors = vectors
        self._kept: Steps | None = None
        n = len(vectors)
        self.blocks = blocks(n, size=max(1, CELLS_AT_ONCE // n))
        self.at_once = 64  # rows worth computing in one go
        if n * n <= cells_kept:
            self._kept = np.concatenate([self.of(rows) for rows in self.blocks])
            self.at_once = 1

    def of(self, rows: Indices) -> Steps:
        """`(len(rows), n)`."""
        if self._kept is not None:
            return self._kept[rows]
        return _in_steps(self._vectors[rows] @ self._vectors.T)


def _lazy_greedy(similarities: _Similarities, covered: Steps, depth: int) -> tuple[list[int], list[int]]:
    """Rows by the similarity they add, each given those before it, ties to the lower row; and what they add.

    Lazy (Minoux 1978): what a row adds only falls as others are chosen, so an old value is a bound, and only the
    row with the highest bound is computed again. The result equals that of computing all of them.
    """
    total = np.int64 if len(covered) > 2**16 else np.int32

    def added(rows: Indices) -> Indices:
        sums = np.maximum(similarities.of(rows), covered).sum(axis=1, dtype=total)
        return np.asarray(sums - covered.sum(dtype=total), dtype=np.int64)

    bound = np.concatenate([added(rows) for rows in similarities.blocks])
    fresh = np.ones(len(covered), dtype=bool)
    picks: list[int] = []
    gains: list[int] = []
    while len(picks) < depth:
        best = int(np.argmax(bound))
        if not fresh[best] and bound[best] > 0:  # what adds nothing stays so
            rows = _highest(bound, fresh, similarities.at_once, first=best)
            bound[rows] = added(rows)
            fresh[rows] = True
            continue
        picks.append(best)
        gains.append(int(bound[best]))
        covered = np.maximum(covered, similarities.of(np.array([best]))[0])
        bound[best] = -1
        fresh[:] = False
    return picks, gains


def _highest(bound: Indices, fresh: npt.NDArray[np.bool_], count: int, *, first: int) -> Indices:
    """`first` and the rows with the next highest bounds, about `count` in all, of those not fresh and not taken."""
    if count == 1:
        return np.array([first])
    stale = np.flatnonzero(~fresh & (bound > 0))
    if count < len(stale):
        stale = stale[np.argpartition(-bound[stale], count)[:count]]
    return np.union1d(stale, [first])
