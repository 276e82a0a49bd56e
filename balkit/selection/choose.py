"""Candidates and evidence in, DECISIONS out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from balkit import frames, texts
from balkit.errors import BalkitError, FrameError
from balkit.selection.grid import Indices, on_grid
from balkit.selection.methods import Evidence, Ranking, Task, Way, way_of

_SPARE = 64  # rows ranked beyond twice the quota


def needs_vectors(method: str) -> bool:
    """Whether a method reads the candidates' vectors."""
    return way_of(method).vectors


def needs_scores(method: str) -> str | None:
    """The score that a method reads, as SCORES call it (`ifd`, `loss`, `entropy`), or None."""
    return way_of(method).score


def select(
    candidates: pl.DataFrame, *, quota: int, method: str | Way, evidence: Evidence | None = None, seed: int
) -> pl.DataFrame:
    """DECISIONS on every candidate of one domain, best first; the first `quota` ranks are kept.

    candidates  columns example_id, domain; the arrays of `evidence` follow its rows
    method      a name, the path of a Python file with a `Way` of your own, or that `Way`

    The order of preference goes on beyond the quota, so that a refused row is replaced by the next rank.

    random             by a seeded hash of the id
    stratified         random inside the clusters of a k-means; every prefix holds each cluster's share, rounded
    k_center           farthest first: the row least similar to all chosen so far (without any, the most central)
    facility_location  greedy on the mean over candidates of max(cosine, 0) to the nearest chosen row
    medoids            the medoids of as many clusters as the quota has rows, then facility location
    ifd                highest score first; at or above `max_ifd` dropped; unscored rows last, with their reason
    loss, uncertainty  highest score first (the loss; the entropy); unscored rows last
    ifd_coverage       facility location and the rank by IFD, weighed by `quality_weight`; dropped and last as in ifd

    Methods that read vectors rank 2 * quota + 64 rows in this way, the rest by the hash (ifd_coverage: by score).
    `gain` is the score (ifd, loss, uncertainty), the distance 1 - max(cosine, 0) (k_center) or the mean similarity
    added (facility_location, medoids, ifd_coverage). Costs, formulas and sources are in docs/selection.md. Raises
    `FrameError` for a bad frame, `VectorError` for missing or unusable vectors, `BalkitError` for missing scores or a
    negative quota.
    """
    evidence = evidence or Evidence()
    _check(candidates, quota=quota, evidence=evidence)
    if not len(candidates):
        return frames.DECISIONS.empty()
    way = method if isinstance(method, Way) else way_of(method)
    ids = candidates["example_id"].to_list()
    keys = [texts.rank_key(seed, example) for example in ids]
    # Rows go in hash order from here on, so the lower index wins every tie.
    shuffled = np.array(sorted(range(len(ids)), key=keys.__getitem__), dtype=np.int64)
    depth = min(len(ids), 2 * quota + _SPARE)
    task = Task(n=len(ids), quota=quota, depth=depth, evidence=_prepared(evidence, order=shuffled), method=way.name)
    return _decisions(candidates[shuffled.tolist()], way.rank(task), quota=quota, method=way.name)


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
        vectors=None if vectors is None else on_grid(vectors, name="candidates", order=order),
        chosen=None if chosen is None else on_grid(chosen, name="chosen"),
        scores=None if scores is None else np.asarray(scores, dtype=np.float64)[order],
        reasons=None if reasons is None else [reasons[row] for row in order.tolist()],
    )


def _decisions(candidates: pl.DataFrame, ranking: Ranking, *, quota: int, method: str) -> pl.DataFrame:
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
        detail=pl.Series([ranking.detail.get(row) for row in range(n)], dtype=pl.String()),
    )
    return frames.check(frame.sort("rank", "example_id", nulls_last=True), frames.DECISIONS)
