"""Texts that are nearly equal, whatever the order of their words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from balkit.duplicates import sketches
from balkit.duplicates.found import Duplicates, Floats, none_of
from balkit.errors import need
from balkit.texts import normalised

#: Pairs up to which all are compared. More are looked for by sketches, which find nearly all (docs/benchmarks.md).
ALL_PAIRS = 12_500_000

_CELLS = 4_000_000  # similarities at once: 16 MB of float32
_ROWS = 512
_WORKERS = 2


def bag(text: str) -> str:
    """The normalised words in alphabetical order: what word order does not hide from."""
    return " ".join(sorted(normalised(text).split()))


def near(texts: Sequence[str], *, threshold: float = 0.9) -> Duplicates:
    """Rows whose bag of words is at least `threshold` similar (0-1) to an earlier kept row's: the first such.

    The similarity is rapidfuzz's `fuzz.ratio` of the bags: 1 - (insertions + deletions) / (characters of both).
    Up to 5,000 rows all pairs are compared, above that those whose sketches meet (`sketches.keys`; a few of a hundred
    duplicates may stay unseen). Raises `MissingExtra` without rapidfuzz.
    """
    need("rapidfuzz", extra="check")
    bags = [bag(text) for text in texts]
    if len(bags) ** 2 // 2 > ALL_PAIRS:
        return _by_sketches(bags, known=0, threshold=threshold)
    found, kept = none_of(len(bags)), list[int]()
    for start in range(0, len(bags), _ROWS):
        rows = range(start, min(start + _ROWS, len(bags)))
        columns = [*kept, *rows]
        scores = _scores(bags[rows.start : rows.stop], [bags[column] for column in columns], threshold=threshold)
        for row, line in zip(rows, scores, strict=True):
            for place in np.flatnonzero(line).tolist():
                other = columns[place]
                if other >= row:
                    break
                if found.other[other] < 0:
                    found.other[row], found.similarity[row] = other, line[place]
                    break
        kept.extend(row for row in rows if found.other[row] < 0)
    return found


def near_among(new: Sequence[str], *, among: Sequence[str], threshold: float = 0.9) -> Duplicates:
    """Rows of `new` that are at least `threshold` similar to one of `among`: to the first such. As `near`."""
    need("rapidfuzz", extra="check")
    bags, known = [bag(text) for text in new], [bag(text) for text in among]
    if len(bags) * len(known) > ALL_PAIRS:
        return _by_sketches([*known, *bags], known=len(known), threshold=threshold)
    found = none_of(len(bags))
    step = max(1, _CELLS // max(1, len(known)))
    for start in range(0, len(bags) if known else 0, step):
        scores = _scores(bags[start : start + step], known, threshold=threshold)
        for row, first in enumerate((scores > 0).argmax(axis=1).tolist(), start):
            if scores[row - start, first]:
                found.other[row], found.similarity[row] = first, scores[row - start, first]
    return found


def _scores(bags: Sequence[str], others: Sequence[str], *, threshold: float) -> Floats:
    """(len(bags), len(others)) similarities, 0-1; 0 below the threshold."""
    from rapidfuzz import fuzz, process

    found: Floats = process.cdist(
        bags, others, scorer=fuzz.ratio, score_cutoff=threshold * 100, dtype=np.float32, workers=_WORKERS
    )
    return found / np.float32(100)


def _by_sketches(bags: Sequence[str], *, known: int, threshold: float) -> Duplicates:
    """Each bag from the `known`th on against the known ones or, where there are none, the kept ones before it."""
    keys = sketches.keys(bags)
    buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
    found, seen = none_of(len(bags) - known), dict[str, int]()
    shared = sketches.shared(keys)
    rows = np.flatnonzero(shared.any(axis=1))
    for row in rows.tolist():
        bands = np.flatnonzero(shared[row])
        own = list(zip(bands.tolist(), keys[row, bands].tolist(), strict=True))
        if row >= known:
            twin = None if known else seen.get(bags[row])
            candidates = sorted(set().union(*(buckets.get(key, ()) for key in own))) if twin is None else [twin]
            scores = _scores([bags[row]], [bags[other] for other in candidates], threshold=threshold)[0]
            hits = np.flatnonzero(scores)
            if len(hits):
                found.other[row - known], found.similarity[row - known] = candidates[hits[0]], scores[hits[0]]
            if len(hits) or known:
                continue
        if known == 0 or bags[row] not in seen:
            seen.setdefault(bags[row], row)
            for key in own:
                buckets[key].append(row)
    return found
