"""Examples whose teacher and reference, or whose teachers among themselves, do not agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import polars as pl

from balkit import answers
from balkit.frames import Kind
from balkit.pool.reviewed import SOURCE

_S, _I = pl.String(), pl.Int64()

#: One row an example. `answer` is what the teacher said most often in place of the reference, in `said` of `tries`
#: worked answers; `accepted` of them were accepted; `others` lists what else was said.
CONFLICTS = Kind(
    "CONFLICTS",
    {
        "example_id": _S, "domain": _S, "split": _S, "why": _S, "reference": _S, "answer": _S, "said": _I, "tries": _I,
        "accepted": _I, "others": _S, "prompt": _S,
    },
    frozenset({"reference", "answer", "others"}),
)  # fmt: skip

#: Why an example is listed, by the reason of a refused rationale; the first that holds.
REASONS = {
    "answer_contradicts_reference": "contradicts_reference",
    "vote_tied": "vote_tied",
    "vote_thin": "vote_thin",
}
DISAGREE = "accepted_disagree"


def conflicts(questioned: pl.DataFrame) -> pl.DataFrame:
    """CONFLICTS from the rationales of examples in question, the most certain first.

    First those without an accepted worked answer, then by how many tries said so, then by id. A vote that was not
    decided is listed where a later one did not decide it either. Two answers are the same if they are equal as
    numbers, or as texts after normalising.
    """
    parts = questioned.filter(~pl.col("source").str.starts_with(SOURCE)).partition_by("example_id", maintain_order=True)
    rows = [part.to_dicts() for part in parts]
    numbers = answers.grouped([[one["reference"], *_answers(part)] for part in rows for one in part[:1]], kind="number")
    found = [_row(part, groups) for part, groups in zip(rows, numbers, strict=True)]
    listed = CONFLICTS.of([row for row in found if row is not None])
    return listed.sort(pl.col("accepted") > 0, -pl.col("said"), "example_id")


def _answers(part: Sequence[dict[str, Any]]) -> list[str | None]:
    return [one["answer"] for one in part]


def _row(part: Sequence[dict[str, Any]], groups: Sequence[int | None]) -> dict[str, object] | None:
    why = _why(part, groups[1:])
    if why is None:
        return None
    right, first = groups[0], part[0]
    counts = Counter(group for group in groups[1:] if group is not None and (group != right or why == DISAGREE))
    names = _names(_answers(part), groups[1:])
    ranked = sorted(counts, key=lambda group: (-counts[group], group or 0))
    others = ", ".join(f"{names[group]} ({counts[group]})" for group in ranked[1:])
    return {name: first[name] for name in ("example_id", "domain", "split", "reference", "prompt")} | {
        "why": why,
        "answer": names[ranked[0]] if ranked else None,
        "said": counts[ranked[0]] if ranked else 0,
        "tries": len(part),
        "accepted": sum(one["accepted"] for one in part),
        "others": others or None,
    }


def _names(said: Sequence[str | None], groups: Sequence[int | None]) -> dict[int | None, str | None]:
    """How each group of answers is mostly written; the shortest of equally frequent ways."""
    ways = Counter((group, answer) for answer, group in zip(said, groups, strict=True) if answer)
    ranked = sorted(ways, key=lambda way: (-ways[way], len(way[1]), way[1]), reverse=True)
    return dict(ranked)


def _why(part: Sequence[dict[str, Any]], groups: Sequence[int | None]) -> str | None:
    refused = {one["reason"] for one in part if not one["accepted"]}
    accepted = {group for one, group in zip(part, groups, strict=True) if one["accepted"] and group is not None}
    why = next((why for reason, why in REASONS.items() if reason in refused), None)
    if why == "contradicts_reference" or (why is not None and not accepted):
        return why
    return DISAGREE if len(accepted) > 1 else None
