"""Names of clusters: the words that tell each of them from the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from balkit.errors import need

TERMS = 10  # key terms that are kept for each domain
_IN_A_NAME = 3
_LIFT = 1.25  # how much of its cluster's words a key term must be, against the mean over all clusters

#: Words of 2 to 30 signs with at least one letter: no numbers, no controls, no endless codes.
_WORD = r"(?u)\b(?=\w*[^\W\d_])\w{2,30}\b"
_REST_OF_APOSTROPHES = {"don", "doesn", "didn", "isn", "aren", "wasn", "weren", "won", "wouldn", "couldn", "ll", "ve"}


def key_terms(texts: Sequence[Sequence[str]]) -> list[list[str]]:
    """For each cluster, given as its texts, up to ten words by class-based TF-IDF, the strongest first.

    The weight of a word is its share of the cluster's words times ln(1 + A / f): A words in a cluster on average, f
    occurrences of the word in all clusters (Grootendorst 2022, arXiv 2203.05794, section 3.3). A text counts a word
    once, so that no single text names its cluster. Left out are common English words, and words that stand in the
    other clusters about as often ("said" in news); ties go by the alphabet. A cluster may be left with no terms.
    Raises `MissingExtra` without scikit-learn.
    """
    counts, words = _counts(texts)
    total = counts.sum()
    if not total:
        return [[] for _ in texts]
    rarity = np.log1p(total / len(texts) / np.maximum(counts.sum(axis=0), 1))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    telling = (shares >= _LIFT * shares.mean(axis=0)) & (counts > 0)
    return [_strongest(row * rarity, np.flatnonzero(kept), words) for row, kept in zip(shares, telling, strict=True)]


def _counts(texts: Sequence[Sequence[str]]) -> tuple[Any, list[str]]:
    """`(clusters, words)` int64: in how many texts of each cluster a word stands; the words in alphabetical order."""
    sklearn: Any = need("sklearn.feature_extraction.text", extra="embed")
    vectorizer = sklearn.CountVectorizer(
        token_pattern=_WORD, stop_words=sorted(sklearn.ENGLISH_STOP_WORDS | _REST_OF_APOSTROPHES), binary=True
    )
    try:
        found = vectorizer.fit_transform([text for cluster in texts for text in cluster])
    except ValueError as error:
        if "empty vocabulary" not in str(error):
            raise
        return np.zeros((len(texts), 0), dtype=np.int64), []
    ends = np.cumsum([len(cluster) for cluster in texts])
    rows = [
        np.asarray(found[end - len(cluster) : end].sum(axis=0), dtype=np.int64).ravel()
        for cluster, end in zip(texts, ends, strict=True)
    ]
    return np.stack(rows), [str(word) for word in vectorizer.get_feature_names_out()]


def _strongest(weights: Any, among: Any, words: list[str]) -> list[str]:
    rounded = {int(i): _rounded(float(weights[i])) for i in among}
    return [words[i] for i in sorted(rounded, key=lambda i: (-rounded[i], i))[:TERMS]]


def _rounded(value: float) -> float:
    """Ten significant digits: logarithms differ in the last between machines."""
    return round(value, 9 - math.floor(math.log10(value))) if value > 0 else 0.0


def names(terms: Sequence[Sequence[str]]) -> list[str]:
    """A name for each cluster, all different: three terms that do not begin alike, more where that name is taken.

    Without terms a cluster is called by its place, "cluster 7"; where all terms are used up a number follows.
    """
    taken: list[str] = []
    for place, found in enumerate(terms, start=1):
        unlike = _unlike(found)
        tries = [", ".join(unlike[:n]) for n in range(_IN_A_NAME, max(len(unlike), _IN_A_NAME) + 1)]
        first = tries[0] or f"cluster {place}"
        more = (f"{first} ({n})" for n in range(2, len(terms) + 2))
        taken.append(next(name for name in (first, *tries[1:], *more) if name not in taken))
    return taken


def _unlike(terms: Sequence[str]) -> list[str]:
    """The terms without those that begin with an earlier one or that an earlier one begins with ("ship", "ships")."""
    kept: list[str] = []
    for term in terms:
        if not any(len(a) > 2 and b.startswith(a) for one in kept for a, b in ((one, term), (term, one))):
            kept.append(term)
    return kept
