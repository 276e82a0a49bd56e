"""Choosing the real examples that represent a domain: by chance, by coverage, by a student's scores, or by both.

Pure: candidates and what is known of them in, DECISIONS out. One domain at a time, since scores are not
comparable across domains. The result does not depend on the order of the rows. docs/selection.md has all methods.
"""

from balkit.selection.choose import needs_scores, needs_vectors, select
from balkit.selection.coverage import Spread, nearest, spread
from balkit.selection.grid import on_grid
from balkit.selection.methods import Evidence, Ranking, Task, Way, preferring

__all__ = [
    "Evidence",
    "Ranking",
    "Spread",
    "Task",
    "Way",
    "nearest",
    "needs_scores",
    "needs_vectors",
    "on_grid",
    "preferring",
    "select",
    "spread",
]
