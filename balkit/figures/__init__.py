"""Figures as files, by matplotlib (extra `report`): the same bytes for the same numbers under the same matplotlib."""

from balkit.figures.arms import arms_figure
from balkit.figures.domains import balance

__all__ = ["arms_figure", "balance"]
