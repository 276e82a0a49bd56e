"""The hashing encoder: rows from spelling, without any model."""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
_Hashes = npt.NDArray[np.uint64]
_Rows = npt.NDArray[np.int64]

_TOKEN = re.compile(r"\w+|[^\w\s]")
_TEXTS_AT_ONCE = 512
_WORDS_KEPT = 200_000
_LOW, _SIGN, _BELOW_SIGN = np.uint64(0xFFFFFFFF), np.uint64(0x80000000), np.uint64(0x7FFFFFFF)
_LOG = 1.0 + np.log(np.arange(1, 4097, dtype=np.float64))


class Hashing:
    """Words, pairs of neighbouring words and character n-grams, hashed into `dim` signed buckets (no model).

    A feature that occurs c times in a text weighs 1 + ln(c); rows have unit length. A row depends on its text
    alone, never on the process or the other texts. A text without any token gets one fixed vector, so that
    all such texts are duplicates of each other. It sees spelling, not meaning (docs/benchmarks.md has its speed).
    """

    def __init__(self, *, dim: int = 512) -> None:
        self.dim = dim
        self.name = f"hashing-1-{dim}"
        self._words = _Words()

    def encode(self, texts: Sequence[str]) -> Floats:
        """`(n, dim) float32`, rows L2-normalised."""
        rows = np.empty((len(texts), self.dim), dtype=np.float32)
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            self._block(texts[start : start + _TEXTS_AT_ONCE], into=rows[start : start + _TEXTS_AT_ONCE])
        return rows

    def _block(self, texts: Sequence[str], *, into: Floats) -> None:
        if len(self._words) > _WORDS_KEPT:
            self._words = _Words()
        cell, weight = _features(texts, self._words, dim=self.dim)
        sums = np.bincount(cell, weights=weight, minlength=len(texts) * self.dim).reshape(-1, self.dim)
        norms = np.sqrt(np.square(sums).sum(axis=1))
        sums[norms == 0, 0] = 1.0  # no token, or opposite signs met in the same buckets
        norms[norms == 0] = 1.0
        np.divide(sums, norms[:, None], out=into, casting="same_kind")


class _Words:
    """What was hashed of words seen before, since texts share most of theirs. Forgotten when it grows large.

    hashes         (words,) uint64, of the whole word
    starts, width  (words,) int64, where its n-grams are in `grams`, and how many
    grams          uint64, mixed hashes
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self.hashes, self.grams = np.zeros(0, np.uint64), np.zeros(0, np.uint64)
        self.starts, self.width = np.zeros(0, np.int64), np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._numbers)

    def learn(self, tokens: Sequence[list[str]]) -> _Rows:
        """The number of each word of all texts, in their order."""
        known, numbers = len(self._numbers), self._numbers
        words = [numbers.setdefault(token, len(numbers)) for line in tokens for token in line]
        new = list(islice(reversed(numbers), len(numbers) - known))[::-1]
        grams = [_character_ngrams(token) for token in new]
        flat = np.array([gram for line in grams for gram in line], np.uint64)
        self.hashes = np.concatenate([self.hashes, np.array([_hash("w", token) for token in new], np.uint64)])
        self.grams = np.concatenate([self.grams, _mix(flat)])
        self.width = np.concatenate([self.width, np.array([len(line) for line in grams], np.int64)])
        self.starts = np.cumsum(self.width) - self.width
        return np.array(words, dtype=np.int64)


def _features(texts: Sequence[str], known: _Words, *, dim: int) -> tuple[_Rows, npt.NDArray[np.float64]]:
    """Every distinct feature of every text: its cell, `row * dim + bucket`, and its signed weight."""
    tokens = [_TOKEN.findall(_folded(text)) for text in texts]
    row = np.repeat(np.arange(len(texts), dtype=np.uint64), [len(line) for line in tokens])
    word = known.learn(tokens)
    whole, counts = known.hashes[word], known.width[word]
    follows = np.flatnonzero(row[1:] == row[:-1])
    pair = _mix(whole[follows] * np.uint64(31) + whole[follows + 1])
    within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts - known.starts[word], counts)
    kinds = (
        _weighed(row, _mix(whole), once=1.0, dim=dim),
        _weighed(row[follows], _mix(pair), once=1.0, dim=dim),
        _weighed(np.repeat(row, counts), known.grams[within], once=0.5, dim=dim),
    )
    cells, weights = zip(*kinds, strict=True)
    return np.concatenate(cells), np.concatenate(weights)


def _folded(text: str) -> str:
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()


def _weighed(row: _Hashes, mixed: _Hashes, *, once: float, dim: int) -> tuple[_Rows, npt.NDArray[np.float64]]:
    """Cells and signed weights of distinct features; `mixed` has 32 bits, of which the highest is the sign."""
    keys = row << np.uint64(32) | mixed
    keys.sort()
    new = np.ones(len(keys) + 1, dtype=np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=new[1:-1])
    first = np.flatnonzero(new)
    count, key = first[1:] - first[:-1], keys[first[:-1]]
    weight = _LOG[count - 1] if count.max(initial=0) <= len(_LOG) else 1.0 + np.log(count)
    weight *= np.where(key & _SIGN, once, -once)
    bucket = key & _BELOW_SIGN
    bucket = bucket & np.uint64(dim - 1) if dim & (dim - 1) == 0 else bucket % np.uint64(dim)
    return ((key >> np.uint64(32)) * np.uint64(dim) + bucket).astype(np.int64), weight


def _character_ngrams(token: str) -> list[int]:
    marked = f"<{token}>"
    return [_hash("c", marked[i : i + n]) for n in (3, 4) for i in range(len(marked) - n + 1)]


def _hash(kind: str, feature: str) -> int:
    """32 bits, the same in every process (`hash` of a str is not)."""
    return zlib.crc32(f"{kind}{feature}".encode("utf-8", "surrogatepass"))


def _mix(value: _Hashes) -> _Hashes:
    """murmur3's finaliser: 32 well-mixed bits of each 32-bit value (crc32 alone is linear)."""
    value = value & _LOW
    value = (value ^ (value >> np.uint64(16))) * np.uint64(0x85EBCA6B) & _LOW
    value = (value ^ (value >> np.uint64(13))) * np.uint64(0xC2B2AE35) & _LOW
    mixed: _Hashes = value ^ (value >> np.uint64(16))
    return mixed
