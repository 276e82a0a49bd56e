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
    since           what became of it after the choice: another domain or split, retired; domain and split are of before
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
    since: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Seen:
    """An example as a choice saw it.

    there    False where it came into the pool later
    retired  why it was out of use already, or None
    """

    example_id: str
    prompt: str
    domain: str
    split: str
    origin: str
    there: bool
    retired: str | None
    since: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """What a run chose of a pool's real examples, or what a recipe would.

    taken      example_id, domain, prompt, origin, stage, copy: the rows of all stages
    decisions  DECISIONS of the choosing and of worked answers, with their stage
    measures   MEASURES of the last stage
    quotas     rows by stage and domain
    version    of the pool, that was chosen from
    """

    pool: Pool
    basis: Basis
    version: int
    source: str
    taken: pl.DataFrame
    decisions: pl.DataFrame
    measures: pl.DataFrame
    quotas: Mapping[int, Mapping[str, int]]
    encode: Encode

    @classmethod
    def planned(cls, pool: Pool, plan: Recipe, *, example: str | None = None) -> Choice:
        """What stage 1 of a recipe would take, if every worked answer were accepted. Later stages need a student.

        With an `example` (its id or the beginning of it) of its domain alone. Raises `PoolError` for none or several.
        """
        version = pool.version
        basis, encode = Basis.of(pool, plan, at=version), Vectors(pool.path / "vectors", make_encoder(plan.vectors)).of
        quotas, within = basis.quotas(1), Within.of(basis.clusters, policy=plan.balance, stages=plan.stages)
        real = basis.real
        if example is not None:
            domain = newest(pool, example, domain_set=plan.domain_set)["domain"]
            real, quotas = real.filter(pl.col("domain") == domain), {domain: quotas.get(domain, 0)}
        decisions = assemble.rank(
            quotas,
            real=real,
            rows=frames.SNAPSHOT_ROWS.empty(),
            scores=frames.SCORES.empty(),
            stage=1,
            choosing=assemble.Choosing(plan.seed, plan.select, plan.rationale.per_example, encode, within),
        ).with_columns(stage=pl.lit(1, dtype=pl.Int64))
        kept = real.join(decisions.filter("kept"), on="example_id", how="semi")
        taken = kept.select(
            "example_id", "domain", "prompt", "origin", stage=pl.lit(1, dtype=pl.Int64), copy=pl.lit(0, dtype=pl.Int64)
        )
        found = measuring.measures(taken, real=real, quotas=quotas, stage=1, encode=encode)
        source = f"stage 1 of {plan.name}, as planned"
        return cls(pool, basis, version, source, taken, decisions, found, {1: quotas}, encode)

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
        return cls(pool, basis, record.base_version, source, taken, decisions, measured, quotas, encode)

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
        seen = self._seen(example)
        real = self.basis.real.filter(pl.col("domain") == seen.domain).sort("example_id")
        rows = self._once.filter(pl.col("domain") == seen.domain)
        mine = rows.filter(pl.col("example_id") == seen.example_id)
        never = None if seen.example_id in set(real["example_id"]) or mine.height else self._never(seen)
        return Explanation(
            example_id=seen.example_id,
            domain=seen.domain,
            split=seen.split,
            prompt=seen.prompt,
            source=self.source,
            chosen=bool(mine.height),
            stages=() if never else self._stages(seen, taken=mine["stage"].min()),
            stands_for=self._stands_for(seen.example_id, real, rows) if mine.height else 0,
            represented_by=self._nearest(seen, rows.filter(pl.col("example_id") != seen.example_id)),
            never=never,
            since=seen.since,
        )

    @cached_property
    def _once(self) -> pl.DataFrame:
        """The rows taken, an example once, in its first stage."""
        return self.taken.sort("stage", maintain_order=True).unique("example_id", keep="first").sort("example_id")

    def _seen(self, example: str) -> _Seen:
        now = newest(self.pool, example, domain_set=self.basis.recipe.domain_set)
        before = _states(self.pool, now["example_id"], domain_set=self.basis.recipe.domain_set, version=self.version)
        mine = self._once.filter(pl.col("example_id") == now["example_id"]).with_columns(retired=False)
        then = next(pl.concat([mine, before], how="diagonal").iter_rows(named=True), now)
        reason = self._retired(now["example_id"]) if now["retired"] else None
        there, gone = bool(before.height), then is not now and then["retired"]
        since = [
            f"labelled {now['domain']}" if now["domain"] != then["domain"] else None,
            f"moved to the {now['split']} split" if now["split"] != then["split"] else None,
            f"retired ({reason})" if reason is not None and not gone else None,
        ]
        return _Seen(
            **{name: then[name] for name in ("example_id", "prompt", "domain", "split", "origin")},
            there=there,
            retired=reason if gone else None,
            since=tuple(said for said in since if said),
        )

    def _retired(self, example_id: str) -> str:
        """Why an example is out of use."""
        found = self.pool.sql("SELECT reason FROM retirements WHERE example_id = ? ORDER BY added_in", [example_id])
        return str(found["reason"][0])

    def _never(self, seen: _Seen) -> str:
        """Why an example is no candidate."""
        if seen.retired is not None:
            return f"it was out of use already: retired ({seen.retired})"
        if seen.origin != "source":
            return "a teacher wrote it, and only real examples are chosen; none of it was taken"
        if not seen.there:
            return "it came into the pool after the run began; `balkit run --new` would see it"
        if seen.split != "train":
            return f"it is of the {seen.split} split, and only train is chosen from"
        return "its prompt stands in the eval split too"

    def _stages(self, seen: _Seen, *, taken: Any) -> tuple[Placed, ...]:
        """What each stage says of an example, up to the one that took it."""
        if seen.origin != "source":
            return (Placed(taken, "", None, self._quota(seen, taken), kept=True, reason="written by the teacher"),)
        return tuple(self._placed(seen, stage) for stage in self.quotas if taken is None or stage <= taken)

    def _quota(self, seen: _Seen, stage: int) -> int:
        """Examples that its domain was to give."""
        return examples_for(self.quotas[stage].get(seen.domain, 0), per_example=self.basis.recipe.rationale.per_example)

    def _placed(self, seen: _Seen, stage: int) -> Placed:
        """What a stage's choice says of the example."""
        quota = self._quota(seen, stage)
        here = self.decisions.filter(pl.col("stage") == stage)
        mine = here.filter((pl.col("example_id") == seen.example_id) & (pl.col("step") == "select"))
        if mine.height:
            said = mine.row(0, named=True)
            reason = said["reason"]
            if reason.endswith("not among the candidates"):
                reason += f" (select.candidates: {self.basis.recipe.select.candidates} times the quota were scored)"
            return Placed(
                stage=stage,
                quota=quota,
                reason=reason,
                gain_is=None if said["gain"] is None else _GAINS.get(said["method"]),
                **{name: said[name] for name in ("method", "rank", "kept", "gain", "detail")},
            )
        methods = here.filter((pl.col("step") == "select") & (pl.col("domain") == seen.domain))["method"].to_list()
        method = methods[0] if methods else ""
        return Placed(stage, method, None, quota, kept=False, reason=self._unranked(seen, stage, quota))

    def _unranked(self, seen: _Seen, stage: int, quota: int) -> str:
        """Why a stage's decisions do not know of an example that no stage before took."""
        refused = self.decisions.filter(
            (pl.col("example_id") == seen.example_id) & (pl.col("step") == "rationale") & (pl.col("stage") < stage)
        )
        if refused.height:
            return f"its worked answer was refused in stage {refused['stage'][0]}: {refused['reason'][0]}"
        return f"below quota: ranked after the first {3 * quota + 100}, which alone are kept"

    def _nearest(self, seen: _Seen, rows: pl.DataFrame) -> Neighbour | None:
        if rows.is_empty():
            return None
        alike = self.encode(rows["prompt"].to_list()) @ self.encode([seen.prompt])[0]
        best = int(np.argmax(alike))
        row = rows.row(best, named=True)
        distance = round(max(0.0, 1 - float(alike[best])), 6)
        return Neighbour(row["example_id"], row["prompt"], distance, row["stage"], row["origin"])

    def _stands_for(self, example_id: str, real: pl.DataFrame, rows: pl.DataFrame) -> int:
        nearest = selection.nearest(self.encode(real["prompt"].to_list()), among=self.encode(rows["prompt"].to_list()))
        return int((nearest == rows["example_id"].to_list().index(example_id)).sum())


