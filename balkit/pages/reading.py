"""What a page tells of a run, read once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from balkit import balance, frames, recipe
from balkit.errors import BalkitError, RunError
from balkit.pool import Overview, Pool
from balkit.recipe import Recipe
from balkit.runs import RunRecord, forecast_of, measures_of, record_of

#: Stages that sections show one by one at most.
MOST_STAGES = 8

_ROWS = {"stage": pl.Int64, "domain": pl.String} | dict.fromkeys(("real", "synthetic", "repeats", "examples"), pl.Int64)


@dataclass(frozen=True)
class Run:
    """A run of a pool with at least one snapshot.

    record    None where the run's folder is gone
    recipe    None where it is gone, or cannot be read
    coverage  `Pool.coverage` at the version that it began from
    calls     CALLS of the run
    """

    pool: Pool
    run_id: str
    record: RunRecord | None
    recipe: Recipe | None
    snapshots: pl.DataFrame
    coverage: pl.DataFrame
    calls: pl.DataFrame = field(repr=False)

    @classmethod
    def of(cls, pool: Pool, run_id: str, *, calls: pl.DataFrame) -> Run:
        """Reads what is short; what is long is read by the sections that show it."""
        record: RunRecord | None = None
        plan: Recipe | None = None
        with suppress(BalkitError):
            record = record_of(pool.path, run_id=run_id)
            plan = recipe.load(record.folder(pool.path) / "recipe.yaml")
        mine = pool.snapshots().filter(pl.col("run_id") == run_id).sort("stage")
        version = record.base_version if record else int(mine["version"][0]) - 1
        coverage = pool.at(version).coverage(domain_set=plan.domain_set if plan else None)
        return cls(pool, run_id, record, plan, mine, coverage, calls.filter(pl.col("run_id") == run_id))

    @property
    def name(self) -> str:
        """What the recipe calls it, and the beginning of its id."""
        return f"{self.record.name} {self.run_id[:8]}" if self.record else self.run_id[:8]

    @property
    def folder(self) -> Path:
        return self.pool.path / "runs" / self.run_id[:12]

    @property
    def version(self) -> int:
        """The version that it began from, as far as is known."""
        return self.record.base_version if self.record else int(self.snapshots["version"][0]) - 1

    @property
    def stages(self) -> list[int]:
        """Those that have a snapshot."""
        return [int(stage) for stage in self.snapshots["stage"]]

    @property
    def stages_shown(self) -> list[int]:
        """At most `MOST_STAGES` of them, evenly spaced, with the first and the last."""
        stages = self.stages
        places = {round(at * (len(stages) - 1) / (MOST_STAGES - 1)) for at in range(MOST_STAGES)}
        return stages if len(stages) <= MOST_STAGES else [stages[at] for at in sorted(places)]

    @property
    def stages_asked(self) -> int:
        """Those of the recipe."""
        return self.recipe.stages if self.recipe else len(self.stages)

    @cached_property
    def counts(self) -> dict[str, int]:
        """Real train examples by domain that could be chosen from, the largest domain first."""
        usable = self.coverage.select("domain", (pl.col("real") - pl.col("leaks")).clip(0).alias("real"))
        return dict(usable.sort("real", "domain", descending=[True, False]).iter_rows())

    @cached_property
    def rows(self) -> pl.DataFrame:
        """What each stage added: stage, domain, and rows and examples as `Overview.rows_by_stage` has them."""
        found = Overview(self.pool.path).rows_by_stage(self.run_id)
        return found.cast(_ROWS)  # type: ignore[arg-type]

    @cached_property
    def refused(self) -> pl.DataFrame:
        """What its checks refused: stage, domain, step, reason, rows."""
        schema = {"stage": pl.Int64, "domain": pl.String, "step": pl.String, "reason": pl.String, "rows": pl.Int64}
        return Overview(self.pool.path).refused_by_stage(self.run_id).cast(schema)  # type: ignore[arg-type]

    @cached_property
    def quotas(self) -> pl.DataFrame:
        """stage, domain, quota: as they were, else as they follow from the recipe; none without either."""
        kept = frames.MEASURES.of(measures_of(self.pool.path, run_id=self.run_id)).select("stage", "domain", "quota")
        if self.recipe is None or set(kept["stage"]) >= set(self.stages):
            return kept.drop_nulls()
        return self._scheduled().join(kept, on="stage", how="anti").vstack(kept.drop_nulls()).sort("stage", "domain")

    @cached_property
    def head(self) -> frozenset[str]:
        """The domains whose quotas of all stages real examples could meet; without quotas those of an even share."""
        if self.recipe is None and self.quotas.is_empty():
            even = sum(self.counts.values()) / max(len(self.counts), 1)
            return frozenset(domain for domain, rows in self.counts.items() if rows >= even)
        asked = self._scheduled() if self.recipe else self.quotas
        per_example = self.recipe.rationale.per_example if self.recipe else 1
        examples = asked.group_by("domain").agg((pl.col("quota") / per_example).ceil().sum())
        return frozenset(domain for domain, count in examples.iter_rows() if count <= self.counts.get(domain, 0))

    @property
    def domains(self) -> list[str]:
        """All that the pool had, or that got rows; the largest of the pool first."""
        return list(dict.fromkeys([*self.counts, *sorted(self.rows["domain"].unique())]))

    @property
    def deficits(self) -> list[dict[str, Any]]:
        """What stages could not fill, as they noted it."""
        return [
            {"stage": stage, **one}
            for stage, text in self.snapshots.select("stage", "deficits").iter_rows()
            for one in json.loads(text) or []
        ]

    @property
    def forecast(self) -> list[dict[str, Any]] | None:
        """What was forecast when it began; None where that is not known."""
        return forecast_of(self.pool.path, run_id=self.run_id)

    def after(self, stage: int) -> Mapping[str, Mapping[str, int]]:
        """Rows by domain after a stage: real, synthetic, repeats, and what was refused until then."""
        kept = (
            self.rows.filter(pl.col("stage") <= stage)
            .group_by("domain")
            .agg(pl.col("real", "synthetic", "repeats").sum())
        )
        gone = self.refused.filter(pl.col("stage") <= stage).group_by("domain").agg(refused=pl.col("rows").sum())
        both = kept.join(gone, on="domain", how="full", coalesce=True).fill_null(0)
        return {row["domain"]: row for row in both.to_dicts()}

    def _scheduled(self) -> pl.DataFrame:
        assert self.recipe is not None
        counts = dict(sorted(self.counts.items()))
        try:
            return balance.schedule(
                counts, budget_rows=self.recipe.budget_rows, stages=self.recipe.stages, policy=self.recipe.balance,
                measured=None,
            ).select("stage", "domain", "quota")  # fmt: skip
        except BalkitError:  # domains that changed since
            return pl.DataFrame(schema={"stage": pl.Int64, "domain": pl.String, "quota": pl.Int64})


def runs_known(pool: Pool) -> list[str]:
    """The ids of runs that have a snapshot, the newest last."""
    found = pool.snapshots().sort("version")["run_id"]
    return [str(name) for name in found.unique(maintain_order=True)]


def named(pool: Pool, run: str | None) -> str | None:
    """The id of a run by its beginning; the newest for None or `latest`, None where there is no run at all.

    Raises `RunError` for a name that fits none, or several.
    """
    known = runs_known(pool)
    if run is None or run == "latest":
        return known[-1] if known else None
    found = [name for name in known if run.strip() and name.startswith(run.strip())]
    if len(found) != 1:
        there = ", ".join(name[:12] for name in known) or "none"
        raise RunError(f"{len(found)} runs of {pool.path} have ids that begin with {run!r}; there are: {there}")
    return found[0]
