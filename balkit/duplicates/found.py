"""What a search for duplicates gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Duplicates:
    """For every row the row that it repeats; -1 and similarity 0 where it repeats none.

    other       (n,) int64: an earlier row of the same rows, itself kept; with `among`, a row of `among`
    similarity  (n,) float32, 0-1
    """

    other: Indices
    similarity: Floats

    @property
    def kept(self) -> NDArray[np.bool_]:
        """(n,) the rows that repeat none."""
        return self.other < 0


def none_of(rows: int) -> Duplicates:
    """The result for `rows` rows of which none is a duplicate yet; its arrays are for their maker to fill."""
    return Duplicates(np.full(rows, -1, np.int64), np.zeros(rows, np.float32))
