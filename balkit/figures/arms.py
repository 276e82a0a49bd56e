"""The figure of a comparison: accuracies of its arms, their differences, and budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from balkit.errors import need

_MARKS = {"macro": ("o", "#1f4e79"), "head": ("^", "#7f7f7f"), "tail": ("v", "#c55a11")}


def arms_figure(body: Mapping[str, Any], file: Path) -> None:
    """Draw the results of `balkit compare` into an .svg or .png; the same results give the same bytes of SVG.

    Left: macro, head and tail by arm, with 95 % intervals over seeds; middle: paired differences of macro; right, where
    there are several budgets: macro by budget. Raises `MissingExtra` without matplotlib.
    """
    need("matplotlib", extra="report")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    budgets = list(dict.fromkeys(row["budget"] for row in body["means"]))
    main = [row for row in body["means"] if row["budget"] == budgets[0]]
    arms = [row["arm"] for row in main]
    with mpl.rc_context({"svg.hashsalt": "balkit", "font.size": 9}):
        figure = Figure(figsize=(5 * (2 + (len(budgets) > 1)), 1.8 + 0.32 * len(arms)), layout="constrained")
        axes = figure.subplots(1, 2 + (len(budgets) > 1))
        _accuracies(axes[0], main)
        trained = {row["arm"] for row in main if row["steps"]}
        gains = [row for row in body["differences"] if row["budget"] == budgets[0] and row["arm"] in trained]
        _gains(axes[1], gains, arms)
        if len(budgets) > 1:
            _budgets(axes[2], body["means"])
        axes[0].set_yticks(range(len(arms)), arms)
        axes[1].set_yticks(range(len(arms)), [])
        for axis in axes[:2]:
            axis.set_ylim(len(arms) - 0.5, -0.5)
        axes[0].set_title(f"accuracy, %: {budgets[0]:,} rows")
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None, dpi=150)


def _accuracies(axis: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    for offset, (name, (mark, colour)) in zip((0.0, -0.2, 0.2), _MARKS.items(), strict=True):
        points = [(at + offset, row[name]) for at, row in enumerate(rows) if row[name] is not None]
        _points(axis, points, mark=mark, colour=colour, label=name)
    axis.set_xlim(-2, 102)
    _legend(axis)


def _gains(axis: Any, rows: Sequence[Mapping[str, Any]], arms: Sequence[str]) -> None:
    axis.axvline(0, color="#bbbbbb", linewidth=0.8)
    macro = [row for row in rows if row["measure"] == "macro"]
    for number, other in enumerate(dict.fromkeys(row["from"] for row in macro)):
        points = [(arms.index(row["arm"]) + 0.2 * number, row) for row in macro if row["from"] == other]
        mark, colour = list(_MARKS.values())[number % len(_MARKS)]
        _points(axis, points, mark=mark, colour=colour, label=f"minus {other}")
    axis.set_title("macro, paired difference in points")
    if macro:
        _legend(axis)


def _budgets(axis: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    several = {row["arm"] for row in rows if row["budget"] != rows[0]["budget"]}
    for arm in dict.fromkeys(row["arm"] for row in rows if row["arm"] in several):
        mine = sorted((row for row in rows if row["arm"] == arm), key=lambda row: int(row["budget"]))
        values, spread = _with_ends([row["macro"] for row in mine])
        axis.errorbar([row["budget"] for row in mine], values, yerr=spread, marker="o", capsize=2, label=arm)
    axis.set_title("macro, %, by budget in rows")
    _legend(axis)


def _legend(axis: Any) -> None:
    """Under the axes, where it hides no point."""
    from matplotlib.transforms import ScaledTranslation

    below = ScaledTranslation(0, -20 / 72, axis.figure.dpi_scale_trans)
    axis.legend(
        frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=axis.transAxes + below, ncols=3
    )


def _points(axis: Any, points: Sequence[tuple[float, Mapping[str, Any]]], **look: str) -> None:
    values, spread = _with_ends([found for _, found in points])
    axis.errorbar(
        *(values, [at for at, _ in points]),
        xerr=spread,
        fmt=look["mark"],
        color=look["colour"],
        label=look["label"],
        capsize=2,
        markersize=4,
        linewidth=1,
    )


def _with_ends(found: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[list[float]]]:
    """Means in percent, and how far their intervals reach below and above."""
    low, high = (
        [abs((one[end] if one[end] is not None else one["mean"]) - one["mean"]) for one in found]
        for end in ("low", "high")
    )
    return [100 * one["mean"] for one in found], [[100 * part for part in low], [100 * part for part in high]]
