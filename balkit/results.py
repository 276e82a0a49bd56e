"""What came of a run, and how it is told to machines."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from balkit import frames, synthesize
from balkit.teacher import Spent


@dataclass(frozen=True)
class StageResult:
    """One finished stage. `summary` holds fractions 0-1, or None without training or an eval split."""

    stage: int
    snapshot_id: str
    digest: str
    rows: int  # of the whole snapshot
    quotas: dict[str, int]
    deficits: list[dict[str, Any]]
    checkpoint: Path | None
    summary: dict[str, Any] | None


@dataclass(frozen=True)
class RunResult:
    """A finished run. `head` are the domains whose whole quota their real examples could meet.

    `measures` are MEASURES of every stage and domain: what the rows stand for. `yields` say what became of written
    rows, one row a domain (`synthesize.yields`).
    """

    run_id: str
    name: str
    base_version: int
    stages: tuple[StageResult, ...]
    head: frozenset[str]
    spent: Spent
    measures: pl.DataFrame = field(default_factory=frames.MEASURES.empty, repr=False)
    yields: pl.DataFrame = field(default_factory=synthesize.no_yields, repr=False)
    refused: str = ""  # the commonest reasons for which rows were refused, where the last snapshot is short

    @property
    def snapshot_id(self) -> str:
        """The last, cumulative snapshot."""
        return self.stages[-1].snapshot_id


def report_of(result: RunResult) -> dict[str, Any]:
    """The result for machines: what runs/<run>/report.json holds."""
    return {
        "run_id": result.run_id,
        "name": result.name,
        "base_version": result.base_version,
        "head": sorted(result.head),
        "calls": result.spent.calls,
        "tokens": result.spent.tokens,
        "cost_usd": result.spent.cost_microusd / 1e6,
        "measures": result.measures.to_dicts(),
        "yields": result.yields.to_dicts(),
        "stages": [
            {
                "stage": done.stage,
                "snapshot_id": done.snapshot_id,
                "digest": done.digest,
                "rows": done.rows,
                "quotas": done.quotas,
                "deficits": done.deficits,
                "summary": done.summary,
            }
            for done in result.stages
        ],
    }
