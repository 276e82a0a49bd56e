"""What the sections of a page hold: numbers and short texts for the template. One without data says so in `said`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from balkit import figures
from balkit.pages.accuracy import Answers, Students
from balkit.pages.reading import Run
from balkit.pool import Overview
from balkit.report import against

#: Domains of one table at most: the largest and the smallest.
MOST_DOMAINS = 300
#: Rows of all tables of a section that has one a stage.
MOST_CELLS = 1_200

#: Other runs beside one.
MOST_ARMS = 8

_ADDED = ("real", "synthetic", "repeats")

Section = dict[str, Any]


def few(domains: Sequence[str], most: int = MOST_DOMAINS) -> tuple[list[str], str]:
    """As many domains as a table shows, and a sentence where these are not all."""
    if len(domains) <= most:
        return list(domains), ""
    small = most // 3
    note = f"Of {len(domains):,} domains the {most - small} largest of the pool and the {small} smallest are shown."
    return [*domains[: most - small], *domains[-small:]], note


def drawn(name: str, figure: Any, caption: str) -> dict[str, Any]:
    """A figure of a section; `figure` is matplotlib's, to be written as a file too."""
    return {"name": name, "svg": figures.inline(figure, name=name), "caption": caption, "figure": figure}


def of_tail(run: Run | None, coverage: pl.DataFrame) -> Section:
    """Rows by domain: in the pool, and after each stage."""
    ordered = coverage.select("domain", "real").sort("real", "domain", descending=[True, False])
    real = dict(ordered.iter_rows()) if run is None else run.counts
    after = {stage: run.after(stage) for stage in run.stages_shown} if run else {}
    domains = run.domains if run else list(real)
    if not domains:
        return {"said": "The pool has no train examples yet: `balkit add` brings some."}
    even = sum(real.values()) / len(domains)
    head = run.head if run else frozenset(name for name, rows in real.items() if rows >= even)
    most = max([*real.values(), 1])
    tops = [sum(row[part] for part in _ADDED) for by in after.values() for row in by.values()]
    shown, note = few(domains)
    last = after[max(after)] if after else {}
    rows: list[dict[str, Any]] = [
        {"domain": name, "part": "head" if name in head else "tail", "pool": real.get(name, 0)}
        | {"after": [sum(by.get(name, {}).get(part, 0) for part in _ADDED) for by in after.values()]}
        | {part: last.get(name, {}).get(part, 0) for part in (*_ADDED, "refused")}
        for name in shown
    ]
    return {
        "figures": _tails(real, after, domains=domains, most=most, top=max(tops, default=1)),
        "rows": rows,
        "note": note,
        "stages": list(after),
        "most": most,
        "top": max([1, *(row["after"][-1] for row in rows if row["after"])]),
        "by_run": run is not None and not run.quotas.is_empty(),
    }


def _tails(
    real: Mapping[str, int],
    after: Mapping[int, Mapping[str, Mapping[str, int]]],
    *,
    domains: list[str],
    most: int,
    top: int,
) -> list[dict[str, Any]]:
    """The pool's figure, and one of each stage, these to one scale."""
    pool = figures.tail({"real": [real.get(name, 0) for name in domains]}, domains=domains, most=most)
    found = [drawn("tail-pool", pool, "The pool: real train examples")]
    low = max([0, *(row["refused"] for by in after.values() for row in by.values())])
    for stage, by in after.items():
        parts = {part: [by.get(name, {}).get(part, 0) for name in domains] for part in (*_ADDED, "refused")}
        below = "; below the line those refused" if any(parts["refused"]) else ""
        figure = figures.tail(parts, domains=domains, most=top, least=low)
        found.append(drawn(f"tail-stage-{stage}", figure, f"After stage {stage}: rows so far{below}"))
    return found


