"""The figures of a run: its long tail, its map, IFD, accuracy and money."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from balkit.figures.domains import short
from balkit.figures.look import COLOURS, blank

#: Domains up to which a figure names each.
NAMED = 12
#: Domains up to which a figure draws each; of more it draws as many, evenly spaced.
DRAWN = 300

_PARTS = ("real", "synthetic", "repeats")

Points = Sequence[tuple[float, float]]


def tail(rows: Mapping[str, Sequence[int]], *, domains: Sequence[str], most: int, least: int = 0) -> Any:
    """Bars of rows by domain, in the order given: real, synthetic and repeats upwards, refused downwards.

    `most` and `-least` are the ends of the axis, so that several figures compare.
    """
    few = len(domains) <= NAMED
    figure, axes = blank(4.3, 2.9 if few else 2.4)
    at = np.linspace(0, len(domains) - 1, min(len(domains), DRAWN)).round().astype(int)
    base = np.zeros(len(at), dtype=int)
    for part in (*_PARTS, "refused"):
        if not any(rows.get(part, ())):
            continue
        counts = np.asarray(rows[part])[at]
        start, end = (0 * base, -counts) if part == "refused" else (base, base + counts)
        if few:
            axes.bar(at, end - start, bottom=start, width=0.8, color=COLOURS[part], label=part)
        else:  # one path, where bars would take 400 bytes each
            edges = np.arange(len(at) + 1) - 0.5
            axes.stairs(end, edges, baseline=start, fill=True, color=COLOURS[part], label=part)
        base = base if part == "refused" else end
    axes.axhline(0, color=COLOURS["faint"], linewidth=0.8)
    axes.set_ylim(-1.05 * least, 1.05 * max(most, 1))
    axes.set_xlim(-0.6, max(len(at), 1) - 0.4)
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):,.0f}")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel("rows")
    if few:
        names = [short(domain, 16) for domain in domains]
        axes.set_xticks(at, names, rotation=40, ha="right", rotation_mode="anchor", parse_math=False)
    else:
        axes.set_xticks([])
        part = f"; {len(at):,} are drawn" if len(at) < len(domains) else ""
        axes.set_xlabel(f"{len(domains):,} domains, the largest of the pool first{part}")
    axes.legend(loc="upper right")
    return figure


def plane(points: Mapping[str, Points], *, explained: float) -> Any:
    """The map: points of the pool, of the rows taken from it, and of written ones; `explained` is a fraction 0-1."""
    figure, axes = blank(5.2, 4.6)
    looks = {
        "pool": ("repeats", "x", 9, "real, not taken"),
        "head": ("real", "o", 11, "real, taken, head domains"),
        "tail": ("chosen", "s", 11, "real, taken, tail domains"),
        "synthetic": ("synthetic", "^", 15, "synthetic"),
    }
    for name, (colour, mark, size, label) in looks.items():
        if len(points.get(name, ())):
            x, y = np.asarray(points[name]).T
            drawn = axes.scatter(
                x, y, s=size, marker=mark, color=COLOURS[colour], linewidths=0.6 * (mark == "x"), label=label
            )
            drawn.set_gid(f"keep-map-{name}")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(f"two principal components; they hold {100 * explained:.0f} % of the variance")
    figure.legend(loc="outside upper center", ncols=2, markerscale=1.4)
    return figure


def spreads(values: Mapping[int, tuple[Sequence[float], Sequence[float]]], *, limit: float | None) -> Any:
    """IFD of the candidates by stage, one histogram below the other: those taken before the others."""
    figure, axes = blank(5.2, 0.6 + 1.15 * len(values), nrows=len(values), sharex=True, squeeze=False)
    every = np.concatenate([np.concatenate([np.asarray(a, float), np.asarray(b, float)]) for a, b in values.values()])
    low, top = (float(np.quantile(every, part)) for part in (0.0, 0.99)) if len(every) else (0.0, 1.0)
    edge = max((top - low) / 20, 1e-6)
    bins = np.linspace(low - edge, top + edge, 41)
    for axis, (stage, (taken, others)) in zip(axes[:, 0], values.items(), strict=True):
        cut = [np.clip(np.asarray(part, float), bins[0], bins[-1]) for part in (taken, others)]
        colours = [COLOURS["real"], COLOURS["faint"]]
        axis.hist(cut, bins=bins, stacked=True, color=colours, label=["taken", "not taken"])
        if limit is not None and limit <= bins[-1]:
            axis.axvline(limit, color=COLOURS["refused"], linewidth=1, linestyle="--", label=f"max_ifd {limit:g}")
        axis.set_ylabel(f"stage {stage}")
        axis.yaxis.get_major_locator().set_params(integer=True, nbins=3)
    axes[0, 0].legend(loc="upper right")
    axes[-1, 0].set_xlabel("IFD (values beyond the 99th percentile stand in the last bar)")
    return figure


def accuracies(students: Sequence[tuple[str, Mapping[str, tuple[float, float, float]]]]) -> Any:
    """Macro, head and tail accuracy of students in order, with 95 % intervals; values are fractions 0-1."""
    figure, axes = blank(5.2, 2.8)
    looks = {"macro": ("ink", "o"), "head": ("real", "^"), "tail": ("refused", "v")}
    for offset, (name, (colour, mark)) in zip((0.0, -0.12, 0.12), looks.items(), strict=True):
        found = [(at + offset, student[name]) for at, (_, student) in enumerate(students) if name in student]
        if not found:
            continue
        places, values = [at for at, _ in found], [100 * value for _, (value, _, _) in found]
        spread = [[100 * abs(value - ends[side]) for _, (value, *ends) in found] for side in (0, 1)]
        axes.errorbar(
            places, values, yerr=spread, fmt=f"-{mark}", color=COLOURS[colour], capsize=2, markersize=4, linewidth=1,
            label=name,
        )  # fmt: skip
    axes.set_xticks(range(len(students)), [short(name, 18) for name, _ in students], parse_math=False)
    axes.set_xlim(-0.5, max(len(students), 1) - 0.5)
    highest = max([5.0, *(100 * high for _, student in students for _, _, high in student.values())])
    axes.set_ylim(0, min(1.06 * highest, 106))
    axes.set_ylabel("accuracy, %")
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def differences(parts: Sequence[tuple[str, float, float, float]]) -> Any:
    """Differences of accuracy in points with their intervals; values are fractions."""
    figure, axes = blank(5.2, 0.7 + 0.32 * len(parts))
    values = [100 * value for _, value, _, _ in parts]
    spread = [[100 * abs(value - ends[side]) for _, value, *ends in parts] for side in (0, 1)]
    axes.axvline(0, color=COLOURS["faint"], linewidth=1)
    axes.errorbar(values, range(len(parts)), xerr=spread, fmt="o", color=COLOURS["real"], capsize=3, markersize=4)
    axes.set_yticks(range(len(parts)), [short(name, 18) for name, *_ in parts], parse_math=False)
    axes.set_ylim(len(parts) - 0.5, -0.5)
    ends = [100 * end for _, *three in parts for end in three]
    axes.set_xlim(min([-1.0, *(1.1 * end for end in ends)]), max([1.0, *(1.1 * end for end in ends)]))
    axes.set_xlabel("points")
    return figure


def money(parts: Sequence[tuple[str, float, float | None, float | None, float | None]]) -> Any:
    """US dollars by part: spent as a bar; forecast with its low and high end as a line with a mark."""
    figure, axes = blank(5.2, 0.9 + 0.34 * len(parts))
    places = np.arange(len(parts))
    axes.barh(places, [spent for _, spent, *_ in parts], color=COLOURS["real"], height=0.55, label="spent")
    told = [(at, low, usd, high) for at, (_, _, low, usd, high) in enumerate(parts) if None not in (low, usd, high)]
    if told:
        at, low, usd, high = (np.asarray(column, float) for column in zip(*told, strict=True))
        axes.errorbar(
            usd, at, xerr=np.clip([usd - low, high - usd], 0, None), fmt="|", color=COLOURS["refused"], capsize=3,
            markersize=9, linewidth=1, label="forecast, low to high",
        )  # fmt: skip
    axes.set_yticks(places, [short(name, 24) for name, *_ in parts], parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("US dollars")
    figure.legend(loc="outside upper center", ncols=2)
    return figure
