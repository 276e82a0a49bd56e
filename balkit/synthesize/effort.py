"""How many teacher calls missing rows need: for the plan, for the next round, and as a domain's sub-budget."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from balkit import frames
from balkit.recipe import Synthesis

#: Share of written examples that pass all checks, assumed before a pool has its own: the release of BalDistill kept
#: 1,244 of 1,567 written MATH rows (79 %), and 43 of those are duplicates.
EXPECTED_YIELD = 0.75
#: Rows that the yield of all domains counts for beside a domain's own, and the assumption beside that of all.
SHRINKAGE = 4
#: A domain is taken to keep at least so much: the next round asks for no more than 4 times what is lacking.
LEAST_YIELD = 0.25
#: Calls after which a domain of which no row has passed is given up; till one passes, a round makes no more calls.
BARREN_CALLS = 10


@dataclass(frozen=True)
class Calls:
    """Teacher calls: when all goes well, when it goes as expected, and at the very most."""

    low: int
    expected: int
    high: int


@dataclass(frozen=True)
class Yield:
    """Synthesis calls, the rows that they were to write or wrote, and those of them that passed everything."""

    calls: int = 0
    written: int = 0
    kept: int = 0

    def __add__(self, other: Yield) -> Yield:
        return Yield(self.calls + other.calls, self.written + other.written, self.kept + other.kept)

    @classmethod
    def sum(cls, parts: Iterable[Yield]) -> Yield:
        """All of them together."""
        return sum(parts, cls())

    def kept_fraction(self, every: Yield, *, expected: float = EXPECTED_YIELD) -> float:
        """The share of rows (LEAST_YIELD to 1) that a domain's next calls are taken to bring.

        Its own, shrunk by `SHRINKAGE` rows to that of all domains (`every`, with this one), and that to `expected`.
        """
        of_all = (every.kept + SHRINKAGE * expected) / (every.written + SHRINKAGE)
        own = (self.kept + SHRINKAGE * of_all) / (self.written + SHRINKAGE)
        return min(1.0, max(LEAST_YIELD, own))

    @property
    def is_barren(self) -> bool:
        """Whether so many calls brought nothing that no more should be paid."""
        return self.kept <= 0 and self.calls >= BARREN_CALLS


def yields(decisions: pl.DataFrame, calls: pl.DataFrame) -> pl.DataFrame:
    """What became of written rows, one row a domain, by DECISIONS and CALLS: of a run, of some stages, or of a pool.

    domain, calls (synthesis calls, cached ones included), paid (of them), written (rows), kept, waiting (passed the
    checks, beyond a quota), refused, kept_fraction (0-1, kept and waiting of written; null where nothing was written).
    With a `run_id`, as a pool's DECISIONS have, what several runs read out of the same cached replies counts once.
    """
    refused = decisions.filter(pl.col("step").is_in(["verify", "vote"]) & ~pl.col("kept"))
    runs = [name for name in ("run_id",) if name in decisions.columns]
    refusals = refused.group_by("domain", "example_id", "step", *runs).agg(times=pl.len())
    refusals = refusals.group_by("domain", "example_id", "step").agg(pl.col("times").max())
    settled = decisions.filter((pl.col("step") == "synthesis") & (pl.col("method") == "quota"))
    voted_out = refused.filter(pl.col("step") == "vote")
    good = (
        settled.group_by("domain", "example_id")
        .agg(pl.col("kept").any())
        .join(voted_out, on=["domain", "example_id"], how="anti")
        .group_by("domain")
        .agg(kept=pl.col("kept").sum(), waiting=(~pl.col("kept")).sum())
    )
    made = (
        calls.filter(pl.col("purpose") == "synthesis")
        .group_by("domain", "key")
        .agg(paid=(pl.col("status") != "cached").any())
        .group_by("domain")
        .agg(calls=pl.len(), paid=pl.col("paid").sum())
    )
    parts = [good, refusals.group_by("domain").agg(refused=pl.col("times").sum()), made]
    domains = pl.concat([part.select("domain") for part in parts]).unique().sort("domain")
    for part in parts:
        domains = domains.join(part, on="domain", how="left", maintain_order="left")
    numbers = ("calls", "paid", "kept", "waiting", "refused")
    counted = domains.with_columns(pl.col(name).fill_null(0).cast(pl.Int64) for name in numbers)
    counted = counted.with_columns(written=pl.col("kept") + pl.col("waiting") + pl.col("refused"))
    passed = (pl.col("kept") + pl.col("waiting")) / pl.col("written")
    counted = counted.with_columns(kept_fraction=pl.when(pl.col("written") > 0).then(passed))
    return counted.select("domain", "calls", "paid", "written", "kept", "waiting", "refused", "kept_fraction")


def no_yields() -> pl.DataFrame:
    """`yields` of nothing."""
    return yields(frames.DECISIONS.empty(), frames.CALLS.empty())


def by_domain(yielded: pl.DataFrame) -> dict[str, Yield]:
    """The rows of `yields` as they steer what is asked for next."""
    found = yielded.select("domain", "calls", "written", pl.col("kept") + pl.col("waiting"))
    return {domain: Yield(*numbers) for domain, *numbers in found.iter_rows()}


def examples_for(rows: int, *, per_example: int) -> int:
    """Examples that bring so many rows, where each gives `per_example`; the last one may give fewer."""
    return -(-rows // per_example)


def sub_budget(missing: int, *, section: Synthesis, made: int = 0) -> int:
    """Synthesis calls a domain may use for its missing rows: ceil(missing x calls_per_row / per_call), at least 1.

    No more than `max_calls_per_domain` leaves after those that the run has `made` before.
    """
    wanted = max(1, math.ceil(missing * section.calls_per_row / section.per_call)) if missing > 0 else 0
    cap = section.max_calls_per_domain
    return wanted if cap is None else max(0, min(wanted, cap - made))


def expected_calls(missing: int, *, section: Synthesis, kept_fraction: float = EXPECTED_YIELD) -> Calls:
    """Synthesis calls that write the missing rows of one domain; the calls that answer them are not counted here."""
    high = sub_budget(missing, section=section)
    low = math.ceil(missing / section.per_call)
    return Calls(min(low, high), min(math.ceil(missing / section.per_call / kept_fraction), high), high)
