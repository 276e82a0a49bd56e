"""What a recipe would do on a pool: quotas, deficits, calls, tokens and money, before anything is spent.

The expected figures assume that nothing is rejected; the highest ones that every try and every vote that the
recipe allows is used and every reply is as long as allowed. What a run reserves is never above the highest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from balkit import balance, synthesize, tokens, verify
from balkit.errors import PriceUnknown
from balkit.pool import Pool
from balkit.recipe import Recipe
from balkit.teacher.prices import Rate, price_of

#: Tokens of a request beyond the example itself: the template, the label set, the role markers.
REQUEST_TOKENS = 150


@dataclass(frozen=True)
class Plan:
    """A plan. `rows` has one row a stage and domain:

    stage, domain, quota, available (real examples not yet drawn), take, make, repeat, short, tail,
    calls, tokens, usd (expected) and max_calls, max_tokens, max_usd. Stage 0 is the dev split's rationales.
    `usd` is null where no price is known; `notes` are sentences for a person.
    """

    rows: pl.DataFrame
    budget_rows: int
    stages: int
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The plan for machines, with totals."""
        totals = self.rows.select(
            pl.col(
                "take", "make", "repeat", "short", "calls", "tokens", "usd", "max_calls", "max_tokens", "max_usd"
            ).sum()
        )
        return {
            "budget_rows": self.budget_rows,
            "stages": self.stages,
            "total": totals.to_dicts()[0],
            "rows": self.rows.to_dicts(),
            "notes": list(self.notes),
        }


def plan(pool: Pool, recipe: Recipe) -> Plan:
    """The plan of a recipe at the pool's newest version. Spends and stores nothing.

    Raises `BudgetError` for a budget below one row a domain or an empty pool.
    """
    return _Planner(Basis(pool.examples(origin="source"), recipe), recipe).plan()


@dataclass(frozen=True)
class Basis:
    """What a recipe sees of a pool's version: `examples` is EXAMPLES of all splits, from the source alone."""

    examples: pl.DataFrame
    recipe: Recipe

    @cached_property
    def evaluation(self) -> pl.DataFrame:
        """EXAMPLES of the eval split."""
        return self.examples.filter(pl.col("split") == "eval").sort("example_id")

    @cached_property
    def dev(self) -> pl.DataFrame:
        """EXAMPLES of the dev split whose prompt does not stand in eval."""
        return self._apart(self.examples.filter(pl.col("split") == "dev"))

    @cached_property
    def real(self) -> pl.DataFrame:
        """EXAMPLES from the source in the train split whose prompt does not stand in eval."""
        return self._apart(self.examples.filter((pl.col("split") == "train") & (pl.col("origin") == "source")))

    @cached_property
    def counts(self) -> dict[str, int]:
        """Real examples of every domain of the pool, those without any included."""
        counts = dict.fromkeys(sorted(self.examples["domain"].unique()), 0)
        return counts | dict(self.real.group_by("domain").len().iter_rows())

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The label set: the recipe's, or the domains' names; empty where answers are no labels."""
        return self.recipe.answers.labels or (tuple(self.counts) if self.recipe.answers.kind == "label" else ())

    @cached_property
    def schedule(self) -> pl.DataFrame:
        """`stage, domain, quota` of all stages."""
        recipe = self.recipe
        return balance.schedule(
            self.counts, budget_rows=recipe.budget_rows, stages=recipe.stages, policy=recipe.balance
        )

    @cached_property
    def head(self) -> frozenset[str]:
        """Domains whose real examples could meet their quotas of all stages."""
        asked = self.schedule.group_by("domain").agg(pl.col("quota").sum())
        return frozenset(domain for domain, rows in asked.iter_rows() if rows <= self.counts[domain])

    def quotas(self, stage: int) -> dict[str, int]:
        """Rows per domain in a stage."""
        return dict(self.schedule.filter(pl.col("stage") == stage).select("domain", "quota").iter_rows())

    def share(self, stage: int) -> balance.Shares:
        """The policy's shares in a stage."""
        recipe = self.recipe
        return balance.shares(self.counts, policy=recipe.balance, stage=stage, stages=recipe.stages)

    def _apart(self, examples: pl.DataFrame) -> pl.DataFrame:
        leaks = verify.leaks(examples["prompt"].to_list(), evaluation=self.evaluation["prompt"].to_list())
        return examples.filter(~pl.Series(leaks, dtype=pl.Boolean)).sort("example_id")


