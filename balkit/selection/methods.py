"""The methods: each puts a domain's rows in its order of preference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from balkit import own
from balkit.errors import BalkitError, VectorError
from balkit.recipe import SCORES_OF
from balkit.selection import coverage, strata
from balkit.selection.facility import Picks, facility_location
from balkit.selection.grid import Floats, Indices
from balkit.selection.medoids import medoids

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """What is known of the candidates, row by row, and what the snapshot already holds of their domain.

    vectors         (n, d) float32, rows L2-normalised; for the methods of `needs_vectors`
    chosen          (m, d) float32, rows L2-normalised: rows chosen in earlier stages, from which coverage continues
    scores          (n,) float64, NaN = unscored: the score that `needs_scores` names
    reasons         (n,) why a row is unscored
    max_ifd         ifd, ifd_coverage: a score at or above is dropped as misaligned
    quality_weight  ifd_coverage: what the score counts beside coverage, 0-1
    strata          clusters of stratified
    """

    vectors: Floats | None = None
    chosen: Floats | None = None
    scores: Doubles | None = None
    reasons: Sequence[str | None] | None = None
    max_ifd: float = 1.0
    quality_weight: float = 0.5
    strata: int = 20


@dataclass(frozen=True)
class Task:
    """What a method is asked: `n` rows in an order that the seed makes random, so that the lower index wins a tie.

    The first `quota` of its order are kept, and `depth` rows are worth an effort: what follows replaces refused rows.
    `evidence` is in the order of the rows, its vectors on the grid (`on_grid`).
    """

    n: int
    quota: int
    depth: int
    evidence: Evidence
    method: str

    @property
    def vectors(self) -> Floats:
        """The candidates' vectors. Raises `VectorError` where there are none."""
        if self.evidence.vectors is None:
            raise VectorError(f"method {self.method} needs the candidates' vectors, and none were given")
        return self.evidence.vectors

    @property
    def chosen(self) -> Floats:
        """The chosen rows' vectors, perhaps none. Raises `VectorError` where they are of another encoder."""
        chosen, vectors = self.evidence.chosen, self.vectors
        if chosen is None or not len(chosen):
            return vectors[:0]
        if chosen.shape[1] != vectors.shape[1]:
            raise VectorError(f"chosen rows have {chosen.shape[1]} dimensions, the candidates {vectors.shape[1]}")
        return chosen

    @property
    def scores(self) -> Doubles:
        """The scores. Raises `BalkitError` where there are none."""
        if self.evidence.scores is None:
            raise BalkitError(
                f"method {self.method} needs scores: score the candidates with a student, or choose another method"
            )
        return self.evidence.scores


@dataclass(frozen=True)
class Ranking:
    """Rows in the order of preference; those not in `order` are dropped. `gain` is NaN where it says nothing.

    notes   row -> why it is dropped or comes last
    detail  row -> what else is to be known of it
    """

    order: Indices
    gain: Doubles
    notes: dict[int, str] = field(default_factory=dict)
    detail: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Way:
    """A method: how it ranks, and whether it reads vectors. `score` names the score that it reads."""

    name: str
    rank: Callable[[Task], Ranking]
    vectors: bool = False
    score: str | None = None


def preferring(task: Task, picks: Sequence[int], gains: Sequence[float] = ()) -> Ranking:
    """The picks first, then every other row in its order."""
    first = np.array(picks, dtype=np.int64)
    gain = np.full(task.n, np.nan)
    if len(gains):
        gain[first] = gains
    return Ranking(np.concatenate([first, np.setdiff1d(np.arange(task.n), first)]), gain)


def _random(task: Task) -> Ranking:
    return preferring(task, picks=[])


def _stratified(task: Task) -> Ranking:
    cluster = strata.clusters(task.vectors, k=min(max(1, task.evidence.strata), task.n))
    ranked = preferring(task, strata.interleaved(cluster, depth=task.depth))
    return Ranking(ranked.order, ranked.gain, detail={row: f"cluster {c}" for row, c in enumerate(cluster.tolist())})


