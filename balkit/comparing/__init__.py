"""Arms x seeds on one pool and one teacher record, with equal rows and steps: which part of a recipe is worth what."""

from balkit.comparing.experiment import Cell, Experiment, load
from balkit.comparing.running import Comparison, compare
from balkit.comparing.summary import differences, markdown, means, shown

__all__ = [
    "Cell",
    "Comparison",
    "Experiment",
    "compare",
    "differences",
    "load",
    "markdown",
    "means",
    "shown",
]
