"""Candidates and evidence in, DECISIONS out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from balkit import frames, texts
from balkit.errors import BalkitError, FrameError, VectorError
from balkit.recipe import Method
from balkit.selection import coverage, strata
from balkit.selection.grid import Floats, Indices, on_grid

Doubles = npt.NDArray[np.float64]

_SPARE = 64  # rows ranked beyond twice the quota


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

    random             by a seeded hash of the id
    stratified         random inside the clusters of a k-means; every prefix holds each cluster's share, rounded
    ifd                highest score first; at or above `max_ifd` dropped; unscored rows last, with their reason
    k_center           farthest first: the row least similar to all chosen so far (without any, the most central)
    facility_location  greedy on the mean over candidates of max(cosine, 0) to the nearest chosen row

    stratified, k_center and facility_location rank 2 * quota + 64 rows in this way, the rest by the hash. `gain` is
    the score (ifd), the distance 1 - max(cosine, 0) (k_center) or the mean similarity added (facility_location).
    Cost, with d dimensions: k_center n * depth * d; facility_location n * n * d and n * n * 2 bytes, from 23,170
    rows on n * d bytes and more time. Raises `FrameError` for a bad frame, `VectorError` for missing or unusable
    vectors, `BalkitError` for missing scores or a negative quota.
    """
    evidence = evidence or Evidence()
    _check(candidates, quota=quota, evidence=evidence)
    if not len(candidates):
        return frames.DECISIONS.empty()
    ids = candidates["example_id"].to_list()
    keys = [texts.rank_key(seed, example) for example in ids]
    # Rows go in hash order from here on, so the lower index wins every tie.
    shuffled = np.array(sorted(range(len(ids)), key=keys.__getitem__), dtype=np.int64)
    evidence = _prepared(evidence, order=shuffled)
    depth = min(len(ids), 2 * quota + _SPARE)
    ranking = _METHODS[method](len(ids), depth, evidence)
    return _decisions(candidates[shuffled.tolist()], ranking, quota=quota, method=method)


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


def _prepared(evidence: Evidence, *, order: Indices) -> Evidence:
    """Vectors on the grid, and everything in the given order of rows."""
    vectors, chosen, scores, reasons = evidence.vectors, evidence.chosen, evidence.scores, evidence.reasons
    return replace(
        evidence,
        vectors=None if vectors is None else on_grid(vectors, name="candidates")[order],
        chosen=None if chosen is None else on_grid(chosen, name="chosen"),
        scores=None if scores is None else np.asarray(scores, dtype=np.float64)[order],
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
    cluster = strata.clusters(vectors, k=min(max(1, evidence.strata), n))
    picks = strata.interleaved(cluster, depth=depth)
    return _ranking(n, picks, [float("nan")] * len(picks), detail=[f"cluster {c}" for c in cluster])


def _k_center(n: int, depth: int, evidence: Evidence) -> _Ranking:
    vectors = _vectors(evidence, "k_center")
    picks = coverage.k_center(vectors, chosen=_chosen(evidence, vectors), depth=depth)
    return _ranking(n, picks.rows, picks.gains)


def _facility_location(n: int, depth: int, evidence: Evidence) -> _Ranking:
    vectors = _vectors(evidence, "facility_location")
    picks = coverage.facility_location(vectors, chosen=_chosen(evidence, vectors), depth=depth)
    return _ranking(n, picks.rows, picks.gains)


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


_METHODS: dict[str, Callable[[int, int, Evidence], _Ranking]] = {
    "random": _random,
    "stratified": _stratified,
    "ifd": _by_ifd,
    "k_center": _k_center,
    "facility_location": _facility_location,
}
