"""What a recipe would do on a pool: quotas, deficits, calls, tokens and money, before anything is spent.

The expected figures assume that no worked answer is rejected, and of the written examples as many as is usual
(`synthesize.expected_calls`). The highest ones assume every try and every vote that the recipe allows, and every reply
as long as allowed. A row that is rejected for good is replaced by another on top of that: only caps bound a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from balkit import balance, synthesize, tokens, verify
from balkit.pool import Pool
from balkit.recipe import Recipe
from balkit.teacher.prices import rate_of

#: Tokens of a request beyond the example, the label set and the recipe's instructions: template, role markers.
REQUEST_TOKENS = 150

_ROWS = ("take", "make", "repeat", "short")
_COSTS = ("calls", "tokens", "usd", "max_calls", "max_tokens", "max_usd")


@dataclass(frozen=True)
class Plan:
    """A plan. `rows` has one row a stage and domain:

    stage, domain, quota (with what it takes over from others, less what it leaves to them), available (real examples
    not yet drawn), take, make, repeat, short (these four add up to the quota), tail,
    calls, tokens, usd (expected) and max_calls, max_tokens, max_usd. Stage 0 is the dev split's rationales: its `take`
    are dev rows. `usd` is null where no price is known; `notes` are sentences for a person.
    """

    rows: pl.DataFrame
    budget_rows: int
    stages: int
    notes: tuple[str, ...]

    def by_domain(self) -> pl.DataFrame:
        """One row a domain, that with the most real examples first, and a last row `total`.

        Columns: domain; stage 1 .. stage K (quotas); real, written, repeats, short (they add up to the quotas); calls,
        usd (expected) and max_usd, the dev split's included.
        """
        stage = pl.col("stage")
        order = self.rows.filter(stage == 1).sort("available", "domain", descending=[True, False]).select("domain")
        names = {"real": "take", "written": "make", "repeats": "repeat", "short": "short"}
        sums = self.rows.group_by("domain").agg(
            *(pl.col("quota").filter(stage == k).sum().alias(f"stage {k}") for k in range(1, self.stages + 1)),
            *(pl.col(name).filter(stage > 0).sum().alias(shown) for shown, name in names.items()),
            *(_sum(name) for name in ("calls", "usd", "max_usd")),
        )
        domains = order.join(sums, on="domain", maintain_order="left")
        last = domains.select(pl.lit("total").alias("domain"), *(_sum(name) for name in domains.columns[1:]))
        return pl.concat([domains, last])

    def as_dict(self) -> dict[str, Any]:
        """The plan for machines, with totals."""
        rows = pl.col(*_ROWS).filter(pl.col("stage") > 0).sum()
        return {
            "budget_rows": self.budget_rows,
            "stages": self.stages,
            "total": self.rows.select(rows, *(_sum(name) for name in _COSTS)).to_dicts()[0],
            "rows": self.rows.to_dicts(),
            "notes": list(self.notes),
        }


def _sum(name: str) -> pl.Expr:
    """The sum of a column, null where a part of it is unknown."""
    column = pl.col(name)
    return pl.when(column.null_count() == 0).then(column.sum()).alias(name)


def plan(pool: Pool, recipe: Recipe) -> Plan:
    """The plan of a recipe at the pool's newest version. Spends and stores nothing.

    Raises `BudgetError` for a budget below one row a domain or an empty pool.
    """
    return plan_of(Basis(pool.examples(origin="source"), recipe))


def plan_of(basis: Basis) -> Plan:
    """The plan of the recipe that a basis was made for; see `plan`."""
    return _Planner(basis, basis.recipe).plan()


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
        rows = self.priced(pl.concat(parts, how="diagonal_relaxed"))
        return Plan(rows, self.recipe.budget_rows, self.recipe.stages, self.notes(rows))

    def stage(self, stage: int, unused: Mapping[str, int], seen: set[str]) -> pl.DataFrame:
        """QUOTAS of a stage after what a domain lacks was given to others, as `assemble` does it."""
        fill, quotas = self.recipe.fill, self.basis.quotas(stage)
        filled = balance.fill_quotas(quotas, stage=stage, unused=unused, repeatable=seen, fill=fill)
        lacking, total = dict(filled.select("domain", "short").iter_rows()), int(filled["short"].sum())
        if not total:
            return filled
        room = {
            row["domain"]: total
            if "repeat" in fill and (row["take"] or row["domain"] in seen)
            else (unused[row["domain"]] - row["take"]) * ("real" in fill)
            for row in filled.iter_rows(named=True)
            if not row["short"]
        }
        given = balance.redistribute(total, share=self.basis.share(stage), room=room)
        left = sum(given.values())
        for domain, rows in sorted(lacking.items()):
            quotas[domain] += given.get(domain, 0) - min(rows, left)
            left -= min(rows, left)
        settled = balance.fill_quotas(quotas, stage=stage, unused=unused, repeatable=seen, fill=fill)
        return settled.with_columns(filled["tail"])

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
        asked, told = self.request_tokens(rationale.instructions), self.request_tokens(section.instructions)
        prompt = self.prompt_tokens.get(row["domain"], self.mean_prompt_tokens)
        writing = synthesize.expected_calls(row["make"], section=section)
        shown = section.demonstrations * prompt + told
        made = row["make"], writing.high * section.per_call  # written rows, expected and at most
        voters = section.votes * len(self.recipe.asked("vote"))
        answers = {
            "rationale": row["take"] + (0 if section.votes else made[0]),
            "vote": made[0] * section.votes,
        }
        most_answers = {
            "rationale": (row["take"] + (0 if section.votes else made[1])) * rationale.tries,
            "vote": made[1] * voters,
        }
        usual = {name: (n, n * (prompt + asked), n * self.reply_tokens) for name, n in answers.items()}
        usual["synthesis"] = (writing.expected, writing.expected * shown, made[0] * 2 * prompt)
        # At most: every byte of a request a token, every reply as long as max_tokens allows.
        bytes_ = tokens.BYTES_PER_TOKEN
        most = {
            name: (n, bytes_ * n * 2 * (prompt + asked), n * rationale.max_tokens) for name, n in most_answers.items()
        }
        most["synthesis"] = (writing.high, bytes_ * writing.high * 3 * shown, writing.high * section.max_tokens)
        return self.summed(usual, dearest=False) | {
            f"max_{name}": value for name, value in self.summed(most, dearest=True).items()
        }

    def summed(self, parts: Mapping[str, tuple[int, int, int]], *, dearest: bool) -> dict[str, Any]:
        """Calls, tokens and dollars of (calls, tokens read, tokens written) by purpose."""
        costs = [self.usd(purpose, *part, dearest=dearest) for purpose, part in parts.items()]
        known = [cost for cost in costs if cost is not None]
        return {
            "calls": sum(calls for calls, _, _ in parts.values()),
            "tokens": sum(read + written for _, read, written in parts.values()),
            "usd": sum(known) if len(known) == len(costs) else None,
        }

    def usd(self, purpose: str, calls: int, read: int, written: int, *, dearest: bool) -> float | None:
        """By the first teacher of a cascade, or the dearest of it; nothing costs nothing whatever the price."""
        if not calls:
            return 0.0
        rates = [rate_of(section) for section in self.recipe.asked(purpose)]
        costs = [rate.cost_microusd(read, written) / 1e6 for rate in rates if rate is not None]
        if len(costs) < len(rates):
            return None
        return max(costs) if dearest else costs[0]

    @cached_property
    def prompt_tokens(self) -> dict[str, int]:
        """Mean tokens of a domain's prompts with their references, by the estimate of `tokens`."""
        both = pl.col("prompt") + pl.col("reference").fill_null("")
        sized = self.basis.real.select("domain", size=both.map_elements(tokens.estimate().count, pl.Int64))
        return dict(sized.group_by("domain").agg(pl.col("size").mean().ceil().cast(pl.Int64)).iter_rows())

    @cached_property
    def mean_prompt_tokens(self) -> int:
        sizes = self.prompt_tokens.values()
        return sum(sizes) // len(sizes) if sizes else REQUEST_TOKENS

    def request_tokens(self, instructions: str) -> int:
        return REQUEST_TOKENS + tokens.estimate().count(", ".join(self.basis.labels) + instructions)

    @cached_property
    def reply_tokens(self) -> int:
        """Expected tokens of a worked answer: half of what the recipe allows."""
        return self.recipe.rationale.max_tokens // 2

    def notes(self, rows: pl.DataFrame) -> tuple[str, ...]:
        notes = []
        asked = [one for purpose in ("rationale", "vote", "synthesis") for one in self.recipe.asked(purpose)]
        unpriced = list(dict.fromkeys(one.model for one in asked if rate_of(one) is None))
        if unpriced:
            notes.append(
                f"no price is known for {', '.join(map(repr, unpriced))}: set its teacher's price in the recipe"
            )
        if any(len(self.recipe.asked(purpose)) > 1 for purpose in ("rationale", "vote")):
            notes.append(
                "a cascade is planned as if its first teacher's answers all hold; max_usd is its dearest's price"
            )
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
        dev = rows.filter(pl.col("stage") == 0)
        if dev.height:
            notes.append(f"{int(dev['take'].sum()):,} rows of the dev split are answered first")
        return (*notes, *self.capped(rows))

    def capped(self, rows: pl.DataFrame) -> Iterator[str]:
        """What the run's caps will not let through."""
        for unit in ("calls", "tokens", "usd"):
            cap, expected = getattr(self.recipe.caps, unit), rows.select(_sum(unit)).item()
            if cap is not None and expected is not None and expected > cap:
                yield f"caps.{unit} is {cap:,} and {expected:,.10g} are expected: the run will stop before its end"
