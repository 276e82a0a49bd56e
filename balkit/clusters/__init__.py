"""Domains for examples that have none: clusters of their vectors, named by their key terms.

Pure: texts and vectors in, frames out. The result does not depend on the order of the rows, on the number of
threads or on the BLAS: similarities are whole numbers (see `grid.py`), and ties go by id.
"""

from balkit.clusters.discovering import Discovered, assign, discover, suggest

__all__ = ["Discovered", "assign", "discover", "suggest"]
