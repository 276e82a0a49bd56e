"""The figure of a data set: rows by origin and domain, quotas, and what was rejected."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import polars as pl

from balkit.errors import need

#: Domains of a figure at most; the ones with the most rows are drawn.
MOST = 60

#: What a bar is made of: the column, and its colour (of Okabe and Ito, which colour-blind readers tell apart).
PARTS = {"real": "#0072B2", "synthetic": "#E69F00", "repeated": "#999999"}
_REJECTED = "#D55E00"
_NAME = 40  # characters of a domain's name


def balance(domains: pl.DataFrame, path: Path) -> None:
    """Draw a bar a domain as PNG: its rows by origin beside its quota, and the rows that a check rejected.

    `domains` has domain, quota (null where unknown), real, synthetic, repeated, rejected, in rows; the largest domains
    come first. Raises `MissingExtra` without matplotlib.
    """
    matplotlib = need("matplotlib", extra="report")
    figures = need("matplotlib.figure", extra="report")
    rows = pl.sum_horizontal(*PARTS)
    drawn = domains.sort(rows, "domain", descending=[True, False]).head(MOST)
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that the font lacks: a box stands for each
        matplotlib.rcdefaults()
        height = 1.6 + 0.24 * max(4, drawn.height)  # inches
        figure = figures.Figure(figsize=(9.6, height), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 1])
        _rows(left, drawn)
        right.barh(range(drawn.height), drawn["rejected"].to_list(), color=_REJECTED)
        right.set_title("rejected by a check", fontsize=10)
        for axes in (left, right):
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.spines[["top", "right"]].set_visible(False)
        more = f" (the largest {MOST} of {domains.height} domains)" if domains.height > MOST else ""
        figure.supxlabel(f"rows{more}", fontsize=10)
        figure.savefig(path, format="png", dpi=120, metadata={"Software": None})


def _rows(axes: Any, drawn: pl.DataFrame) -> None:
    places, base = range(drawn.height), [0] * drawn.height
    for name, colour in PARTS.items():
        counts = drawn[name].to_list()
        axes.barh(places, counts, left=base, color=colour, label=name)
        base = [before + count for before, count in zip(base, counts, strict=True)]
    known = [(quota, at) for at, quota in enumerate(drawn["quota"].to_list()) if quota is not None]
    if known:
        axes.scatter(*zip(*known, strict=True), marker="|", s=90, color="black", label="quota", zorder=3)
    axes.set_yticks(places, [short(domain) for domain in drawn["domain"]], fontsize=8, parse_math=False)
    axes.invert_yaxis()
    axes.set_title("rows by origin, and the quota", fontsize=10)
    axes.legend(fontsize=8, frameon=False, loc="lower right")


def short(name: str, chars: int = _NAME) -> str:
    """A name that can be drawn: in one line, without control characters, cut to so many characters."""
    plain = "".join(char if char.isprintable() else " " for char in " ".join(name[: 2 * _NAME].split()))
    return plain if len(plain) <= chars else plain[: chars - 1] + "…"
