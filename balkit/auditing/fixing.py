"""What was found in a pool, taken out of use: whole examples, or single worked answers of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from balkit import frames, texts
from balkit.auditing.rows import HELD_OUT, REASONS, Finding, Rows
from balkit.pool import Commit, Pool
from balkit.pool.reviewed import SOURCE, STEP

#: Reasons that say of a row that another one is there already.
_REPEATS = ("exact_duplicate", "near_duplicate", "semantic_duplicate")


@dataclass(frozen=True)
class Fixed:
    """What a fix did: the pool's version, how many examples were retired and worked answers rejected.

    left  examples with findings that stay as they are, since they are held out
    """

    version: int
    retired: int
    rejected: int
    left: int


@dataclass
class _Plan:
    """What is to be done with the rows, by index."""

    retired: dict[int, list[Finding]] = field(default_factory=dict)
    rejected: dict[int, list[Finding]] = field(default_factory=dict)
    left: int = 0


def fix(pool: Pool, rows: Rows, found: Sequence[Finding], *, held_out: bool = False) -> Fixed:
    """Take what was found out of use, in one version; nothing is deleted, and nothing is done where nothing was found.

    An example is retired with its reasons. Where only worked answers are at fault and another one of the example is
    not, these alone are rejected, as `balkit review` does. Of rows that repeat a retired one the first stays. Rows of
    dev and eval stay unless `held_out`.
    """
    plan = _planned(rows, found, held_out=held_out)
    if not plan.retired and not plan.rejected:
        return Fixed(pool.version, 0, 0, plan.left)
    reasons = {rows.example_ids[index]: f"audit: {', '.join(_reasons(own))}" for index, own in plan.retired.items()}
    counted = _counted([*plan.retired.values(), *plan.rejected.values()])
    rationales, decisions = _rejections(pool, rows, plan.rejected)
    version = pool.commit(
        Commit(
            message=f"retire: audit: {counted}",
            rationales=rationales,
            decisions=decisions,
            retired=pl.DataFrame(list(reasons.items()), schema=["example_id", "reason"], orient="row")
            if reasons
            else None,
        )
    )
    return Fixed(version, len(reasons), 0 if rationales is None else rationales.height, plan.left)


def _planned(rows: Rows, found: Sequence[Finding], *, held_out: bool) -> _Plan:
    of_row: dict[int, list[Finding]] = {}
    for finding in found:
        of_row.setdefault(finding.index, []).append(finding)
    plan = _Plan()
    for index, own in sorted(of_row.items()):
        if rows.splits[index] in HELD_OUT and not held_out:
            plan.left += 1
        elif any(finding.worked is None for finding in own) or not _has_sound(rows, index, own):
            plan.retired[index] = own
        else:
            plan.rejected[index] = own
    _keep_one_of_each(rows, plan)
    return plan


def _keep_one_of_each(rows: Rows, plan: _Plan) -> None:
    """A row that only repeats rows which are retired themselves takes the place of the first of them."""
    instead: dict[int, int] = {}  # of a retired row, the row in use that it repeats or that repeats it
    for index, own in sorted(plan.retired.items()):  # a row repeats an earlier one
        whole = [finding for finding in own if finding.worked is None]
        others = [finding.other for finding in whole if finding.reason in _REPEATS and finding.other is not None]
        standing = [one for one in (instead.get(other, other) for other in others) if one not in plan.retired]
        if standing:
            instead[index] = min(standing)
        elif others and len(others) == len(whole) and _has_sound(rows, index, own):
            instead |= dict.fromkeys(others, index)
            del plan.retired[index]
            if len(own) > len(whole):
                plan.rejected[index] = [finding for finding in own if finding.worked is not None]


def _has_sound(rows: Rows, index: int, own: Sequence[Finding]) -> bool:
    """Whether a worked answer is left that nothing was found of, or there are none at all."""
    bad = {finding.worked for finding in own if finding.worked is not None}
    return len(bad) < max(1, len(rows.rationales[index]))


def _rejections(
    pool: Pool, rows: Rows, rejected: Mapping[int, Sequence[Finding]]
) -> tuple[pl.DataFrame | None, pl.DataFrame | None]:
    """RATIONALES that are not accepted any more, and the DECISIONS that say so."""
    why: dict[tuple[str, str], list[Finding]] = {}
    domains = {}
    for index, own in rejected.items():
        domains[rows.example_ids[index]] = rows.domains[index]
        for finding in own:
            text = rows.rationales[index][finding.worked or 0]
            why.setdefault((rows.example_ids[index], text), []).append(finding)
    stored, decisions = [], []
    accepted = pool.reviewed().standing(pool.rationales()).filter("accepted") if why else frames.RATIONALES.empty()
    for row in accepted.iter_rows(named=True):
        own = why.pop((row["example_id"], row["text"]), [])
        if not own:
            continue
        note = f"audit: {', '.join(_reasons(own))}"
        source = f"{SOURCE}:rejected"
        new = texts.rationale_id(row["example_id"], row["text"], row["answer"], source)
        again = {name: row[name] for name in ("example_id", "text", "answer", "author")}
        stored.append(again | {"rationale_id": new, "source": source, "accepted": False} | _said(own, note))
        detail = json.dumps({"of": row["rationale_id"], "as": new, "note": note}, ensure_ascii=False, sort_keys=True)
        about = {"example_id": row["example_id"], "domain": domains[row["example_id"]], "step": STEP}
        decided = {"method": "audit", "kept": False, "reason": "rejected", "gain": None, "rank": None}
        decisions.append(about | decided | {"detail": detail})
    if not stored:
        return None, None
    return frames.RATIONALES.of(stored), frames.DECISIONS.of(decisions)


def _said(own: Sequence[Finding], note: str) -> dict[str, str]:
    return {"reason": _reasons(own)[0], "detail": note}


def _reasons(own: Sequence[Finding]) -> list[str]:
    """In the order of the table."""
    given = {finding.reason for finding in own}
    return [reason for reason in REASONS if reason in given]


def _counted(acted: Sequence[Sequence[Finding]]) -> str:
    each = [_reasons(own) for own in acted]
    counts = {reason: sum(reason in own for own in each) for reason in REASONS}
    return ", ".join(f"{reason} {count}" for reason, count in counts.items() if count)
