"""A domain's quota shared out over the clusters inside it: tails that have no label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import polars as pl

from balkit import balance, frames
from balkit.recipe import Balance

#: Ranks so many of some candidates, as DECISIONS.
Choose = Callable[[pl.DataFrame, int], pl.DataFrame]


@dataclass(frozen=True)
class Within:
    """Clusters of real examples, and the policy that shares a domain's quota out over its own.

    cluster  by example id: all real examples of the run's base version
    """

    cluster: Mapping[str, str]
    policy: Balance
    stages: int

    @classmethod
    def of(cls, clusters: Mapping[str, str] | None, *, policy: Balance, stages: int) -> Within | None:
        """None where there are no clusters to share out over."""
        return None if clusters is None else cls(clusters, policy, stages)

    def ranked(
        self, candidates: pl.DataFrame, *, taken: pl.DataFrame, quota: int, stage: int, choose: Choose
    ) -> pl.DataFrame:
        """DECISIONS on a domain's candidates: every cluster ranked by itself, then put together by what each is owed.

        candidates, taken  example_id: real examples of one domain that are left, and what was drawn before
        quota              examples, no more than there are candidates

        At every length of the order each cluster has about its share of the quota; `detail` names the cluster.
        """
        clusters = self._of(candidates)
        quotas = self.quotas(candidates, taken=taken, quota=quota, stage=stage)
        parts = []
        for name in sorted(set(clusters)):
            here = candidates.filter(pl.Series([one == name for one in clusters], dtype=pl.Boolean))
            owed = quotas.get(name, 0)
            found = choose(here, owed)
            at = (pl.col("rank") + 0.5) / owed if owed else pl.col("rank") + float(candidates.height)
            told = pl.concat_str(pl.lit(f"cluster {name}"), pl.col("detail"), separator="; ", ignore_nulls=True)
            parts.append(found.with_columns(at=at.cast(pl.Float64), cluster=pl.lit(name), detail=told))
        merged = pl.concat(parts).sort("at", "cluster", "rank", "example_id", nulls_last=True)
        place = pl.int_range(pl.len(), dtype=pl.Int64)
        merged = merged.with_columns(rank=pl.when(pl.col("rank").is_not_null()).then(place))
        kept = pl.col("rank").is_not_null() & (pl.col("rank") < quota)
        plain = pl.col("reason").is_in(["chosen", "below quota"])
        reason = pl.when(plain & kept).then(pl.lit("chosen")).when(plain).then(pl.lit("below quota"))
        return frames.check(merged.with_columns(kept=kept, reason=reason.otherwise("reason")), frames.DECISIONS)

    def quotas(self, candidates: pl.DataFrame, *, taken: pl.DataFrame, quota: int, stage: int) -> dict[str, int]:
        """Examples by cluster: what it should have by the end of the stage, less what was drawn before.

        What a cluster cannot give goes to the others by the same shares. Sums to the quota, or to all candidates.
        """
        real = taken.filter(pl.col("example_id").is_in(list(self.cluster)))
        left, before = Counter(self._of(candidates)), Counter(self._of(real))
        counts = {name: left[name] + before[name] for name in sorted({*left, *before})}
        share = balance.shares(counts, policy=self._by_size(), stage=stage, stages=self.stages)
        wanted = {name: sum(before.values()) * share[name] + quota * share[name] - before[name] for name in counts}
        given = {
            name: min(rows, left[name]) for name, rows in balance.apportion(wanted, total=quota).items() if left[name]
        }
        room = {name: left[name] - given[name] for name in given}
        more = balance.redistribute(quota - sum(given.values()), share=share, room=room)
        return {name: given[name] + more.get(name, 0) for name in given}

    def _by_size(self) -> Balance:
        """The policy; `weights` and `feedback`, which speak of domains, are `adaptive` inside of them."""
        named = self.policy.policy in ("weights", "feedback")
        return self.policy.model_copy(update={"policy": "adaptive"}) if named else self.policy

    def _of(self, examples: pl.DataFrame) -> list[str]:
        return [self.cluster[example] for example in examples["example_id"]]
