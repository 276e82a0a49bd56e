"""How diverse texts are, and how far chosen ones drift from all: distinct n-grams, neighbours, Vendi score, lengths.

Pure: texts and vectors in, numbers out, whatever the order of the rows. Numbers of sets of different size do not
compare: distinct-n falls and the Vendi score rises with the number of rows, so compare equally many.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from balkit.errors import BalkitError, VectorError

Floats = npt.NDArray[np.float32]

#: Rows above which a measure over vectors goes by a sample. It is drawn by the rows' content, so that it is the same
#: in any order.
ALL_BELOW = 20_000
#: Rows of that sample whose nearest neighbour among all rows is looked for: a standard error below 0.01.
NEIGHBOURS_OF = 2_000

_CELLS = 1 << 22  # similarities held at one time: 16 MiB


@dataclass(frozen=True)
class LengthDrift:
    """How much longer chosen texts are than all of them, in characters.

    median_ratio  the median of the chosen over that of all; 1 = no drift
    standardised  (mean of the chosen - mean of all) / standard deviation of all; 0 = no drift
    """

    median_ratio: float
    standardised: float


def distinct_n(texts: Sequence[str], *, n: int = 3) -> float:
    """The share (0-1) of distinct ones among all n-grams of words: distinct-n, Li et al. 2016 (arXiv 1510.03055).

    Words are what white space separates, as written: no case folding, punctuation stays. An n-gram lies inside of one
    text. NaN where no text has n words. Memory: about 60 bytes a word.
    """
    if n < 1:
        raise BalkitError(f"distinct_n: n is {n}; n-grams have 1 word or more")
    codes, ends = _numbered(texts)
    left = np.repeat(ends, np.diff(ends, prepend=0)) - np.arange(len(codes))  # words to the text's end, its own counted
    starts = np.flatnonzero(left >= n)
    if not len(starts):
        return math.nan
    grams = codes[starts]
    for offset in range(1, n):
        both = grams * (codes.max() + 1) + codes[starts + offset]
        grams = np.unique(both, return_inverse=True)[1]
    return len(np.unique(grams)) / len(starts)


def mean_neighbour_distance(vectors: Floats, *, all_below: int = ALL_BELOW, sample: int = NEIGHBOURS_OF) -> float:
    """The mean distance 1 - max(cosine, 0) of a row to the nearest other row; 0 where every row has a twin.

    vectors  (n, d) float32, rows L2-normalised

    NaN below two rows. Cost n * n * d in blocks of 16 MiB; above `all_below` rows the mean is that of a `sample` of
    them to their nearest among all. Raises `VectorError` for rows that are not of length 1.
    """
    vectors = _unit(vectors)
    if len(vectors) < 2:
        return math.nan
    asked = np.arange(len(vectors)) if len(vectors) <= all_below else _sample(vectors, sample)
    step, total = max(1, _CELLS // len(vectors)), 0.0
    for start in range(0, len(asked), step):
        rows = asked[start : start + step]
        similarity = vectors[rows] @ vectors.T
        similarity[np.arange(len(rows)), rows] = 0
        total += float((1 - np.clip(similarity.max(axis=1), 0, 1)).sum(dtype=np.float64))
    return round(total / len(asked), 6)


def vendi(vectors: Floats, *, all_below: int = ALL_BELOW) -> float:
    """The Vendi score with the cosine kernel K: exp of the entropy of the eigenvalues of K / n, from 1 to n.

    The effective number of unlike rows: 1 where all are the same, n where all are orthogonal; 0 for no rows. Source:
    Friedman & Dieng 2023 (arXiv 2210.02410), definition 3.1.

    vectors  (n, d) float32, rows L2-normalised

    K / n and the (d, d) matrix of sums of products share their eigenvalues but for zeros, so the smaller one is taken:
    cost n * m * d + m**3 with m = min(n, d). Above `all_below` rows that many are sampled. Raises `VectorError` for
    rows that are not of length 1.
    """
    vectors = _unit(vectors)
    if not len(vectors):
        return 0.0
    if len(vectors) > all_below:
        vectors = vectors[_sample(vectors, all_below)]
    rows = vectors.astype(np.float64)
    gram = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
    weights = np.linalg.eigvalsh(gram)
    weights = weights[weights > 1e-12 * weights.max()]
    weights /= weights.sum()
    return round(float(np.exp(-(weights * np.log(weights)).sum())), 6)


def length_drift(chosen: Sequence[str], every: Sequence[str]) -> LengthDrift:
    """How the lengths of chosen texts differ from those of every text; NaN where either has no rows or no length.

    `standardised` is NaN where all of `every` are equally long and the chosen are not.
    """
    if not chosen or not every:
        return LengthDrift(math.nan, math.nan)
    ours, all_ = (np.array([len(text) for text in texts], dtype=np.float64) for texts in (chosen, every))
    middle, spread, moved = float(np.median(all_)), float(all_.std()), float(ours.mean() - all_.mean())
    return LengthDrift(
        median_ratio=float(np.median(ours)) / middle if middle else math.nan,
        standardised=moved / spread if spread else (0.0 if not moved else math.nan),
    )


def _numbered(texts: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Every word of all texts as a number, and where each text ends."""
    vocabulary: dict[str, int] = {}
    codes, ends = array("q"), array("q")
    for text in texts:
        codes.extend(vocabulary.setdefault(word, len(vocabulary)) for word in text.split())
        ends.append(len(codes))
    return np.array(codes, dtype=np.int64), np.array(ends, dtype=np.int64)


def _unit(vectors: Floats) -> Floats:
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    if not len(rows):
        return rows
    if rows.ndim != 2:
        raise VectorError(f"expected vectors as (rows, dimensions), got the shape {rows.shape}")
    norms = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    bad = np.flatnonzero(~(np.abs(norms - 1) < 1e-2))
    if len(bad):
        raise VectorError(
            f"{len(bad)} of {len(rows)} vectors are not of length 1; the first, in row {bad[0]}, has the length "
            f"{norms[bad[0]]:.4g}"
        )
    return rows


def _sample(vectors: Floats, count: int) -> npt.NDArray[np.int64]:
    """`count` rows, those whose content has the lowest digests."""
    keys = [hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in vectors]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__)[:count], dtype=np.int64)
