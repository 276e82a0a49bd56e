"""Choosing the real examples that represent a domain: random, stratified, by IFD, or by coverage.

Pure: candidates and what is known of them in, DECISIONS out. One domain at a time, since scores are not
comparable across domains. The result does not depend on the order of the rows.

Vectors are rounded to multiples of 2**-11 first. Their dot products are then whole numbers below 2**24, which
float32 adds without error, so that ties, gains and the chosen rows are the same on every machine, for every
BLAS, number of threads and block size. A cosine moves by ~2e-4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from balkit import frames, texts
from balkit.errors import BalkitError, FrameError, VectorError
from balkit.recipe import Method

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_GRID = 2048.0
_ONE = _GRID * _GRID  # the dot product of a unit vector with itself, on the grid
_CELLS_AT_ONCE = 1 << 22  # similarities in one block: 16 MiB
_CELLS_KEPT = 1 << 28  # a similarity matrix up to this size is kept: 1 GiB, 16,384 candidates
_SPARE = 64  # rows ranked beyond twice the quota
_ITERATIONS = 20


@dataclass(frozen=True)
class Evidence:
    """What is known of the candidates, row by row, and what the snapshot already holds of their domain.

    vectors  (n, d) float32, rows L2-normalised; needed by stratified, k_center and facility_location
    chosen   (m, d) float32, rows L2-normalised: rows chosen in earlier stages, from which coverage continues
    scores   (n,) float64, IFD, NaN = unscored; needed by ifd
    reasons  (n,) why a row is unscored
    max_ifd  a score at or above is dropped as misaligned
    strata   clusters of stratified
    """

    vectors: Floats | None = None
    chosen: Floats | None = None
    scores: Doubles | None = None
    reasons: Sequence[str | None] | None = None
    max_ifd: float = 1.0
    strata: int = 20


@dataclass(frozen=True)
class Spread:
    """How well chosen rows stand for all rows; a similarity is max(cosine, 0), a distance 1 minus it.

    radius           the largest distance of a row to its nearest chosen one
    mean_similarity  the mean similarity of a row to its nearest chosen one, 0-1
    """

    radius: float
    mean_similarity: float


@dataclass(frozen=True)
class _Ranking:
    """Rows in the order of preference; those not in `order` are dropped. `gain` is NaN where it says nothing."""

    order: Indices
    gain: Doubles
    notes: dict[int, str]  # row -> why it is dropped or comes last
    detail: list[str | None]


def select(
    candidates: pl.DataFrame, *, quota: int, method: Method, evidence: Evidence | None = None, seed: int
) -> pl.DataFrame:
    """DECISIONS on every candidate of one domain, best first; the first `quota` ranks are kept.

    candidates  columns example_id, domain; the arrays of `evidence` follow its rows

    The order of preference goes on beyond the quota, so that a refused row is replaced by the next rank.

    random             a seeded hash of the id
    stratified         random inside the clusters of a k-means; every prefix holds each cluster's share, rounded
    ifd                highest score first; at or above `max_ifd` dropped; unscored rows last, with their reason
    k_center           farthest first: the row least similar to all chosen so far (without any, the most central)
    facility_location  greedy on the mean over candidates of max(cosine, 0) to the nearest chosen row

    The last three but ifd rank 2 * quota + 64 rows so, the others after them by the seeded hash. `gain` is the
    score (ifd), the distance 1 - max(cosine, 0) (k_center) or the mean similarity added (facility_location).
    Cost: n * depth * d for k_center, n * n * d for facility_location. Raises `FrameError` for a bad frame,
    `VectorError` for missing or unusable vectors, `BalkitError` for missing scores or a negative quota.
    """
    evidence = evidence or Evidence()
    _check(candidates, quota=quota, evidence=evidence)
    if not len(candidates):
        return frames.DECISIONS.empty()
    evidence = _on_grid(evidence)
    ids = candidates["example_id"].to_list()
    keys = [texts.rank_key(seed, example) for example in ids]
    # Rows go in hash order from here on, so the lower index wins every tie.
    shuffled = np.array(sorted(range(len(ids)), key=keys.__getitem__), dtype=np.int64)
    evidence = _reordered(evidence, shuffled)
    depth = min(len(ids), 2 * quota + _SPARE)
    ranking = _METHODS[method](len(ids), depth, evidence)
    return _decisions(candidates[shuffled.tolist()], ranking, quota=quota, method=method)


def spread(chosen: Floats, every: Floats) -> Spread:
    """How well `chosen` (m, d) covers `every` (n, d), both float32 with L2-normalised rows."""
    if not len(every):
        return Spread(radius=0.0, mean_similarity=1.0)
    nearest = np.minimum(_nearest(_unit(every, "every"), _unit(chosen, "chosen")), 1)
    return Spread(radius=float(1 - nearest.min()), mean_similarity=float(nearest.mean(dtype=np.float64)))


def _check(candidates: pl.DataFrame, *, quota: int, evidence: Evidence) -> None:
    absent = [name for name in ("example_id", "domain") if name not in candidates.columns]
    if absent:
        raise FrameError(f"candidates lack {', '.join(absent)} (there is: {', '.join(candidates.columns)})")
    if candidates["example_id"].is_duplicated().any() or candidates["example_id"].null_count():
        raise FrameError("candidates hold an example_id twice, or none")
    if candidates["domain"].n_unique() > 1:
        raise FrameError(f"candidates are of {candidates['domain'].n_unique()} domains; select one domain at a time")
    if quota < 0:
        raise BalkitError(f"a quota of {quota} rows cannot be met; it must be 0 or more")
    aligned = {"vectors": evidence.vectors, "scores": evidence.scores, "reasons": evidence.reasons}
    for name, rows in aligned.items():
        if rows is not None and len(rows) != len(candidates):
            raise BalkitError(f"{len(rows)} {name} for {len(candidates)} candidates; give one for every row, in order")


def _reordered(evidence: Evidence, order: Indices) -> Evidence:
    reasons = evidence.reasons
    return replace(
        evidence,
        vectors=None if evidence.vectors is None else evidence.vectors[order],
        scores=None if evidence.scores is None else np.asarray(evidence.scores, dtype=np.float64)[order],
        reasons=None if reasons is None else [reasons[row] for row in order.tolist()],
    )


def _decisions(candidates: pl.DataFrame, ranking: _Ranking, *, quota: int, method: str) -> pl.DataFrame:
    n = len(candidates)
    rank = np.full(n, n, dtype=np.int64)
    rank[ranking.order] = np.arange(len(ranking.order))
    kept = rank < min(quota, len(ranking.order))
    reasons = ["chosen" if keep else "below quota" for keep in kept]
    for row, note in ranking.notes.items():
        reasons[row] = f"chosen, {note}" if kept[row] else note
    ranked = pl.Series(rank, dtype=pl.Int64())
    frame = candidates.select(
        pl.col("example_id").cast(pl.String()),
        pl.col("domain").cast(pl.String()),
        step=pl.lit("select"),
        method=pl.lit(method),
        kept=pl.Series(kept, dtype=pl.Boolean()),
        reason=pl.Series(reasons, dtype=pl.String()),
        gain=pl.Series(ranking.gain, dtype=pl.Float64()).fill_nan(None),
        rank=pl.when(ranked < len(ranking.order)).then(ranked),
        detail=pl.Series(ranking.detail, dtype=pl.String()),
    )
    return frames.check(frame.sort("rank", "example_id", nulls_last=True), frames.DECISIONS)


def _ranking(n: int, picks: Sequence[int], gains: Sequence[float], detail: list[str | None] | None = None) -> _Ranking:
    """The picks first, then every other row in hash order."""
    first = np.array(picks, dtype=np.int64)
    gain = np.full(n, np.nan)
    gain[first] = gains
    rest = np.setdiff1d(np.arange(n), first)
    return _Ranking(np.concatenate([first, rest]), gain, notes={}, detail=detail or [None] * n)


def _random(n: int, depth: int, evidence: Evidence) -> _Ranking:
    return _ranking(n, picks=[], gains=[])


def _by_ifd(n: int, depth: int, evidence: Evidence) -> _Ranking:
    if evidence.scores is None:
        raise BalkitError("method ifd needs scores: score the candidates with a student, or choose another method")
    scores = evidence.scores
    reasons = evidence.reasons or [None] * n
    unscored = np.flatnonzero(~np.isfinite(scores))
    dropped = np.flatnonzero(np.isfinite(scores) & (scores >= evidence.max_ifd))
    usable = np.flatnonzero(np.isfinite(scores) & (scores < evidence.max_ifd))
    notes = {int(row): "ifd at or above max" for row in dropped}
    notes |= {row: f"unscored: {reasons[row] or 'not_finite'}" for row in unscored.tolist()}
    best_first = usable[np.argsort(-scores[usable], kind="stable")]
    gain = np.where(np.isfinite(scores), scores, np.nan)
    return _Ranking(np.concatenate([best_first, unscored]), gain, notes=notes, detail=[None] * n)


def _stratified(n: int, depth: int, evidence: Evidence) -> _Ranking:
    vectors = _vectors(evidence, "stratified")
    cluster = _clusters(vectors, k=min(max(1, evidence.strata), n))
    picks = _interleaved(cluster, depth)
    return _ranking(n, picks, [float("nan")] * len(picks), detail=[f"cluster {c}" for c in cluster])


def _clusters(vectors: Floats, *, k: int) -> Indices:
    """Spherical k-means from the first k rows, which the hash order makes random; some clusters may stay empty."""
    centres = vectors[:k]
    cluster = np.full(len(vectors), -1, dtype=np.int64)
    for _ in range(_ITERATIONS):
        before, cluster = cluster, _nearest_column(vectors, centres)
        if np.array_equal(before, cluster):
            break
        sums = np.array([vectors[cluster == c].sum(axis=0, dtype=np.float64) for c in range(k)])
        norms = np.sqrt(np.square(sums).sum(axis=1, keepdims=True))
        moved = np.rint(sums / np.where(norms > 0, norms, 1) * _GRID).astype(np.float32)
        centres = np.where(norms > 0, moved, centres)
    return cluster


def _interleaved(cluster: Indices, depth: int) -> list[int]:
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


def _k_center(n: int, depth: int, evidence: Evidence) -> _Ranking:
    vectors = _vectors(evidence, "k_center")
    chosen = _chosen(evidence, vectors)
    nearest = _nearest(vectors, chosen)
    open_ = np.ones(n, dtype=bool)
    picks: list[int] = []
    gains: list[float] = []
    while len(picks) < depth:
        central = not picks and not len(chosen)
        row = _most_central(vectors) if central else int(np.argmin(np.where(open_, nearest, np.inf)))
        picks.append(row)
        gains.append(max(0.0, float(1 - nearest[row] / _ONE)))
        open_[row] = False
        nearest = np.maximum(nearest, vectors @ vectors[row])
    return _ranking(n, picks, gains)


def _most_central(vectors: Floats) -> int:
    return int(np.argmax(vectors.astype(np.float64) @ vectors.sum(axis=0, dtype=np.float64)))


def _facility_location(n: int, depth: int, evidence: Evidence) -> _Ranking:
    vectors = _vectors(evidence, "facility_location")
    covered = _nearest(vectors, _chosen(evidence, vectors))
    picks, gains = _lazy_greedy(_Similarities(vectors), covered, depth)
    return _ranking(n, picks, [gain / (n * _ONE) for gain in gains])


class _Similarities:
    """max(cosine, 0) of some rows to all rows, on the grid: from a kept matrix where that is small enough."""

    def __init__(self, vectors: Floats) -> None:
        self._vectors = vectors
        n = len(vectors)
        self.at_once = max(1, _CELLS_AT_ONCE // n)
        self._kept = np.empty((n, n), dtype=np.float32) if n * n <= _CELLS_KEPT else None
        self.eager = 1 if self._kept is not None else 64  # rows worth computing in one go
        if self._kept is not None:
            for start in range(0, n, self.at_once):
                np.maximum(
                    vectors[start : start + self.at_once] @ vectors.T, 0, out=self._kept[start : start + self.at_once]
                )

    def of(self, rows: Indices) -> Floats:
        """`(len(rows), n)`."""
        if self._kept is not None:
            return self._kept[rows]
        return np.asarray(np.maximum(self._vectors[rows] @ self._vectors.T, 0))


def _lazy_greedy(similarities: _Similarities, covered: Floats, depth: int) -> tuple[list[int], list[float]]:
    """Rows by the similarity they add, each given those before it, ties to the lower row; and what they add.

    Lazy (Minoux 1978): what a row adds only falls as others are chosen, so an old value is a bound, and only the
    row with the highest bound is computed again. The result equals that of computing all of them.
    """
    n = len(covered)

    def added(rows: Indices) -> Doubles:
        return np.asarray(np.maximum(similarities.of(rows) - covered, 0).sum(axis=1, dtype=np.float64))

    bound = np.concatenate([added(rows) for rows in _blocks(n, similarities.at_once)])
    fresh = np.ones(n, dtype=bool)
    picks: list[int] = []
    gains: list[float] = []
    while len(picks) < depth:
        best = int(np.argmax(bound))
        if not fresh[best] and bound[best] > 0:  # what adds nothing stays so
            rows = _highest(bound, fresh, similarities.eager, first=best)
            bound[rows] = added(rows)
            fresh[rows] = True
            continue
        picks.append(best)
        gains.append(float(bound[best]))
        covered = np.maximum(covered, similarities.of(np.array([best]))[0])
        bound[best] = -1.0
        fresh[:] = False
    return picks, gains


def _highest(bound: Doubles, fresh: npt.NDArray[np.bool_], count: int, *, first: int) -> Indices:
    """`first` and the rows with the next highest bounds, `count` in all, of those not fresh and not taken."""
    stale = np.flatnonzero(~fresh & (bound > 0))
    if count < len(stale):
        stale = stale[np.argpartition(-bound[stale], count - 1)[:count]] if count > 1 else stale[:0]
    return np.union1d(stale, [first])


def _vectors(evidence: Evidence, method: str) -> Floats:
    if evidence.vectors is None:
        raise VectorError(f"method {method} needs the candidates' vectors, and none were given")
    return evidence.vectors


def _chosen(evidence: Evidence, vectors: Floats) -> Floats:
    if evidence.chosen is None or not len(evidence.chosen):
        return vectors[:0]
    if evidence.chosen.shape[1] != vectors.shape[1]:
        raise VectorError(f"chosen rows have {evidence.chosen.shape[1]} dimensions, the candidates {vectors.shape[1]}")
    return evidence.chosen


def _on_grid(evidence: Evidence) -> Evidence:
    """Vectors as whole multiples of 2**-11, times 2**11."""

    def rounded(vectors: Floats | None, name: str) -> Floats | None:
        return None if vectors is None else np.rint(_unit(vectors, name) * np.float32(_GRID))

    return replace(evidence, vectors=rounded(evidence.vectors, "candidates"), chosen=rounded(evidence.chosen, "chosen"))


def _unit(vectors: Floats, name: str) -> Floats:
    """The vectors as float32, checked: finite, of length 1."""
    if not len(vectors):
        return np.zeros((0, 0), dtype=np.float32)
    if vectors.ndim != 2:
        raise VectorError(f"{name}: expected vectors as (rows, dimensions), got the shape {vectors.shape}")
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    bad = np.flatnonzero(~(np.abs(norms - 1) < 1e-2))
    if len(bad):
        raise VectorError(
            f"{name}: {len(bad)} of {len(vectors)} vectors are not of length 1; "
            f"the first, in row {bad[0]}, has the length {norms[bad[0]]:.4g}"
        )
    return np.asarray(vectors, dtype=np.float32)


def _nearest(vectors: Floats, chosen: Floats) -> Floats:
    """(n,) max(cosine, 0) to the nearest chosen row, on the grid; 0 where nothing is chosen."""
    nearest = np.zeros(len(vectors), dtype=np.float32)
    if not len(chosen):
        return nearest
    for rows in _blocks(len(vectors), max(1, _CELLS_AT_ONCE // max(len(chosen), 1))):
        nearest[rows] = (vectors[rows] @ chosen.T).max(axis=1, initial=0)
    return nearest


def _nearest_column(vectors: Floats, centres: Floats) -> Indices:
    parts = [
        (vectors[rows] @ centres.T).argmax(axis=1) for rows in _blocks(len(vectors), _CELLS_AT_ONCE // len(centres))
    ]
    return np.concatenate(parts).astype(np.int64)


def _blocks(n: int, size: int) -> list[Indices]:
    return [np.arange(start, min(start + size, n)) for start in range(0, n, size)]


_METHODS: dict[str, Callable[[int, int, Evidence], _Ranking]] = {
    "random": _random,
    "stratified": _stratified,
    "ifd": _by_ifd,
    "k_center": _k_center,
    "facility_location": _facility_location,
}
