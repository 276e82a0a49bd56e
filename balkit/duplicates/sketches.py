"""MinHash sketches of texts: which pairs may be alike, without comparing all of them.

Broder 1997; banding as in Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, chapter 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]

BANDS, ROWS_A_BAND = 40, 4

_GRAM = 3  # characters
_CHARACTERS_AT_ONCE = 1 << 18
_WORKERS = 2


def keys(texts: Sequence[str]) -> Keys:
    """(n, BANDS) uint64. Two texts whose sets of trigrams have Jaccard similarity j share a key with probability

    1 - (1 - j ** ROWS_A_BAND) ** BANDS: 0.05 gives 0.0002, 0.3 gives 0.28, 0.5 gives 0.92, 0.6 gives 0.996. The keys
    depend on the text alone.
    """
    found = np.empty((len(texts), BANDS), np.uint64)
    with ThreadPoolExecutor(_WORKERS) as pool:
        parts = list(_parts(texts))
        for part, made in zip(parts, pool.map(lambda part: _sketch(texts[part]), parts), strict=True):
            found[part] = made
    return found


def shared(found: Keys) -> NDArray[np.bool_]:
    """(n, BANDS) bool: keys that another text has in the same band."""
    result = np.zeros(found.shape, bool)
    for band in range(found.shape[1]):
        order = np.argsort(found[:, band], kind="stable")
        same = found[order[1:], band] == found[order[:-1], band]
        result[order[1:][same], band] = True
        result[order[:-1][same], band] = True
    return result


def _parts(texts: Sequence[str]) -> list[slice]:
    """Slices of about so many characters."""
    cuts, size = [0], 0
    for index, text in enumerate(texts):
        size += len(text)
        if size >= _CHARACTERS_AT_ONCE:
            cuts.append(index + 1)
            size = 0
    return [slice(start, stop) for start, stop in zip(cuts, [*cuts[1:], len(texts)], strict=True) if start < stop]


def _sketch(texts: Sequence[str]) -> Keys:
    grams, starts = _grams(texts)
    bands = np.zeros((len(texts), BANDS), np.uint64)
    for place, (factor, offset) in enumerate(_FUNCTIONS):
        least = np.minimum.reduceat((grams * factor + offset) >> np.uint64(32), starts)
        band = place // ROWS_A_BAND
        bands[:, band] = _mixed(bands[:, band] ^ least)
    return bands


def _grams(texts: Sequence[str]) -> tuple[Keys, NDArray[np.int64]]:
    """The trigrams of all texts as mixed numbers, and where each text's begin. Marks stand around every text."""
    code = np.frombuffer("".join(f"\x02\x02{text}\x03" for text in texts).encode("utf-32-le", "surrogatepass"), "<u4")
    lengths = np.array([len(text) + 3 for text in texts], np.int64)
    wide = code.astype(np.uint64)
    grams = _mixed(wide[:-2] << np.uint64(42) | wide[1:-1] << np.uint64(21) | wide[2:])
    last = np.cumsum(lengths)[:-1]  # no trigram begins in the last two places of a text
    inside = np.ones(len(grams), bool)
    inside[last - 1] = inside[last - 2] = False
    return grams[inside], np.concatenate([[0], np.cumsum(lengths - (_GRAM - 1))[:-1]])


def _mixed(value: Keys) -> Keys:
    """splitmix64's finaliser."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Keys = value ^ (value >> np.uint64(31))
    return mixed


def _functions() -> list[tuple[np.uint64, np.uint64]]:
    """An odd factor and an offset for every row of every band: the same in every process and version of numpy."""
    numbers = _mixed(np.arange(1, 2 * BANDS * ROWS_A_BAND + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return [(factor | np.uint64(1), offset) for factor, offset in numbers.reshape(-1, 2)]


_FUNCTIONS = _functions()
