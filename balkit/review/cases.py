"""What a person is asked to look at: one example and the worked answers that were given to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from balkit import answers, frames, texts
from balkit.pool import Pool

_EXAMPLE = ("example_id", "prompt", "reference", "domain", "split", "origin", "parents")


@dataclass(frozen=True)
class Worked:
    """A worked answer as it was stored; `times`: how many tries gave this text, `ids`: all that were stored of it."""

    rationale_id: str
    text: str
    answer: str | None
    accepted: bool
    reason: str | None
    author: str
    times: int = 1
    ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """An example and its worked answers, each text once, those that were refused first. `why` it is in question."""

    example_id: str
    prompt: str
    reference: str | None
    domain: str
    split: str
    origin: str
    parents: tuple[str, ...]
    why: str
    worked: tuple[Worked, ...]

    @property
    def said(self) -> str | None:
        """What the refused worked answers say most often; the shortest way to write it."""
        refused = [one for one in self.worked if one.answer and not one.accepted]
        (groups,) = answers.grouped([[one.answer for one in refused]], kind="number")
        counts: Counter[int | None] = Counter()
        for group, one in zip(groups, refused, strict=True):
            counts[group] += one.times
        said = [(counts[group], one.answer or "") for group, one in zip(groups, refused, strict=True)]
        return min(said, key=lambda way: (-way[0], len(way[1]), way[1]))[1] if said else None

    def one(self, rationale_id: str) -> Worked | None:
        """The worked answer of this id, or of another that was stored of the same text."""
        return next((one for one in self.worked if rationale_id in (one.rationale_id, *one.ids)), None)


def cases(pool: Pool, *, reasons: Sequence[str] = (), domain: str | None = None, settled: bool = False) -> list[Case]:
    """The cases of a pool as it is now, in the order of `pool.conflicts()`.

    With `reasons` instead the examples of which a worked answer was refused for one of them, by id. Examples that have
    a verdict are left out, unless `settled`.
    """
    if not reasons:
        found = pool.conflicts(domain=domain, settled=settled)
        named = dict(found.select("example_id", "why").iter_rows())
        built = {case.example_id: case for case in cases_of(pool, named)}
        return [built[example] for example in named]
    view = pool.at(pool.version)
    reviewed = view.reviewed()
    rows = reviewed.standing(view.questioned(reasons=reasons, domain=domain))
    if not settled:
        rows = rows.filter(~pl.col("example_id").is_in(list(reviewed.settled)))
    return list(_built(rows, why=dict.fromkeys(rows["example_id"], ", ".join(reasons))))


def cases_of(pool: Pool, why: Mapping[str, str]) -> list[Case]:
    """The cases of the examples that `why` names, by id, whatever was thought of them; without those out of use."""
    view = pool.at(pool.version)
    examples = view.examples().filter(pl.col("example_id").is_in(list(why)))
    rationales = view.reviewed().standing(view.rationales())
    rows = examples.select(_EXAMPLE).join(
        rationales, on="example_id", how="left", maintain_order="left_right"
    )  # an example may have none
    return list(_built(rows, why=why))


def _built(rows: pl.DataFrame, *, why: Mapping[str, str]) -> Iterator[Case]:
    for part in rows.partition_by("example_id", maintain_order=True):
        first = part.row(0, named=True)
        about = {name: first[name] for name in _EXAMPLE} | {"parents": tuple(first["parents"])}
        worked = _worked(row for row in part.iter_rows(named=True) if row["rationale_id"] is not None)
        yield Case(**about, why=why[first["example_id"]], worked=tuple(worked))


def _worked(rows: Iterable[Mapping[str, Any]]) -> list[Worked]:
    found: dict[str, Worked] = {}
    columns = [name for name in frames.RATIONALES.columns if name in Worked.__dataclass_fields__]
    for row in rows:
        key = texts.normalised(row["text"])
        times = found[key].times + 1 if key in found else 1
        ids = (*(found[key].ids if key in found else ()), row["rationale_id"])
        kept = found[key] if key in found and (found[key].accepted or not row["accepted"]) else None
        values = {name: getattr(kept, name) if kept else row[name] for name in columns}
        found[key] = Worked(**values, times=times, ids=ids)
    return sorted(found.values(), key=lambda one: (one.accepted, -one.times, one.rationale_id))
