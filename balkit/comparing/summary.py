"""Means over seeds with intervals, and paired differences between arms; cells are the dictionaries of results.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

import polars as pl

MEASURES = ("macro", "micro", "natural", "head", "tail")

#: Two-sided 95 % quantiles of Student's t by degrees of freedom; beyond these the normal's.
_T95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)


def interval(values: Sequence[float]) -> dict[str, float | None]:
    """`mean`, and the ends `low` and `high` of its 95 % t-interval; of one value these are None."""
    middle = mean(values)
    if len(values) < 2:
        return {"mean": middle, "low": None, "high": None}
    quantile = _T95[len(values) - 2] if len(values) - 2 < len(_T95) else 1.96
    half = quantile * stdev(values) / math.sqrt(len(values))
    return {"mean": middle, "low": middle - half, "high": middle + half}


def means(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a budget and arm, in the order of the cells: every measure's `interval` over seeds, and what it took."""
    rows = []
    for (budget, arm), mine in _by_arm(cells).items():
        measured = {name: [cell[name] for cell in mine if cell[name] is not None] for name in MEASURES}
        rows.append(
            {"budget": budget, "arm": arm, "seeds": len(mine), "rows": mine[0]["rows"], "steps": mine[0]["steps"]}
            | {
                name: mean(cell[name] for cell in mine)
                for name in ("real", "synthetic", "repeats", "cost_usd", "seconds")
            }
            | {name: interval(values) if values else None for name, values in measured.items()}
        )
    return rows


def natural(per_domain: Mapping[str, Mapping[str, float]], rows: Mapping[str, int]) -> float | None:
    """Accuracy (0-1) where domains come as often as in the pool's real training `rows`; None where these have none.

    An eval split is often flat or capped, so that `micro` does not show what balance costs the head.
    """
    total = sum(rows.get(domain, 0) for domain in per_domain)
    return sum(one["accuracy"] * rows.get(domain, 0) for domain, one in per_domain.items()) / total if total else None


def differences(cells: Sequence[Mapping[str, Any]], *, from_arms: Sequence[str]) -> list[dict[str, Any]]:
    """Each arm's paired differences from `from_arms`, by the seeds that both have: a row a budget, pair, measure."""
    rows = []
    groups = _by_arm(cells)
    for (budget, arm), mine in groups.items():
        for other in dict.fromkeys(from_arms):
            theirs = {cell["seed"]: cell for cell in groups.get((budget, other), ())}
            pairs = [(cell, theirs[cell["seed"]]) for cell in mine if cell["seed"] in theirs]
            if arm == other or not pairs:
                continue
            for name in MEASURES:
                gains = [ours[name] - base[name] for ours, base in pairs if None not in (ours[name], base[name])]
                if gains:
                    who = {"budget": budget, "arm": arm, "from": other, "measure": name, "seeds": len(gains)}
                    rows.append(who | interval(gains))
    return rows


def shown(body: Mapping[str, Any]) -> pl.DataFrame:
    """The results for people: one row a budget and arm, all numbers in percent with half of their interval's width."""
    macro = {(row["budget"], row["arm"], row["from"]): row for row in body["differences"] if row["measure"] == "macro"}
    from_arms = list(dict.fromkeys(row["from"] for row in body["differences"]))
    rows = []
    for one in body["means"]:
        taken = {"rows": one["rows"], "steps": one["steps"]}
        taken |= {name: round(one[name]) for name in ("real", "synthetic", "repeats")}
        row = {"budget": one["budget"], "arm": one["arm"], "seeds": one["seeds"]} | taken
        row |= {f"{name} %": _percent(one[name]) for name in MEASURES}
        for other in from_arms:
            row[f"macro - {other}"] = _signed(macro.get((one["budget"], one["arm"], other)))
        rows.append(row | {"usd": f"{one['cost_usd']:.4f}", "s": round(one["seconds"])})
    return pl.DataFrame(rows)


def markdown(body: Mapping[str, Any]) -> str:
    """`shown` as tables of Markdown, one a budget."""
    parts = []
    for (budget,), part in shown(body).group_by("budget", maintain_order=True):
        with pl.Config(
            tbl_formatting="MARKDOWN",
            tbl_hide_column_data_types=True,
            tbl_hide_dataframe_shape=True,
            tbl_rows=-1,
            tbl_cols=-1,
            tbl_width_chars=1000,
            fmt_str_lengths=200,
            thousands_separator=",",
        ):
            parts.append(f"{budget:,} rows:\n\n{part.drop('budget')}\n")
    return "\n".join(parts)


def _by_arm(cells: Sequence[Mapping[str, Any]]) -> dict[tuple[int, str], list[Mapping[str, Any]]]:
    groups: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
    for cell in cells:
        groups.setdefault((cell["budget"], cell["arm"]), []).append(cell)
    return groups


def _percent(found: Mapping[str, float | None] | None) -> str:
    if found is None or found["mean"] is None:
        return "-"
    half = "" if found["high"] is None else f" ± {100 * (found['high'] - found['mean']):.1f}"
    return f"{100 * found['mean']:.1f}{half}"


def _signed(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    ends = "" if found["low"] is None else f" ({100 * found['low']:+.1f} to {100 * found['high']:+.1f})"
    return f"{100 * found['mean']:+.1f}{ends}"
