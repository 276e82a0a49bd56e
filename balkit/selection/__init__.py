"""Choosing the real examples that represent a domain: random, stratified, by IFD, or by coverage.

Pure: candidates and what is known of them in, DECISIONS out. One domain at a time, since scores are not
comparable across domains. The result does not depend on the order of the rows.
"""

from balkit.selection.choose import Evidence, select
from balkit.selection.coverage import Spread, spread
from balkit.selection.grid import on_grid

__all__ = ["Evidence", "Spread", "on_grid", "select", "spread"]
