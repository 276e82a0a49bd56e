"""Rows that repeat others: equal texts, nearly equal texts, close vectors.

Pure. Rows are taken in their order: a row is a duplicate of the first kept row that it matches, so that one of every
group stays, and what stays depends on the order. With `among`, of the first row there that it matches.
"""

from balkit.duplicates.alike import near, near_among
from balkit.duplicates.close import semantic, semantic_among
from balkit.duplicates.equal import exact, exact_among
from balkit.duplicates.found import Duplicates

__all__ = ["Duplicates", "exact", "exact_among", "near", "near_among", "semantic", "semantic_among"]
