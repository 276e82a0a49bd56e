"""Two runs of a pool side by side: what they cost, what they took, and how their students differ on the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from balkit import figures, student
from balkit.errors import StudentError
from balkit.pages.accuracy import Answers, Students
from balkit.pages.reading import Run
from balkit.pages.sections import Section, drawn, few, rows_by_domain
from balkit.pool import Overview
from balkit.report import against

#: Draws of a domain's own interval.
_DRAWS = 2_000


def of_two(first: Run, second: Run, *, students: Students) -> Section:
    """The second run beside the first; differences are second minus first, head and tail those of the second."""
    answered = [students.of(one.run_id, one.stages[-1], name=one.name, head=second.head) for one in (first, second)]
    shared = Overview(first.pool.path).shared_examples(first.run_id, second.run_id)
    names, note = few(list(dict.fromkeys([*second.domains, *first.domains])))
    section: Section = {
        "names": [first.name, second.name],
        "numbers": _numbers(first, second),
        "shared": shared,
        "recipes": list(_differing(first, second)),
        "figures": [],
        "overall": [],
        "pairs": None,
        "unpaired": "",
        "note": note,
    }
    found: list[Answers] = [one for one in answered if one is not None]
    domains: dict[str, student.Interval] = {}
    if len(found) < 2:
        section["unpaired"] = (
            "Not both of their last students have answered eval, so their accuracies are not compared."
        )
    else:
        try:
            section |= _paired(found[0], found[1])
            domains = dict(_by_domain(found[0], found[1]))
        except StudentError as error:
            section["unpaired"] = f"Their students are not compared: {error}"
    rows = [rows_by_domain(one) for one in (first, second)]
    section["rows"] = [
        {
            "domain": name,
            "part": "head" if name in second.head else "tail",
            "rows": [by.get(name, 0) for by in rows],
            "cells": [one.by_domain[name][0] if one and name in one.by_domain else None for one in answered],
            "difference": domains.get(name),
        }
        for name in names
    ]
    return section


def _numbers(first: Run, second: Run) -> list[tuple[str, list[float], str]]:
    """Rows of the table of both runs: what, the two values, and how they are written."""

    def of(run: Run) -> dict[str, float]:
        kinds = {kind: int(run.rows[kind].sum()) for kind in ("real", "synthetic", "repeats")}
        told = against(run.calls, forecast=None, rows=int(run.snapshots["rows"][-1]))
        return {
            "stages": len(run.stages),
            "rows": sum(kinds.values()),
            **kinds,
            "refused": int(run.refused["rows"].sum()),
            "calls sent": told["total"]["calls"],
            "spent": told["total"]["usd"],
        }

    one, two = of(first), of(second)
    return [(name, [one[name], two[name]], "usd" if name == "spent" else "count") for name in one]


def _paired(one: Answers, two: Answers) -> Section:
    found = student.compare(one.graded, two.graded, head=two.head)
    ends = [(name, each.value, each.low, each.high) for name, each in found.differences.items()]
    return {
        "pairs": found,
        "figures": [drawn("compare", figures.differences(ends), "Second minus first, in points, with 95 % intervals")],
        "overall": [
            {"name": name, "cells": [one.overall.get(name), two.overall.get(name)], "difference": each}
            for name, each in found.differences.items()
        ],
    }


def _by_domain(one: Answers, two: Answers) -> Iterator[tuple[str, student.Interval]]:
    """Each domain's paired difference."""
    for name in sorted(two.by_domain):
        mine = [each.graded.filter(pl.col("domain") == name) for each in (one, two)]
        yield name, student.compare(*mine, head=frozenset(), draws=_DRAWS).differences["micro"]


def _differing(first: Run, second: Run) -> Iterator[tuple[str, str, str]]:
    """Keys of their recipes that differ, with both values."""
    if first.recipe is None or second.recipe is None:
        return
    one, two = (dict(_flat(run.recipe.model_dump(mode="json"))) for run in (first, second) if run.recipe)
    for key in sorted(one.keys() | two.keys()):
        if one.get(key) != two.get(key):
            yield key, str(one.get(key, "not there")), str(two.get(key, "not there"))


def _flat(body: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in body.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value
