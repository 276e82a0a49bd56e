"""Which student answered what: of every stage of a run, of other runs, and before training."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property

import polars as pl

from balkit import student
from balkit.pages.reading import Run
from balkit.pool import Overview, Pool
from balkit.student import Interval


@dataclass(frozen=True)
class Answers:
    """One student's answers to eval. `graded` are EVALUATIONS without texts, `trained` the rows of its snapshot."""

    name: str
    checkpoint: str
    settings: str
    graded: pl.DataFrame
    head: frozenset[str]
    trained: int = 0

    @cached_property
    def overall(self) -> dict[str, Interval]:
        """Macro, micro, head and tail accuracy with 95 % intervals."""
        return student.intervals(self.graded, head=self.head)

    @cached_property
    def by_domain(self) -> dict[str, tuple[Interval, int]]:
        """A domain's accuracy with its 95 % interval, and its rows."""
        counted = self.graded.group_by("domain").agg(pl.col("correct").sum(), rows=pl.len())
        return {name: (student.wilson(right, rows), rows) for name, right, rows in counted.iter_rows()}


class Students:
    """Finds the students of a pool's runs among what was evaluated."""

    def __init__(self, pool: Pool) -> None:
        self._overview, self._folder = Overview(pool.path), pool.path / "checkpoints"
        self._known = self._overview.evaluated().filter(~pl.col("settings").str.contains("temperature="))

    def stages(self, run: Run) -> list[Answers]:
        """The students of a run's stages, as far as they answered eval."""
        mine = run.snapshots.filter(pl.col("stage").is_in(run.stages_shown))
        rows = mine.select("stage", "rows").iter_rows()
        found = [self.of(run.run_id, at, name=f"stage {at}", head=run.head, trained=many) for at, many in rows]
        return [one for one in found if one is not None]

    def untrained(self, run: Run, *, like: Answers) -> Answers | None:
        """The run's student before training, asked as `like` was."""
        for stage in run.stages:
            for body in self._manifests(run.run_id, stage):
                base = body.get("base_digest")
                mine = self._known.filter((pl.col("checkpoint") == base) & (pl.col("settings") == like.settings))
                if mine.height:
                    return self._read("before training", str(base), like.settings, head=run.head)
        return None

    def of(self, run_id: str, stage: int, *, name: str, head: frozenset[str], trained: int = 0) -> Answers | None:
        """The student of a run's stage, or None where it did not answer; `head` are the domains that count as such."""
        own = self._known.filter((pl.col("run_id") == run_id) & (pl.col("stage") == stage))
        if own.is_empty():
            digests = [str(body.get("digest")) for body in self._manifests(run_id, stage)]
            own = self._known.filter(pl.col("checkpoint").is_in(digests))
        if own.is_empty():
            return None
        best = own.sort("rows", "settings", descending=[True, False]).row(0, named=True)
        found = self._read(name, best["checkpoint"], best["settings"], head=head)
        return replace(found, trained=trained)

    def _read(self, name: str, checkpoint: str, settings: str, *, head: frozenset[str]) -> Answers:
        graded = self._overview.graded(checkpoint=checkpoint, settings=settings)
        return Answers(name, checkpoint, settings, graded, head)

    def _manifests(self, run_id: str, stage: int) -> list[dict[str, object]]:
        found = []
        for file in sorted(self._folder.glob(f"{run_id[:12]}-s{stage}-*/manifest.json")):
            try:
                found.append(json.loads(file.read_text(encoding="utf-8")))
            except (OSError, ValueError):  # a student that cannot be read has no part in a page
                continue
        return found
