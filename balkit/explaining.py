"""Why a real example was chosen, or not: by a run, or by a recipe before any run. No teacher is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from balkit import assemble, frames, measuring, recipe, selection
from balkit.assemble import Encode
from balkit.basis import Basis
from balkit.errors import PoolError, RunError
from balkit.pool import Pool
from balkit.recipe import Recipe
from balkit.runs import measures_of, record_of
from balkit.synthesize import examples_for
from balkit.vectors import Vectors, make_encoder
from balkit.within import Within

#: What `gain` is, by method.
_GAINS = {
    "k_center": "distance to the nearest chosen one before",
    "facility_location": "mean similarity added",
    "medoids": "mean similarity added",
    "ifd_coverage": "mean similarity added",
    "ifd": "IFD",
    "loss": "loss, nats a token",
    "uncertainty": "entropy, nats a token",
}


@dataclass(frozen=True)
class Placed:
    """Where an example stood in a stage: `rank` counts from 0, and `quota` is how many examples its domain was to give.

    `gain_is` says what `gain` is. Without a rank the `reason` says why it has none.
    """

    stage: int
    method: str
    rank: int | None
    quota: int
    kept: bool
    reason: str
    gain: float | None = None
    gain_is: str | None = None
    detail: str | None = None


@dataclass(frozen=True)
class Neighbour:
    """The nearest other row that was taken in the example's domain; `distance` is 1 - cosine, 0 to 2."""

    example_id: str
    prompt: str
    distance: float
    stage: int
    origin: str


