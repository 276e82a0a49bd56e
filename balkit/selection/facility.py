"""Facility location: rows that all others are near to, by exact greedy, and in parts where there are many."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from balkit.selection.grid import CELLS_AT_ONCE, ONE, Floats, Indices, blocks, to_nearest

Steps = npt.NDArray[np.int16]
Doubles = npt.NDArray[np.float64]

ROWS_AT_ONCE = 23_170  # candidates whose similarities to each other are kept: 1 GiB
STEPS = 32_768  # similarities are whole 32,768ths, in int16

_PART = 8_192  # rows of a part where there are more
_FEW = 4_096  # rows that the parts hand on at least, all together
_CELLS = 1 << 26  # similarities between these and the rows that they are judged by: 128 MiB
_CACHED = 1 << 18  # similarities that are worked on at once
_PAIRED = 256  # rows whose similarities to all later ones are computed at once
_SUMMED = 1 << 16  # of these, that many may be added up in 32 bits


@dataclass(frozen=True)
class Picks:
    """Rows in the order in which they were picked, and what each added when it was."""

    rows: list[int]
    gains: list[float]


def facility_location(
    vectors: Floats,
    *,
    chosen: Floats,
    depth: int,
    bonus: Doubles | None = None,
    rows_at_once: int = ROWS_AT_ONCE,
) -> Picks:
    """Greedy on the mean over all rows of max(cosine, 0) to the nearest chosen row, ties to the lower row.

    A row that points away covers nothing, hence max(cosine, 0) and not (1 + cosine) / 2. The objective is
    monotone submodular, so greedy reaches at least 1 - 1/e of the best (Nemhauser et al. 1978).

    vectors, chosen  on the grid; coverage starts from what the chosen rows cover
    bonus            what a row is worth beyond what it covers, in the unit of the mean
    rows_at_once     from more rows on they are taken in parts (`_in_parts`), for which their order should be random
    gains            what the mean rose by, 0-1, without the bonus
    """
    covered = in_steps(to_nearest(vectors, among=chosen))
    worth = np.zeros(len(vectors)) if bonus is None else bonus
    if len(vectors) <= rows_at_once:
        return _greedy(_among(vectors), covered, worth=worth, depth=depth)
    return _in_parts(vectors, covered, worth=worth, depth=depth, part=min(_PART, rows_at_once))


def in_steps(dots: Floats) -> Steps:
    """max(cosine, 0) in whole 32,768ths, rounded down, from dot products on the grid."""
    return np.asarray(np.clip(dots * np.float32(STEPS / ONE), 0, STEPS - 1), dtype=np.int16)


def similarities(rows: Floats, columns: Floats) -> Steps:
    """`(len(rows), len(columns)) int16`, block by block."""
    found = np.empty((len(rows), len(columns)), dtype=np.int16)
    for block in blocks(len(rows), size=max(1, CELLS_AT_ONCE // max(1, len(columns)))):
        found[block[0] : block[-1] + 1] = in_steps(rows[block[0] : block[-1] + 1] @ columns.T)
    return found


def _among(vectors: Floats) -> Steps:
    """The similarities of rows to each other, each pair computed once."""
    n = len(vectors)
    found = np.empty((n, n), dtype=np.int16)
    for block in blocks(n, size=max(1, min(_PAIRED, CELLS_AT_ONCE // max(1, n)))):
        first, end = block[0], block[-1] + 1
        found[first:end, first:] = in_steps(vectors[first:end] @ vectors[first:].T)
        found[end:, first:end] = found[first:end, end:].T
    return found


def _in_parts(vectors: Floats, covered: Steps, *, worth: Doubles, depth: int, part: int) -> Picks:
    """Greedy inside random parts, then greedy among what these picked.

    GreeDi (Mirzasoleiman et al., NeurIPS 2013) with parts at random (Barbosa et al., ICML 2015): where each part hands
    on as many rows as are wanted, at least (1 - 1/e) / 2 of the best is expected; here all parts together hand on
    twice as many, or 4,096. The second greedy judges these by the first rows, a random sample that memory bounds.
    """
    n = len(vectors)
    count = math.ceil(n / part)
    each = math.ceil(max(_FEW, 2 * depth) / count)
    handed: list[int] = []
    for rows in np.array_split(np.arange(n), count):
        here = slice(rows[0], rows[-1] + 1)
        picks = _greedy(_among(vectors[here]), covered[here], worth=worth[here], depth=min(each, len(rows)))
        handed += [int(rows[row]) for row in picks.rows]
    among = np.array(sorted(handed), dtype=np.int64)
    seen = min(n, max(part, _CELLS // len(among)))
    judged = similarities(vectors[:seen], vectors[among])
    picks = _greedy(judged, covered[:seen], worth=worth[among], depth=min(depth, len(among)))
    return Picks([int(among[row]) for row in picks.rows], picks.gains)


def _greedy(similarity: Steps, covered: Steps, *, worth: Doubles, depth: int) -> Picks:
    """Columns by what they add to the rows' coverage and are worth, each given those before it, ties to the lower.

    What every column would add is kept up to date: a pick raises what covers some rows, and only what the columns
    would have added to these changes. Sums of integers, so that the result is that of computing all anew.
    """
    rows, columns = similarity.shape
    whole = rows * STEPS
    adds = np.zeros(columns, dtype=np.int64)
    size = max(1, min(_SUMMED, _CACHED // columns))
    for block in blocks(rows, size=size):
        adds += _above(similarity[block[0] : block[-1] + 1], covered[block])
    bonus = worth * whole
    picks, gains = [], []
    for _ in range(depth):
        best = int(np.argmax(adds + bonus))
        picks.append(best)
        gains.append(float(adds[best] / whole))
        bonus[best] = -np.inf
        now = np.maximum(covered, similarity[:, best])
        raised = np.flatnonzero(now > covered)
        for start in range(0, len(raised), size):
            some = raised[start : start + size]
            adds -= _above(similarity[some], covered[some], most=now[some])
        covered = now
    return Picks(picks, gains)


def _above(similarity: Steps, covered: Steps, *, most: Steps | None = None) -> Indices:
    """By column, the sum over rows of how far a similarity, cut at `most`, is above what covers the row."""
    low = covered[:, None]
    cut = np.maximum(similarity, low) if most is None else np.clip(similarity, low, most[:, None])
    return np.asarray(cut.sum(axis=0, dtype=np.int32) - covered.sum(dtype=np.int64), dtype=np.int64)