def of_quotas(run: Run | None) -> Section:
    """Each stage's quotas beside what filled them."""
    if run is None:
        return {"said": "No run has chosen rows from this pool yet: `balkit run POOL RECIPE`."}
    if run.quotas.is_empty():
        return {"said": "The quotas of this run are not known: its folder in runs/ is gone, or of an older balkit."}
    shown, note = few(run.domains, MOST_CELLS // max(len(run.stages_shown), 1))
    lacking = [
        {**one, "given": ", ".join(f"{name}: {rows}" for name, rows in dict(one.get("given_to") or {}).items())}
        for one in run.deficits
    ]
    return {"stages": [_filled(run, stage, shown) for stage in run.stages_shown], "note": note, "deficits": lacking}


def _filled(run: Run, stage: int, shown: Sequence[str]) -> dict[str, Any]:
    """A stage's quota and rows by domain, and in all."""
    mine = run.rows.filter(pl.col("stage") == stage)
    quota = dict(run.quotas.filter(pl.col("stage") == stage).select("domain", "quota").iter_rows())
    added = {row["domain"]: row for row in mine.to_dicts()}
    rows = []
    for name in shown:
        got = {part: added.get(name, {}).get(part, 0) for part in _ADDED}
        rows.append({"domain": name, "quota": quota.get(name, 0), "added": sum(got.values()), **got})
    whole = {part: int(mine[part].sum()) for part in _ADDED}
    top = max([1, *(max(row["quota"], row["added"]) for row in rows)])
    return {
        "stage": stage,
        "rows": rows,
        "top": top,
        "quota": sum(quota.values()),
        "added": sum(whole.values()),
    } | whole


def of_ifd(run: Run | None) -> Section:
    """IFD of the candidates by stage."""
    if run is None:
        return {"said": "No run has scored candidates yet."}
    found = Overview(run.pool.path).ifd_by_stage(run.run_id).filter(pl.col("stage").is_in(run.stages_shown))
    scored = found.filter(pl.col("ifd").is_not_null())
    if scored.is_empty():
        method = run.recipe.select.then if run.recipe else "unknown"
        unscored = f"; {found.height:,} candidates could not be scored" if found.height else ""
        return {
            "said": f"No candidate of this run has an IFD (select.then: {method}, {len(run.stages)} stages{unscored})."
        }
    values, rows = {}, []
    for stage in sorted(found["stage"].unique()):
        mine = found.filter(pl.col("stage") == stage)
        taken = mine.filter("taken")["ifd"].drop_nulls()
        others = mine.filter(~pl.col("taken"))["ifd"].drop_nulls()
        values[stage] = (taken.to_list(), others.to_list())
        every = mine["ifd"].drop_nulls()
        quantiles = [every.quantile(part, "linear") for part in (0.1, 0.5, 0.9)]
        why = mine.filter(pl.col("ifd").is_null())["reason"].value_counts(sort=True).head(3).iter_rows()
        unscored = ", ".join(f"{rows:,} {reason or 'without a reason'}" for reason, rows in why)
        said = {"scored": len(every), "taken": len(taken), "quantiles": quantiles, "unscored": unscored}
        rows.append({"stage": stage} | said)
    limit = run.recipe.select.max_ifd if run.recipe else None
    return {
        "figures": [drawn("ifd", figures.spreads(values, limit=limit), "IFD of each stage's candidates")],
        "rows": rows,
    }


def of_refusals(run: Run | None, *, each: int, chars: int) -> Section:
    """What was refused, by reason, with samples."""
    if run is None:
        return {"said": "No run has refused anything yet."}
    if run.refused.is_empty():
        return {"said": "The checks of this run refused nothing."}
    samples = Overview(run.pool.path).refused_samples(run.run_id, each=each, chars=chars)
    groups = []
    counted = run.refused.group_by("step", "reason").agg(pl.col("rows").sum(), domains=pl.col("domain").n_unique())
    for one in counted.sort("rows", "step", "reason", descending=[True, False, False]).to_dicts():
        same = (pl.col("step") == one["step"]) & (pl.col("reason") == one["reason"])
        common = run.refused.filter(same).group_by("domain").agg(pl.col("rows").sum())
        worst = common.sort("rows", "domain", descending=[True, False]).head(4).iter_rows()
        groups.append(
            one | {"worst": list(worst), "samples": [_sample(row, chars) for row in samples.filter(same).to_dicts()]}
        )
    return {"groups": groups, "total": int(run.refused["rows"].sum()), "each": each, "chars": chars}


def _sample(row: dict[str, Any], chars: int) -> dict[str, Any]:
    """A refused row, its detail taken apart where it is JSON."""
    try:
        parts = json.loads(row["detail"] or "")
    except ValueError:
        parts = None
    named = list(parts.items()) if isinstance(parts, dict) else []
    said = [(key.replace("_", " "), value if isinstance(value, str) else json.dumps(value)) for key, value in named]
    short = [(key, value if len(value) <= chars else value[: chars - 1] + "…") for key, value in said]
    plain = None if named or not row["detail"] else row["detail"][:chars]
    return row | {"detail": plain, "parts": short}


def of_money(run: Run | None) -> Section:
    """What the teacher's calls cost, against what was forecast."""
    if run is None:
        return {"said": "Nothing was spent: no run has asked a teacher yet."}
    if run.calls.is_empty():
        return {"said": "This run has asked its teacher for nothing, or its calls are not known."}
    told = against(run.calls, forecast=run.forecast, rows=int(run.snapshots["rows"][-1]))
    order = {name: at for at, name in enumerate(run.domains)}
    by_domain = {row["domain"]: row for row in told["by_domain"]}
    shown, note = few(sorted(by_domain, key=lambda name: (order.get(name, len(order)), name)))
    purposes = sorted(run.calls["purpose"].unique())
    cells = run.calls.group_by("domain", "purpose").agg(usd=pl.col("cost_microusd").sum() / 1e6)
    usd = {(domain, purpose): cost for domain, purpose, cost in cells.iter_rows()}
    rows = [by_domain[name] | {"by_purpose": [usd.get((name, one), 0.0) for one in purposes]} for name in shown]
    figure = figures.money([_priced(row, kind) for kind in ("purpose", "stage") for row in told[f"by_{kind}"]])
    return {
        "figures": [drawn("money", figure, "Spent by purpose and by stage, and what was forecast")],
        "total": told["total"],
        "per_row": told["usd_per_row"],
        "kept_rows": told["kept_rows"],
        "cached": int((run.calls["status"] == "cached").sum()),
        "purposes": purposes,
        "rows": rows,
        "top": max([1e-12, *(row["usd"] for row in rows)]),
        "note": note,
        "by_purpose": told["by_purpose"],
        "by_teacher": told["by_teacher"],
    }


def _priced(row: Mapping[str, Any], kind: str) -> tuple[str, float, float | None, float | None, float | None]:
    name = f"stage {row[kind]}" if kind == "stage" else str(row[kind])
    return name, row["usd"], row["usd_low"], row["usd_forecast"], row["usd_high"]


def of_accuracy(run: Run | None, *, students: Students, others: Sequence[Mapping[str, Any]]) -> Section:
    """Accuracy on eval by stage, beside the student before training and other runs."""
    if run is None:
        return {"said": "No student was trained yet."}
    stages = students.stages(run)
    if not stages:
        why = "it was not trained (`--no-train`), or the pool has no eval rows with a reference answer"
        return {"said": f"No student of this run has answered the eval split: {why}."}
    before = students.untrained(run, like=stages[-1])
    shown = [before, *stages] if before else stages
    answered = [name for name in run.domains if any(name in one.by_domain for one in shown)]
    names, note = few(answered, MOST_CELLS // len(shown))
    counts = rows_by_domain(run)
    points = [(one.name, {k: (i.value, i.low, i.high) for k, i in one.overall.items()}) for one in shown]
    arms = _arms(students, others, head=run.head)
    beside = [replace(stages[-1], name=f"{run.name} (this run)"), *arms] if arms else []

    def by_domain(of: Sequence[Answers]) -> list[dict[str, Any]]:
        return [_domain(name, of, head=run.head, trained=counts.get(name, 0)) for name in names] if of else []

    return {
        "figures": [drawn("accuracy", figures.accuracies(points), "Accuracy on eval, with 95 % intervals")],
        "students": [_overall(one) for one in shown],
        "rows": by_domain(shown),
        "arms": [_overall(one) for one in beside],
        "arm_rows": by_domain(beside),
        "base": before is not None,
        "note": note,
    }


def rows_by_domain(run: Run) -> dict[str, int]:
    """All rows of a run."""
    return dict(run.rows.group_by("domain").agg(pl.sum_horizontal(*_ADDED).sum()).iter_rows())


def _arms(students: Students, others: Sequence[Mapping[str, Any]], *, head: frozenset[str]) -> list[Answers]:
    """The last students of other runs that answered eval: of each recipe's name the newest."""
    found: dict[str, Answers] = {}
    for other in others:
        name = other["recipe"] or other["run_id"]
        if name not in found and len(found) < MOST_ARMS:
            one = students.of(other["run_id"], other["stage"], name=other["name"], head=head, trained=other["rows"])
            found |= {name: one} if one else {}
    return list(found.values())


def _overall(one: Answers) -> dict[str, Any]:
    return {"name": one.name, "rows": one.graded.height, "trained": one.trained, **one.overall}


def _domain(name: str, shown: Sequence[Answers], *, head: frozenset[str], trained: int) -> dict[str, Any]:
    cells = [one.by_domain.get(name) for one in shown]
    return {
        "domain": name,
        "part": "head" if name in head else "tail",
        "asked": max((cell[1] for cell in cells if cell), default=0),
        "trained": trained,
        "cells": [cell[0] if cell else None for cell in cells],
    }