@dataclass(frozen=True)
class Explanation:
    """Why an example is in or not.

    stands_for      real examples of its domain of which it is the nearest chosen row, itself included; 0 if not chosen
    represented_by  the nearest other row that was taken, or None where its domain has none
    never           why it could not be chosen at all, or None
    """

    example_id: str
    domain: str
    split: str
    prompt: str
    source: str
    chosen: bool
    stages: tuple[Placed, ...]
    stands_for: int
    represented_by: Neighbour | None
    never: str | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Choice:
    """What a run chose of a pool's real examples, or what a recipe would.

    taken      example_id, domain, prompt, origin, stage, copy: the rows of all stages
    decisions  DECISIONS of the choosing and of worked answers, with their stage
    measures   MEASURES of the last stage
    quotas     rows by stage and domain
    """

    pool: Pool
    basis: Basis
    source: str
    taken: pl.DataFrame
    decisions: pl.DataFrame
    measures: pl.DataFrame
    quotas: Mapping[int, Mapping[str, int]]
    encode: Encode

    @classmethod
    def planned(cls, pool: Pool, plan: Recipe) -> Choice:
        """What stage 1 of a recipe would take, if every worked answer were accepted. Later stages need a student."""
        basis, encode = Basis.of(pool, plan), Vectors(pool.path / "vectors", make_encoder(plan.vectors)).of
        quotas, within = basis.quotas(1), Within.of(basis.clusters, policy=plan.balance, stages=plan.stages)
        decisions = assemble.rank(
            quotas,
            real=basis.real,
            rows=frames.SNAPSHOT_ROWS.empty(),
            scores=frames.SCORES.empty(),
            stage=1,
            choosing=assemble.Choosing(plan.seed, plan.select, plan.rationale.per_example, encode, within),
        ).with_columns(stage=pl.lit(1, dtype=pl.Int64))
        kept = basis.real.join(decisions.filter("kept"), on="example_id", how="semi")
        taken = kept.select(
            "example_id", "domain", "prompt", "origin", stage=pl.lit(1, dtype=pl.Int64), copy=pl.lit(0, dtype=pl.Int64)
        )
        found = measuring.measures(taken, real=basis.real, quotas=quotas, stage=1, encode=encode)
        source = f"stage 1 of {plan.name}, as planned"
        return cls(pool, basis, source, taken, decisions, found, {1: quotas}, encode)

    @classmethod
    def of_run(cls, pool: Pool, run: str | None = None) -> Choice:
        """What a run chose in the stages that it has; the newest run, or the one whose id begins so.

        Raises `RunError` where there is no such run, or several.
        """
        run_id = _run_id(pool, run)
        record = record_of(pool.path, run_id=run_id)
        plan = recipe.load(record.folder(pool.path) / "recipe.yaml")
        basis = Basis.of(pool, plan, at=record.base_version)
        encode = Vectors(pool.path / "vectors", make_encoder(plan.vectors)).of
        stored = pool.snapshots().filter(pl.col("run_id") == run_id).sort("stage")
        taken = pool.snapshot(stored["snapshot_id"][-1]).rows
        kept = frames.MEASURES.of(measures_of(pool.path, run_id=run_id))
        quotas = {
            stage: dict(kept.filter(pl.col("stage") == stage).select("domain", "quota").iter_rows())
            or basis.quotas(stage)
            for stage in stored["stage"].to_list()
        }
        last = max(quotas)
        measured = kept.filter(pl.col("stage") == last)
        if measured.is_empty() or measured["radius"].null_count() == measured.height:
            measured = measuring.measures(taken, real=basis.real, quotas=quotas[last], stage=last, encode=encode)
        decisions = pool.decisions(run_id=run_id).filter(pl.col("step").is_in(["select", "rationale"]))
        source = f"run {run_id[:12]} ({plan.name})"
        return cls(pool, basis, source, taken, decisions, measured, quotas, encode)

    def by_domain(self) -> pl.DataFrame:
        """One row a domain: how many real examples it has, and how well what was taken stands for them.

        Columns: domain; quota (rows, all stages); candidates (real examples); chosen (of these); written; pool_share
        (0-1, chosen of candidates); radius and mean_similarity (`selection.spread`).
        """
        asked = pl.concat(
            [pl.DataFrame({"domain": list(rows), "quota": list(rows.values())}) for rows in self.quotas.values()]
        )
        summed = asked.group_by("domain").agg(pl.col("quota").sum())
        return (
            self.measures.drop("quota")
            .join(summed, on="domain", how="left")
            .sort("domain")
            .select(
                "domain",
                "quota",
                candidates="pool",
                chosen="real",
                written="synthetic",
                pool_share="share_of_pool",
                radius="radius",
                mean_similarity="mean_similarity",
            )
        )

    def explain(self, example: str) -> Explanation:
        """Why an example is in or not; its id or the beginning of it. Raises `PoolError` for none or several."""
        found = self._found(example)
        real = self.basis.real.filter(pl.col("domain") == found["domain"]).sort("example_id")
        rows = self._once.filter(pl.col("domain") == found["domain"])
        mine = self._once.filter(pl.col("example_id") == found["example_id"])
        never = None if found["example_id"] in set(real["example_id"]) or mine.height else self._never(found)
        stages = () if never or found["origin"] != "source" else tuple(self._placed(found, s) for s in self.quotas)
        return Explanation(
            example_id=found["example_id"],
            domain=found["domain"],
            split=found["split"],
            prompt=found["prompt"],
            source=self.source,
            chosen=bool(mine.height),
            stages=stages,
            stands_for=self._stands_for(found["example_id"], real, rows) if mine.height else 0,
            represented_by=self._nearest(found, rows.filter(pl.col("example_id") != found["example_id"])),
            never=never,
        )

    @cached_property
    def _once(self) -> pl.DataFrame:
        """The rows taken, an example once, in its first stage."""
        return self.taken.sort("stage", maintain_order=True).unique("example_id", keep="first").sort("example_id")

    def _found(self, example: str) -> dict[str, Any]:
        every = self.pool.examples(domain_set=self.basis.recipe.domain_set)
        found = every.filter(pl.col("example_id").str.starts_with(example.lower()))
        if found.is_empty():
            raise PoolError(
                f"{self.pool.path}: no example in use has an id that begins with {example!r}; "
                'find one with: balkit sql POOL "SELECT example_id, prompt FROM examples"'
            )
        if found.height > 1:
            some = ", ".join(found["example_id"].str.head(len(example) + 6).head(5))
            raise PoolError(f"{found.height} examples have ids that begin with {example!r}: {some}; give more of it")
        return found.row(0, named=True)

    def _never(self, found: Mapping[str, Any]) -> str:
        """Why an example is no candidate."""
        if found["split"] != "train":
            return f"it is of the {found['split']} split, and only train is chosen from"
        if found["origin"] != "source":
            return "a teacher wrote it, and only real examples are chosen; none of it was taken"
        if found["example_id"] in set(self.pool.leaking()):
            return "its prompt stands in the eval split too"
        return "it came into the pool after the run began; `balkit run --new` would see it"

    def _placed(self, found: Mapping[str, Any], stage: int) -> Placed:
        """What a stage's choice says of the example."""
        domain = found["domain"]
        quota = examples_for(self.quotas[stage].get(domain, 0), per_example=self.basis.recipe.rationale.per_example)
        here = self.decisions.filter(pl.col("stage") == stage)
        mine = here.filter((pl.col("example_id") == found["example_id"]) & (pl.col("step") == "select"))
        if mine.height:
            said = mine.row(0, named=True)
            return Placed(
                stage=stage,
                quota=quota,
                gain_is=None if said["gain"] is None else _GAINS.get(said["method"]),
                **{name: said[name] for name in ("method", "rank", "kept", "reason", "gain", "detail")},
            )
        methods = here.filter((pl.col("step") == "select") & (pl.col("domain") == domain))["method"].to_list()
        method = methods[0] if methods else ""
        return Placed(stage, method, None, quota, kept=False, reason=self._unranked(found, stage, quota))

    def _unranked(self, found: Mapping[str, Any], stage: int, quota: int) -> str:
        """Why a stage's decisions do not know of an example."""
        before = self._once.filter((pl.col("example_id") == found["example_id"]) & (pl.col("stage") < stage))
        if before.height:
            return f"taken in stage {before['stage'][0]} already"
        refused = self.decisions.filter(
            (pl.col("example_id") == found["example_id"]) & (pl.col("step") == "rationale") & (pl.col("stage") < stage)
        )
        if refused.height:
            return f"its worked answer was refused in stage {refused['stage'][0]}: {refused['reason'][0]}"
        return f"below quota: ranked after the first {3 * quota + 100}, which alone are kept"

    def _nearest(self, found: Mapping[str, Any], rows: pl.DataFrame) -> Neighbour | None:
        if rows.is_empty():
            return None
        alike = self.encode(rows["prompt"].to_list()) @ self.encode([found["prompt"]])[0]
        best = int(np.argmax(alike))
        row = rows.row(best, named=True)
        distance = round(max(0.0, 1 - float(alike[best])), 6)
        return Neighbour(row["example_id"], row["prompt"], distance, row["stage"], row["origin"])

    def _stands_for(self, example_id: str, real: pl.DataFrame, rows: pl.DataFrame) -> int:
        nearest = selection.nearest(self.encode(real["prompt"].to_list()), among=self.encode(rows["prompt"].to_list()))
        return int((nearest == rows["example_id"].to_list().index(example_id)).sum())


def _run_id(pool: Pool, run: str | None) -> str:
    known = pool.snapshots().sort("version")["run_id"].unique(maintain_order=True).to_list()
    if not known:
        raise RunError(f"{pool.path}: no run has chosen anything yet; --recipe shows what one would choose")
    if run is None or run == "latest":
        return str(known[-1])
    found = [name for name in known if name.startswith(run)]
    if len(found) != 1:
        there = ", ".join(name[:12] for name in known)
        raise RunError(f"{len(found)} runs of {pool.path} have ids that begin with {run!r}; there are: {there}")
    return str(found[0])
