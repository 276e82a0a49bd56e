"""Partition, then exact: rows are put into cells around centres, and a query looks into the cells nearest to it.

How many cells that are is chosen on a sample of the queries whose neighbours are known, so that the recall asked for
is met whatever the vectors are like. Centres are found on whole numbers (vectors times 2**11, whose products float32
adds without error), so that cells are the same for every BLAS and number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from balkit.vectors.best import MOST_ROWS, Best, Floats, Indices, exact

_GRID = np.float32(2048)
_ROWS_A_CENTRE = 64  # of the sample that centres are found on
SAMPLE = 500  # queries
_TOO_MANY = 0.4  # of all cells: looking into so many costs what looking into all does
_ROWS = 2048


@dataclass(frozen=True)
class Cells:
    """Rows in order of their cells.

    centres  (cells, d) float32, whole numbers
    cell     (m,) int64, each row's
    order    (m,) int64, the rows, those of a cell together
    bounds   (cells + 1,) int64, where each cell begins in `order`
    """

    centres: Floats
    cell: Indices
    order: Indices
    bounds: Indices

    @classmethod
    def of(cls, rows: Floats) -> Cells:
        """So many cells as `number_of` says, by k-means on a sample."""
        count = number_of(len(rows))
        sample = rows[np.linspace(0, len(rows) - 1, min(len(rows), _ROWS_A_CENTRE * count)).astype(np.int64)]
        whole = np.rint(sample * _GRID)
        centres = whole[np.linspace(0, len(whole) - 1, count).astype(np.int64)]
        for part in (whole[::4],) * 4 + (whole,) * 4:  # the first steps are cheap
            centres = _moved(centres, part)
        cell = np.concatenate([scores.argmax(axis=1) for _, scores in _scores(rows, centres)]).astype(np.int64)
        order = np.argsort(cell, kind="stable")
        return cls(centres, cell, order, np.searchsorted(cell[order], np.arange(count + 1)))


def number_of(rows: int) -> int:
    """How many cells so many rows are put into."""
    return max(1, int(rows**0.8 / 16 + 0.5))


def search(queries: Floats, among: Floats, *, k: int, recall: float) -> Indices | None:
    """`(n, k) int64`: nearly the nearest rows of `among`; None where looking at all of them is no slower."""
    cells = Cells.of(among)
    reach = _reach(queries, among, cells, k=k, recall=recall)
    if reach is None:
        return None
    grouped = among[cells.order]
    parts = []
    for start in range(0, len(queries), MOST_ROWS):
        part = queries[start : start + MOST_ROWS]
        found = _looked_up(part, grouped, cells, reach=reach, k=k)
        short = np.flatnonzero(found[:, 0] < 0)  # fewer than k rows in all cells within reach
        found[short] = exact(part[short], among, k=k)
        parts.append(found)
    return np.concatenate(parts)


def sample(queries: int, *, second: bool) -> Indices:
    """Rows of queries to try: one lot to choose by, another to measure by."""
    mixed = np.random.default_rng(0).permutation(queries)
    return np.sort(mixed[SAMPLE : 2 * SAMPLE] if second else mixed[:SAMPLE])


def _reach(queries: Floats, among: Floats, cells: Cells, *, k: int, recall: float) -> np.float32 | None:
    """How much farther than its nearest centre another may be, so that so many neighbours are in their cells."""
    tried = queries[sample(len(queries), second=False)]
    homes = cells.cell[exact(tried, among, k=k)]
    scores = np.concatenate([scores for _, scores in _scores(tried, cells.centres)])
    scores -= scores.max(axis=1, keepdims=True)
    needed = np.sort(-np.take_along_axis(scores, homes, axis=1), axis=None)
    reach = needed[min(len(needed) - 1, int(np.ceil(recall * len(needed))))]
    return None if np.mean(scores >= -reach) > _TOO_MANY else np.float32(reach)


def _looked_up(queries: Floats, grouped: Floats, cells: Cells, *, reach: np.float32, k: int) -> Indices:
    """First the nearest cell of each query, which says what others must reach, then nearer and farther ones."""
    best = Best(len(queries), k=k)
    visits: list[list[tuple[Indices, Indices]]] = [[], [], []]
    for start, scores in _scores(queries, cells.centres):
        nearest = scores.argmax(axis=1)
        every = np.arange(len(scores))
        visits[0].append((every + start, nearest))
        scores -= scores[every, nearest][:, None]
        scores[every, nearest] = -np.inf
        row, cell = np.nonzero(scores >= -reach)
        near = scores[row, cell] >= -reach / 2
        visits[1].append((row[near] + start, cell[near]))
        visits[2].append((row[~near] + start, cell[~near]))
    for lot in visits:
        rows, cell = (np.concatenate(side) for side in zip(*lot, strict=True))
        order = np.argsort(cell, kind="stable")
        rows, bounds = rows[order], np.searchsorted(cell[order], np.arange(len(cells.centres) + 1))
        for number in np.flatnonzero(np.diff(bounds) * np.diff(cells.bounds)):
            inside = slice(cells.bounds[number], cells.bounds[number + 1])
            for start in range(bounds[number], bounds[number + 1], _ROWS):
                part = rows[start : min(start + _ROWS, bounds[number + 1])]
                best.offer(part, cells.order[inside], queries[part] @ grouped[inside].T)
        best.settle()
    return best.columns()


def _scores(rows: Floats, centres: Floats) -> Iterator[tuple[int, Floats]]:
    """Blocks of rows: where each begins, and its products with the centres, whole numbers of 2**-22."""
    for start in range(0, len(rows), _ROWS):
        yield start, np.rint(rows[start : start + _ROWS] * _GRID) @ centres.T


def _moved(centres: Floats, whole: Floats) -> Floats:
    """Each centre at the direction of the sum of its rows; one without rows stays."""
    near = np.concatenate([(whole[i : i + _ROWS] @ centres.T).argmax(axis=1) for i in range(0, len(whole), _ROWS)])
    order = np.argsort(near, kind="stable")
    used, first = np.unique(near[order], return_index=True)
    sums = np.add.reduceat(whole[order], first, axis=0).astype(np.float64)
    lengths = np.sqrt(np.square(sums).sum(axis=1, keepdims=True))
    moved = centres.copy()
    moved[used] = np.rint(sums / np.maximum(lengths, 1) * float(_GRID))
    return moved
