"""Figures, by matplotlib (extra `report`): the same bytes for the same numbers under the same matplotlib."""

from balkit.figures.arms import arms_figure
from balkit.figures.domains import balance
from balkit.figures.look import COLOURS, inline, save, styled
from balkit.figures.runs import accuracies, differences, money, plane, spreads, tail

__all__ = [
    "COLOURS",
    "accuracies",
    "arms_figure",
    "balance",
    "differences",
    "inline",
    "money",
    "plane",
    "save",
    "spreads",
    "styled",
    "tail",
]
