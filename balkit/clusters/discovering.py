"""Discovering domains: how many there may be, which example belongs to which, what they are called."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from balkit.clusters.grid import GRID, ONE, Floats, Indices, distances, nearest, on_grid, own_order, silhouette
from balkit.clusters.naming import key_terms, names
from balkit.clusters.tree import CELLS, cells_of, cuts
from balkit.errors import VectorError

MOST = 64
_JUDGED = 3_000  # rows of the silhouette's sample: 72 MB of distances
_NAMED_BY = 1_000  # texts of a domain, the nearest to its centre, that name it
_READ = 2_000  # characters of each
_TYPICAL = 3

_CANDIDATES = {
    "k": pl.Int64(),
    "silhouette": pl.Float64(),
    "smallest": pl.Int64(),
    "largest": pl.Int64(),
    "largest_share": pl.Float64(),
    "suggested": pl.Boolean(),
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Discovered:
    """Domains found in examples that had none.

    labels      example_id, domain, distance (1 minus cosine to the domain's centre, 0-2, to ~5e-4); sorted by id
    domains     domain, terms (up to ten, strongest first), rows, cohesion (mean cosine of its rows to the centre),
                typical (the ids of the three examples nearest the centre); largest domain first, ties by first id
    candidates  what `suggest` says
    centres     (k, d) float32, of length 1 to ~1e-3, multiples of 2**-11, in the order of `domains`
    """

    labels: pl.DataFrame
    domains: pl.DataFrame
    candidates: pl.DataFrame
    centres: Floats


@dataclass(frozen=True)
class _Partition:
    """Rows by their nearest centre; `similarity` in units of 2**-22."""

    centres: Floats
    labels: Indices
    similarity: Floats

    @property
    def sizes(self) -> Indices:
        return np.bincount(self.labels, minlength=len(self.centres)).astype(np.int64)


def suggest(vectors: Floats, *, most: int = MOST, min_rows: int = 10, seed: int) -> pl.DataFrame:
    """Numbers of clusters from 2 to `most`, and how good each is; one of them is `suggested`.

    vectors   (n, d) float32, any length but zero, in any order
    min_rows  rows that a cluster must have

    Columns: k; silhouette (mean of a sample of 3,000 rows by cosine distance, -1 to 1); smallest and largest (rows);
    largest_share (0-1); suggested. The highest silhouette is suggested, of equal ones the smallest k. It is a hint:
    values that hardly differ say that the data has no one number of clusters, and the vectors of a weak encoder (the
    hashing one on news) favour too few. A k that no cut of the tree gives is left out.

    100,000 rows of 384 dimensions take ~25 s on two CPU cores. Raises `VectorError` as `discover` does.
    """
    grid = _checked(vectors, ids=None, most=most, min_rows=min_rows)
    found = _partitions(grid, most=most, min_rows=min_rows, seed=seed)
    return _candidates(grid, found, seed=seed)


def discover(
    texts: Sequence[str], vectors: Floats, *, ids: Sequence[str], k: int | None, min_rows: int, seed: int
) -> Discovered:
    """Domains of examples by their vectors, named by their texts.

    vectors   (n, d) float32, in the order of the texts and of the ids, which must differ
    k         how many domains; None takes the suggested number. Where the data has no k clusters of `min_rows`
              rows, the next lower number that it has, with a logged warning
    min_rows  smaller clusters go to the nearest one that is large enough

    Every row belongs to the nearest centre, so that `assign` gives the same domains to the same vectors. The result
    depends on the ids, texts, vectors and the seed, not on the order of the rows or on threads.

    Raises `VectorError` for fewer than 2 * min_rows rows, a vector that is not finite or zero (naming its id), vectors
    that are all the same, a k below 2 or beyond what rows there are, ids that repeat, and when no two clusters have
    `min_rows` rows; `MissingExtra` without scikit-learn, which counts words.
    """
    _check_rows(texts, vectors, ids)
    order = np.array(sorted(range(len(ids)), key=lambda i: ids[i]), dtype=np.int64)
    ids, texts = [ids[i] for i in order], [texts[i] for i in order]
    most = max(MOST, k or 0)
    grid = _checked(vectors[order], ids=ids, most=2 if k is None else k, min_rows=min_rows)
    found = _partitions(grid, most=most, min_rows=min_rows, seed=seed)
    candidates = _candidates(grid, found, seed=seed)
    wanted = int(candidates.filter("suggested")["k"][0]) if k is None else k
    taken = max((there for there in found if there <= wanted), default=min(found))
    if taken != wanted:
        log.warning("no %d clusters of %d rows each: taking %d", wanted, min_rows, taken)
    partition = _largest_first(found[taken])
    terms = key_terms([[texts[i][:_READ] for i in rows[:_NAMED_BY]] for rows in _nearest_first(partition)])
    domains = names(terms)
    return Discovered(
        labels=_labels(ids, partition, domains),
        domains=_domains(ids, partition, domains, terms),
        candidates=candidates,
        centres=np.asarray(partition.centres / np.float32(GRID), dtype=np.float32),
    )


def assign(vectors: Floats, centres: Floats, names: Sequence[str]) -> list[str]:
    """The name of the centre nearest to each row, ties to the earlier one; for examples that come later.

    vectors  (n, d) float32, any length but zero
    centres  (k, d) float32 of `Discovered.centres`, and their k names (`domains["domain"]`)

    Raises `VectorError` for vectors that are not finite, zero or of another dimension than the centres.
    """
    if centres.ndim != 2 or len(centres) != len(names) or not len(names):
        raise VectorError(f"{len(names)} names for centres of shape {centres.shape}; each centre has one name")
    if not len(vectors):
        return []
    grid = on_grid(vectors)
    if grid.shape[1] != centres.shape[1]:
        raise VectorError(
            f"the vectors have {grid.shape[1]} dimensions, the centres {centres.shape[1]}: use the encoder that "
            "the domains were discovered with"
        )
    labels, _ = nearest(grid, np.rint(centres * np.float32(GRID)))
    return [names[label] for label in labels]


def _check_rows(texts: Sequence[str], vectors: Floats, ids: Sequence[str]) -> None:
    if not len(texts) == len(vectors) == len(ids):
        raise VectorError(f"{len(texts)} texts, {len(vectors)} vectors and {len(ids)} ids: each row needs all three")
    if len(set(ids)) < len(ids):
        twice = min(pl.Series(ids).filter(pl.Series(ids).is_duplicated()))
        raise VectorError(f"the id {twice} stands more than once; give each example one row")


def _checked(vectors: Floats, *, ids: Sequence[str] | None, most: int, min_rows: int) -> Floats:
    """The vectors on the grid, when as many as `most` clusters can be asked of them."""
    if min_rows < 1 or most < 2:
        raise VectorError(f"min_rows = {min_rows} and {most} clusters: there are at least 2, of at least 1 row each")
    if len(vectors) < 2 * min_rows:
        raise VectorError(
            f"{len(vectors)} rows are too few for two domains of min_rows = {min_rows} rows: lower min_rows, or "
            "give all of them one domain"
        )
    grid = on_grid(vectors, ids=ids)
    _, distinct = own_order(grid)
    if distinct == 1:
        raise VectorError(f"all {len(vectors)} vectors are the same: there is nothing to tell domains apart by")
    if ids is not None and most > (room := min(distinct, len(vectors) // min_rows)):
        raise VectorError(
            f"k = {most} is more than {len(vectors)} rows, {distinct} of them distinct, have room for with "
            f"min_rows = {min_rows}: at most {room}"
        )
    return grid


def _partitions(grid: Floats, *, most: int, min_rows: int, seed: int) -> dict[int, _Partition]:
    """Partitions by their number of clusters; of several with one number that of the highest cut."""
    order, distinct = own_order(grid)
    rng = np.random.default_rng(seed)
    cells = cells_of(grid[order], count=min(distinct, max(CELLS, 4 * most)), rng=rng)
    found: dict[int, _Partition] = {}
    for centres in cuts(cells, most=most, min_rows=min_rows):
        partition = _settled(grid, centres, min_rows=min_rows)
        found.setdefault(len(partition.centres), partition)
    found.pop(1, None)
    if not found:
        raise VectorError(f"no two clusters of min_rows = {min_rows} rows in {len(grid)} rows: lower min_rows")
    return dict(sorted(found.items()))


def _settled(grid: Floats, centres: Floats, *, min_rows: int) -> _Partition:
    """Every row to its nearest centre, the smallest cluster dissolved until all have `min_rows` rows."""
    while True:
        partition = _Partition(centres, *nearest(grid, centres))
        smallest = int(partition.sizes.argmin())
        if partition.sizes[smallest] >= min_rows or len(centres) == 1:
            return partition
        centres = np.delete(centres, smallest, axis=0)


def _candidates(grid: Floats, found: dict[int, _Partition], *, seed: int) -> pl.DataFrame:
    order, _ = own_order(grid)
    rng = np.random.default_rng(seed)
    sample = order[rng.choice(len(order), size=min(len(order), _JUDGED), replace=False)]
    apart = distances(grid[sample])
    body = []
    for k, partition in found.items():
        value = round(silhouette(apart, partition.labels[sample], count=k), 6)
        least, largest = int(partition.sizes.min()), int(partition.sizes.max())
        body.append((k, value, least, largest, largest / len(grid), False))
    frame = pl.DataFrame(body, schema=_CANDIDATES, orient="row")
    best = frame.sort("silhouette", "k", descending=[True, False])["k"][0]
    return frame.with_columns(suggested=pl.col("k") == best)


def _largest_first(partition: _Partition) -> _Partition:
    """The same with clusters by falling size, ties by their first row."""
    first = [int(np.flatnonzero(partition.labels == c)[0]) for c in range(len(partition.centres))]
    order = np.lexsort((np.array(first), -partition.sizes))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return _Partition(partition.centres[order], rank[partition.labels], partition.similarity)


def _nearest_first(partition: _Partition) -> list[Indices]:
    """The rows of each cluster, the nearest to its centre first, ties by id."""
    order = np.argsort(-partition.similarity, kind="stable")
    return [order[partition.labels[order] == c].astype(np.int64) for c in range(len(partition.centres))]


def _labels(ids: Sequence[str], partition: _Partition, domains: Sequence[str]) -> pl.DataFrame:
    distance = np.clip(1 - partition.similarity.astype(np.float64) / ONE, 0, 2)
    names = [domains[label] for label in partition.labels]
    schema = {"example_id": pl.String(), "domain": pl.String(), "distance": pl.Float64()}
    return pl.DataFrame({"example_id": list(ids), "domain": names, "distance": distance}, schema=schema)


def _domains(
    ids: Sequence[str], partition: _Partition, domains: Sequence[str], terms: Sequence[Sequence[str]]
) -> pl.DataFrame:
    rows = _nearest_first(partition)
    return pl.DataFrame(
        {
            "domain": list(domains),
            "terms": [list(found) for found in terms],
            "rows": [len(members) for members in rows],
            "cohesion": [float(partition.similarity[m].mean(dtype=np.float64) / ONE) for m in rows],
            "typical": [[ids[i] for i in members[:_TYPICAL]] for members in rows],
        },
        schema={
            "domain": pl.String(),
            "terms": pl.List(pl.String()),
            "rows": pl.Int64(),
            "cohesion": pl.Float64(),
            "typical": pl.List(pl.String()),
        },
    )