def _states(pool: Pool, begins: str, *, domain_set: str | None, version: int) -> pl.DataFrame:
    """Examples whose ids begin so, as they were at a version, retired ones too."""
    return pool.sql(
        "SELECT example_id, prompt, domain, split, origin, retired FROM labelled_in_at($version, $domain_set) "
        "WHERE starts_with(example_id, $begins) ORDER BY example_id",
        {"version": version, "domain_set": domain_set, "begins": begins},
    )


def newest(pool: Pool, example: str, *, domain_set: str | None = None) -> dict[str, Any]:
    """The one example whose id begins so, as it is now. Raises `PoolError` where none or several do."""
    begins = example.strip().lower()
    found = _states(pool, begins, domain_set=domain_set, version=pool.version)
    if found.is_empty():
        raise PoolError(
            f"{pool.path}: no example has an id that begins with {begins!r}; "
            'find one with: balkit sql POOL "SELECT example_id, prompt FROM examples"'
        )
    if found.height > 1:
        shown = [
            f"\n  {row['example_id'][: len(begins) + 8]} ({row['domain']}) {row['prompt'][:60]!r}"
            for row in found.head(5).iter_rows(named=True)
        ]
        more = "\n  ..." if found.height > len(shown) else ""
        raise PoolError(
            f"{found.height} examples have ids that begin with {begins!r}; give more of it:{''.join(shown)}{more}"
        )
    return found.row(0, named=True)


def _run_id(pool: Pool, run: str | None) -> str:
    if run is not None and not run.strip():
        raise RunError("no run has an empty id; give the beginning of one, or latest")
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