def _k_center(task: Task) -> Ranking:
    return _picked(task, coverage.k_center(task.vectors, chosen=task.chosen, depth=task.depth))


def _facility_location(task: Task) -> Ranking:
    return _picked(task, facility_location(task.vectors, chosen=task.chosen, depth=task.depth))


def _medoids(task: Task) -> Ranking:
    return _picked(task, medoids(task.vectors, chosen=task.chosen, quota=task.quota, depth=task.depth))


def _picked(task: Task, picks: Picks) -> Ranking:
    return preferring(task, picks.rows, picks.gains)


def _highest_first(task: Task) -> Ranking:
    return _by_score(task, most=np.inf)


def _by_ifd(task: Task) -> Ranking:
    return _by_score(task, most=task.evidence.max_ifd)


def _ifd_coverage(task: Task) -> Ranking:
    """Facility location of the rows that are not dropped, where a pick is also worth its place by score.

    Maximises (1 - w) * coverage + w * mean quality of the quota, divided by 1 - w; see docs/selection.md.
    """
    best = _by_score(task, most=task.evidence.max_ifd)
    weight, scores, gain = task.evidence.quality_weight, task.scores, np.full(task.n, np.nan)
    detail = {row: f"ifd {scores[row]:.4g}" for row in np.flatnonzero(np.isfinite(scores)).tolist()}
    usable = np.array(sorted(row for row in range(task.n) if row not in best.notes), dtype=np.int64)
    if weight == 1 or not len(usable):
        return replace(best, gain=gain, detail=detail)
    quality = np.searchsorted(np.sort(scores[usable]), scores[usable], side="right") / len(usable)
    worth = weight / (1 - weight) * quality / max(1, task.quota)
    depth = min(task.depth, len(usable))
    picks = facility_location(task.vectors[usable], chosen=task.chosen, depth=depth, bonus=worth)
    first = usable[picks.rows]
    gain[first] = picks.gains
    order = np.concatenate([first, best.order[~np.isin(best.order, first)]])
    return Ranking(order, gain, notes=best.notes, detail=detail)


def _by_score(task: Task, *, most: float) -> Ranking:
    """The highest score first; at or above `most` dropped; unscored rows last, with their reason."""
    scores, reasons = task.scores, task.evidence.reasons or [None] * task.n
    told = np.isfinite(scores)
    usable, unscored = np.flatnonzero(told & (scores < most)), np.flatnonzero(~told)
    notes = dict.fromkeys(np.flatnonzero(told & (scores >= most)).tolist(), "ifd at or above max")
    notes |= {row: f"unscored: {reasons[row] or 'not_finite'}" for row in unscored.tolist()}
    best_first = usable[np.argsort(-scores[usable], kind="stable")]
    return Ranking(np.concatenate([best_first, unscored]), np.where(told, scores, np.nan), notes=notes)


METHODS = {
    way.name: way
    for way in (
        Way("random", _random),
        Way("stratified", _stratified, vectors=True),
        Way("k_center", _k_center, vectors=True),
        Way("facility_location", _facility_location, vectors=True),
        Way("medoids", _medoids, vectors=True),
        Way("ifd", _by_ifd, score=SCORES_OF["ifd"]),
        Way("loss", _highest_first, score=SCORES_OF["loss"]),
        Way("uncertainty", _highest_first, score=SCORES_OF["uncertainty"]),
        Way("ifd_coverage", _ifd_coverage, vectors=True, score=SCORES_OF["ifd_coverage"]),
    )
}


def way_of(method: str) -> Way:
    """The `Way` of a method's name, or the one in a Python file. Raises `BalkitError` for a file that makes none."""
    return own.object_of(method, Way) if method.endswith(own.SUFFIX) else METHODS[method]