@dataclass(frozen=True)
class _Planner:
    basis: Basis
    recipe: Recipe

    def plan(self) -> Plan:
        unused = dict(self.basis.counts)
        parts = [self.dev()]
        seen: set[str] = set()
        for stage in range(1, self.recipe.stages + 1):
            rows = self.stage(stage, unused, seen)
            parts.append(rows.with_columns(available=pl.col("domain").replace_strict(unused, return_dtype=pl.Int64)))
            for domain, take, make in rows.select("domain", "take", "make").iter_rows():
                unused[domain] -= take
                seen |= {domain} if take or make else set()
        filled = pl.concat(parts, how="diagonal_relaxed")
        return Plan(self.priced(filled), self.recipe.budget_rows, self.recipe.stages, self.notes(filled))

    def stage(self, stage: int, unused: Mapping[str, int], seen: set[str]) -> pl.DataFrame:
        """QUOTAS of a stage; what a domain lacks is given to others that have real rows left."""
        recipe, quotas = self.recipe, self.basis.quotas(stage)
        filled = balance.fill_quotas(quotas, stage=stage, unused=unused, repeatable=seen, fill=recipe.fill)
        lacking = int(filled["short"].sum())
        if not lacking:
            return filled
        room = {
            row["domain"]: lacking if "repeat" in recipe.fill and row["take"] else unused[row["domain"]] - row["take"]
            for row in filled.iter_rows(named=True)
            if not row["short"]
        }
        given = balance.redistribute(lacking, share=self.basis.share(stage), room=room)
        more = {domain: rows + given.get(domain, 0) for domain, rows in quotas.items()}
        filled = balance.fill_quotas(more, stage=stage, unused=unused, repeatable=seen, fill=recipe.fill)
        left = lacking - sum(given.values())
        return filled if left else filled.with_columns(short=pl.lit(0, dtype=pl.Int64))

    def dev(self) -> pl.DataFrame:
        rows = self.basis.dev.group_by("domain").len().sort("domain")
        zero = pl.lit(0, dtype=pl.Int64)
        return rows.select(
            stage=zero, domain="domain", quota=zero, take=pl.col("len").cast(pl.Int64), make=zero, repeat=zero,
            short=zero, tail=pl.lit(False), available=pl.col("len").cast(pl.Int64),
        )  # fmt: skip

    def priced(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows with calls, tokens and dollars, expected and at most."""
        order = ["stage", "domain", "quota", "available", "take", "make", "repeat", "short", "tail"]
        costs = [self.cost(row) for row in rows.iter_rows(named=True)]
        schema = {
            "calls": pl.Int64, "tokens": pl.Int64, "usd": pl.Float64,
            "max_calls": pl.Int64, "max_tokens": pl.Int64, "max_usd": pl.Float64,
        }  # fmt: skip
        return rows.select(order).hstack(pl.DataFrame(costs, schema=schema, orient="row"))

    def cost(self, row: Mapping[str, Any]) -> dict[str, Any]:
        section, rationale = self.recipe.synthesis, self.recipe.rationale
        prompt = self.prompt_tokens.get(row["domain"], self.mean_prompt_tokens)
        writing = synthesize.expected_calls(row["make"], section=section)
        shown = section.demonstrations * prompt + REQUEST_TOKENS
        answers = row["take"] + row["make"] * (section.votes or 1)
        most_answers = row["take"] * rationale.tries + writing.high * section.per_call * (
            section.votes or rationale.tries
        )
        read = writing.expected * shown + answers * (prompt + REQUEST_TOKENS)
        written = row["make"] * 2 * prompt + answers * self.reply_tokens
        # At most: every byte of a request a token, every reply as long as max_tokens allows.
        most_read = tokens.BYTES_PER_TOKEN * (writing.high * 3 * shown + most_answers * 2 * (prompt + REQUEST_TOKENS))
        most_written = writing.high * section.max_tokens + most_answers * rationale.max_tokens
        return {
            "calls": writing.expected + answers,
            "tokens": read + written,
            "usd": self.usd(read, written),
            "max_calls": writing.high + most_answers,
            "max_tokens": most_read + most_written,
            "max_usd": self.usd(most_read, most_written),
        }

    def usd(self, read: int, written: int) -> float | None:
        return None if self.rate is None else self.rate.cost_microusd(read, written) / 1e6

    @cached_property
    def rate(self) -> Rate | None:
        try:
            return price_of(self.recipe.teacher.model, self.recipe.teacher.price)
        except PriceUnknown:
            return None

    @cached_property
    def prompt_tokens(self) -> dict[str, int]:
        """Mean tokens of a domain's prompts, by the estimate of `tokens`."""
        count = tokens.estimate().count
        sized = self.basis.real.select("domain", size=pl.col("prompt").map_elements(count, pl.Int64))
        return dict(sized.group_by("domain").agg(pl.col("size").mean().ceil().cast(pl.Int64)).iter_rows())

    @cached_property
    def mean_prompt_tokens(self) -> int:
        sizes = self.prompt_tokens.values()
        return sum(sizes) // len(sizes) if sizes else REQUEST_TOKENS

    @cached_property
    def reply_tokens(self) -> int:
        """Expected tokens of a worked answer: half of what the recipe allows."""
        return self.recipe.rationale.max_tokens // 2

    def notes(self, rows: pl.DataFrame) -> tuple[str, ...]:
        notes = []
        if self.rate is None:
            notes.append(f"no price is known for {self.recipe.teacher.model!r}: set teacher.price in the recipe")
        short = int(rows["short"].sum())
        if short:
            notes.append(f"{short} rows cannot be had by fill: {', '.join(self.recipe.fill)}; add synthetic or repeat")
        empty = [domain for domain, n in self.basis.counts.items() if not n]
        if empty:
            notes.append(
                f"no real training example: {', '.join(empty)}; examples there are written without any to go by"
            )
        taken = int(rows.filter(pl.col("stage") > 0)["take"].sum())
        share = 100 * taken / max(self.basis.real.height, 1)
        notes.append(f"{taken:,} of {self.basis.real.height:,} real examples are taken ({share:.0f} %)")
        if share > 30 and self.recipe.select.then != "random":
            notes.append("above about 30 % selection has little left to choose: random is hard to beat there")
        return tuple(notes)
