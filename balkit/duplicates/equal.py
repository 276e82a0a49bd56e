"""Texts that are equal after normalising."""

from __future__ import annotations

from collections.abc import Sequence

from balkit.duplicates.found import Duplicates, none_of
from balkit.texts import normalised


def exact(texts: Sequence[str]) -> Duplicates:
    """Rows equal, after `texts.normalised`, to an earlier one: the first of every group stays."""
    found, first = none_of(len(texts)), dict[str, int]()
    for row, text in enumerate(texts):
        earlier = first.setdefault(normalised(text), row)
        if earlier != row:
            found.other[row], found.similarity[row] = earlier, 1.0
    return found


def exact_among(new: Sequence[str], *, among: Sequence[str]) -> Duplicates:
    """Rows of `new` equal, after `texts.normalised`, to one of `among`: to the first such."""
    found, wanted = none_of(len(new)), dict[str, list[int]]()
    for row, text in enumerate(new):
        wanted.setdefault(normalised(text), []).append(row)
    for index, text in enumerate(among):
        for row in wanted.pop(normalised(text), ()):
            found.other[row], found.similarity[row] = index, 1.0
    return found
