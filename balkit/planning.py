"""What a recipe would do on a pool: quotas, deficits, calls, tokens and money, before anything is spent.

Low: nothing is rejected, and replies are as short as the shortest seen, or an eighth of the guess. Expected: no
worked answer is rejected, of the written examples as many as of those that the pool has already (by domain, shrunk to
all domains: `synthesize.Yield`), or as is usual, and replies are as long as those that are here already, or a guess
from max_tokens. High: every try and every vote that the recipe allows, and every reply as long as allowed. Of examples
without a reference, where a vote decides, each stage takes the domain's share. A row that is rejected for good is
replaced by another on top of that: only caps bound a run. What was paid for earlier and is served again is not
subtracted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from balkit import balance, synthesize, tokens
from balkit.basis import Basis
from balkit.pool import Pool
from balkit.recipe import Recipe
from balkit.reconcile import calls_of
from balkit.teacher.prices import rate_of

#: Tokens of a request beyond the example, the label set and the recipe's instructions: template, role markers.
REQUEST_TOKENS = 150

_ROWS = ("take", "make", "repeat", "short")
_COSTS = tuple(f"{name}{end}" for end in ("_low", "", "_high") for name in ("calls", "tokens", "usd"))
#: From so many replies on a domain's own lengths count, before that those of all domains.
_TELLING_REPLIES = 10
_PURPOSES = ("rationale", "vote", "synthesis")


@dataclass(frozen=True)
class Plan:
    """A plan. `rows` has one row a stage and domain:

    stage, domain, quota (with what it takes over from others, less what it leaves to them), available (real examples
    not yet drawn), take, make, repeat, short (these four add up to the quota), tail,
    calls, tokens, usd (expected), each with _low and with _high. Stage 0 is the dev split's rationales: its `take`
    are dev rows. `usd` is null where no price is known; `notes` are sentences for a person. `costs` has the same
    sums a stage, domain and purpose, with the endpoint and model that is asked first.
    """

    rows: pl.DataFrame
    costs: pl.DataFrame
    budget_rows: int
    stages: int
    notes: tuple[str, ...]

    def by_domain(self) -> pl.DataFrame:
        """One row a domain, that with the most real examples first, and a last row `total`.

        Columns: domain; stage 1 .. stage K (quotas); real, written, repeats, short (they add up to the quotas); calls,
        usd_low, usd (expected) and usd_high, the dev split's included.
        """
        stage = pl.col("stage")
        order = self.rows.filter(stage == 1).sort("available", "domain", descending=[True, False]).select("domain")
        names = {"real": "take", "written": "make", "repeats": "repeat", "short": "short"}
        sums = self.rows.group_by("domain").agg(
            *(pl.col("quota").filter(stage == k).sum().alias(f"stage {k}") for k in range(1, self.stages + 1)),
            *(pl.col(name).filter(stage > 0).sum().alias(shown) for shown, name in names.items()),
            *(_sum(name) for name in ("calls", "usd_low", "usd", "usd_high")),
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

    def forecast(self) -> dict[str, Any]:
        """What a run keeps to be held against what it spends."""
        return {"costs": self.costs.to_dicts(), "notes": list(self.notes)}


def _sum(name: str) -> pl.Expr:
    """The sum of a column, null where a part of it is unknown."""
    column = pl.col(name)
    return pl.when(column.null_count() == 0).then(column.sum()).alias(name)


def plan(pool: Pool, recipe: Recipe) -> Plan:
    """The plan of a recipe at the pool's newest version. Spends and stores nothing.

    With the policy `feedback`, quotas of later stages are those to expect before any student was measured. Raises
    `BudgetError` for a budget below one row a domain or an empty pool, and `RunError` for feedback without a dev split.
    """
    return plan_of(Basis.of(pool, recipe, calls=calls_of(pool), decisions=pool.decisions()))


def plan_of(basis: Basis) -> Plan:
    """The plan of the recipe that a basis was made for; see `plan`."""
    basis.refuse_without_dev()
    return _Planner(basis, basis.recipe).plan()


@dataclass(frozen=True)
class _Size:
    """Calls, and the tokens that they read and write together."""

    calls: int
    read: int
    written: int


@dataclass(frozen=True)
class _Each:
    """Tokens of one call: read, written (expected and shortest), and the most of both."""

    read: int
    written: int
    shortest: int
    most_read: int
    most_written: int


@dataclass(frozen=True)
class _Seen:
    """Earlier replies: how many, their mean tokens read and written, the fewest written."""

    replies: int
    read: int
    written: int
    shortest: int


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
                unused[domain] -= self.examples(take)
                seen |= {domain} if take or make else set()
        quotas = pl.concat(parts, how="diagonal_relaxed")
        costs = self.costs(quotas)
        rows = self.priced(quotas, costs)
        return Plan(rows, costs, self.recipe.budget_rows, self.recipe.stages, self.notes(rows, costs))

    def stage(self, stage: int, unused: Mapping[str, int], seen: set[str]) -> pl.DataFrame:
        """QUOTAS of a stage after what a domain lacks was given to others, as `assemble` does it."""
        fill, quotas = self.recipe.fill, self.basis.quotas(stage)
        unused = {domain: examples * self.recipe.rationale.per_example for domain, examples in unused.items()}
        share = self.recipe.synthesis.share
        filled = balance.fill_quotas(
            quotas, stage=stage, unused=unused, repeatable=seen, fill=fill, written_share=share
        )
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
        settled = balance.fill_quotas(
            quotas, stage=stage, unused=unused, repeatable=seen, fill=fill, written_share=share
        )
        return settled.with_columns(filled["tail"])

    def dev(self) -> pl.DataFrame:
        rows = self.basis.dev.group_by("domain").len().sort("domain")
        zero = pl.lit(0, dtype=pl.Int64)
        return rows.select(
            stage=zero, domain="domain", quota=zero, take=pl.col("len").cast(pl.Int64), make=zero, repeat=zero,
            short=zero, tail=pl.lit(False), available=pl.col("len").cast(pl.Int64),
        )  # fmt: skip

    def priced(self, rows: pl.DataFrame, costs: pl.DataFrame) -> pl.DataFrame:
        """The rows with the sums of their calls, tokens and dollars."""
        order = ["stage", "domain", "quota", "available", "take", "make", "repeat", "short", "tail"]
        sums = costs.group_by("stage", "domain").agg(_sum(name) for name in _COSTS)
        joined = rows.select(order).join(sums, on=["stage", "domain"], how="left", maintain_order="left")
        nothing = pl.col("calls_high").is_null()  # where nothing is asked
        return joined.with_columns(pl.when(nothing).then(0).otherwise(pl.col(name)).alias(name) for name in _COSTS)

    def costs(self, rows: pl.DataFrame) -> pl.DataFrame:
        """What each stage asks in each domain for each purpose; see `Plan.costs`."""
        found = [
            {"stage": row["stage"], "domain": row["domain"], "purpose": purpose, "endpoint": asked.name}
            | {"model": asked.model}
            | self.cost(purpose, sizes)
            for row in rows.iter_rows(named=True)
            for purpose, sizes in self.asked(row).items()
            for asked in self.recipe.asked(purpose)[:1]
        ]
        text = dict.fromkeys(("domain", "purpose", "endpoint", "model"), pl.String)
        sums = {name: pl.Float64 if name.startswith("usd") else pl.Int64 for name in _COSTS}
        return pl.DataFrame(found, schema={"stage": pl.Int64, **text, **sums})

    def asked(self, row: Mapping[str, Any]) -> dict[str, tuple[_Size, _Size, _Size]]:
        """Calls and tokens by purpose: low, expected, high. A purpose that is not asked for anything is left out."""
        section, rationale, domain = self.recipe.synthesis, self.recipe.rationale, row["domain"]
        kept = self.yields.get(domain, synthesize.Yield()).kept_fraction(self.every)
        writing = synthesize.expected_calls(self.examples(row["make"]), section=section, kept_fraction=kept)
        made, most = self.examples(row["make"]), writing.high * section.per_call  # written, expected and at most
        more = max(0, rationale.per_example - min(section.votes, rationale.per_example))  # beside the votes
        polled, asked = self.polled(row)
        own = asked + (max(0, row["make"] - made * (rationale.per_example - more)) if more else 0)
        votes, cascade = made * section.votes + polled * rationale.votes, len(self.recipe.asked("vote"))
        calls = {
            "rationale": (own, own, (asked + most * more) * rationale.tries),
            "vote": (votes, votes, (most * section.votes + polled * rationale.votes) * cascade),
            "synthesis": (writing.low, writing.expected, writing.high),
        }
        found = {}
        for purpose, (low, expected, high) in calls.items():
            if high:
                each = self.each(purpose, domain)
                sizes = (each.read, each.shortest), (each.read, each.written), (each.most_read, each.most_written)
                found[purpose] = tuple(
                    _Size(n, n * r, n * w) for n, (r, w) in zip((low, expected, high), sizes, strict=True)
                )
        return found  # type: ignore[return-value]

    @cached_property
    def yields(self) -> dict[str, synthesize.Yield]:
        """What was written in the pool so far and passed, by domain."""
        return synthesize.by_domain(synthesize.yields(self.basis.decisions, self.basis.calls))

    @cached_property
    def every(self) -> synthesize.Yield:
        return synthesize.Yield.sum(self.yields.values())

    def examples(self, rows: int) -> int:
        """Examples that bring so many rows."""
        return synthesize.examples_for(rows, per_example=self.recipe.rationale.per_example)

    def polled(self, row: Mapping[str, Any]) -> tuple[int, int]:
        """Of the real rows that are taken: the examples to be voted on, and the worked answers of the others."""
        if not self.recipe.rationale.votes:
            return 0, row["take"]
        share = self.unanswered.get((row["domain"], row["stage"] == 0), 0.0)
        examples = row["take"] if row["stage"] == 0 else self.examples(row["take"])
        return math.ceil(share * examples), row["take"] - math.floor(share * row["take"])

    @cached_property
    def unanswered(self) -> dict[tuple[str, bool], float]:
        """The share of a domain's real examples, or (True) dev examples, that have no reference."""
        share = pl.col("reference").is_null().mean()
        parts = ((self.basis.real, False), (self.basis.dev, True))
        return {
            (domain, is_dev): blank
            for examples, is_dev in parts
            for domain, blank in examples.group_by("domain").agg(share).iter_rows()
        }

    def each(self, purpose: str, domain: str) -> _Each:
        """Tokens of one call: as in earlier replies where there are any, else from the recipe's max_tokens.

        At most: every byte of a request a token, every reply as long as allowed.
        """
        prompt = self.prompt_tokens.get(domain, self.mean_prompt_tokens)
        if purpose == "synthesis":
            section = self.recipe.synthesis
            most = section.max_tokens
            read = section.demonstrations * prompt + self.request_tokens(section.instructions)
            most_read, written = tokens.BYTES_PER_TOKEN * 3 * read, min(most, section.per_call * 2 * prompt)
        else:
            most = self.recipe.rationale.max_tokens
            read = prompt + self.request_tokens(self.recipe.rationale.instructions)
            most_read, written = tokens.BYTES_PER_TOKEN * 2 * read, most // 2
        shortest = written // 8
        seen = self.seen.get((purpose, domain)) or self.seen.get((purpose, None))
        if seen is not None:
            read, written, shortest = seen.read, min(most, seen.written), min(most, seen.shortest)
        return _Each(read, written, shortest, max(most_read, read), most)

    def cost(self, purpose: str, sizes: tuple[_Size, _Size, _Size]) -> dict[str, Any]:
        low, expected, high = sizes
        named = (("_low", low, min), ("", expected, None), ("_high", high, max))
        return {
            f"{name}{end}": value
            for end, size, pick in named
            for name, value in (
                ("calls", size.calls),
                ("tokens", size.read + size.written),
                ("usd", self.usd(purpose, size, pick=pick)),
            )
        }

    def usd(self, purpose: str, size: _Size, *, pick: Callable[[list[float]], float] | None) -> float | None:
        """By the first teacher of a cascade, or by the one that `pick` takes; nothing costs nothing at any price."""
        if not size.calls:
            return 0.0
        rates = [rate_of(section) for section in self.recipe.asked(purpose)]
        costs = [rate.cost_microusd(size.read, size.written) / 1e6 for rate in rates if rate is not None]
        if len(costs) < len(rates):
            return None
        return pick(costs) if pick else costs[0]

    @cached_property
    def seen(self) -> dict[tuple[str, str | None], _Seen]:
        """What the purposes' own models needed so far, by purpose and domain, and in all domains (None)."""
        models = pl.DataFrame(
            [(purpose, self.recipe.asked(purpose)[0].model) for purpose in _PURPOSES],
            schema=["purpose", "model"],
            orient="row",
        )
        paid = self.basis.calls.filter((pl.col("status") == "succeeded") & (pl.col("output_tokens") > 0))
        mine = paid.join(models, on=["purpose", "model"])
        both = pl.concat([mine, mine.with_columns(domain=pl.lit(None, dtype=pl.String))])
        sums = both.group_by("purpose", "domain").agg(
            replies=pl.len(),
            read=pl.col("input_tokens").mean().ceil().cast(pl.Int64),
            written=pl.col("output_tokens").mean().ceil().cast(pl.Int64),
            shortest=pl.col("output_tokens").min(),
        )
        telling = sums.filter(pl.col("domain").is_null() | (pl.col("replies") >= _TELLING_REPLIES))
        return {(purpose, domain): _Seen(*numbers) for purpose, domain, *numbers in telling.iter_rows()}

    @cached_property
    def prompt_tokens(self) -> dict[str, int]:
        """Mean tokens of a domain's prompts with their references, by the estimate of `tokens`."""
        both = pl.col("prompt") + pl.col("reference").fill_null("")
        sized = self.basis.real.select("domain", size=tokens.estimated(both))
        return dict(sized.group_by("domain").agg(pl.col("size").mean().ceil().cast(pl.Int64)).iter_rows())

    @cached_property
    def mean_prompt_tokens(self) -> int:
        sizes = self.prompt_tokens.values()
        return sum(sizes) // len(sizes) if sizes else REQUEST_TOKENS

    def request_tokens(self, instructions: str) -> int:
        return REQUEST_TOKENS + tokens.estimate().count(", ".join(self.basis.labels) + instructions)

    def notes(self, rows: pl.DataFrame, costs: pl.DataFrame) -> tuple[str, ...]:
        notes = []
        asked = [one for purpose in ("rationale", "vote", "synthesis") for one in self.recipe.asked(purpose)]
        unpriced = list(dict.fromkeys(one.model for one in asked if rate_of(one) is None))
        if unpriced:
            notes.append(
                f"no price is known for {', '.join(map(repr, unpriced))}: set its teacher's price in the recipe"
            )
        if any(len(self.recipe.asked(purpose)) > 1 for purpose in ("rationale", "vote")):
            notes.append(
                "a cascade is planned as if its first teacher's answers all hold; usd_high is its dearest's price"
            )
        short = int(rows["short"].sum())
        if short:
            notes.append(f"{short} rows cannot be had by fill: {', '.join(self.recipe.fill)}; add synthetic or repeat")
        empty = [domain for domain, n in self.basis.counts.items() if not n]
        if empty:
            notes.append(
                f"no real training example: {', '.join(empty)}; examples there are written without any to go by"
            )
        taken = sum(self.examples(take) for take in rows.filter(pl.col("stage") > 0)["take"])
        share = 100 * taken / max(self.basis.real.height, 1)
        notes.append(f"{taken:,} of {self.basis.real.height:,} real examples are taken ({share:.0f} %)")
        if share > 30 and self.recipe.select.then != "random":
            notes.append("above about 30 % selection has little left to choose: random is hard to beat there")
        if self.basis.unreadable.height:
            notes.append(f"{self.basis.said_of_unreadable()}: their worked answers will be refused")
        blank = self.basis.evaluation.height - self.basis.measured.height
        if blank:
            notes.append(f"{blank} eval rows have no reference answer: they serve to find leaks, nothing is measured")
        dev = rows.filter(pl.col("stage") == 0)
        if dev.height:
            notes.append(f"{int(dev['take'].sum()):,} rows of the dev split are answered first")
        if self.recipe.balance.policy == "feedback" and self.recipe.stages > 1:
            notes.append(self.steered())
        return (*notes, *self.measured(costs), *self.capped(rows))

    def steered(self) -> str:
        """What of the quotas is not known yet."""
        dev, floor = self.basis.measured_dev, self.recipe.balance.floor
        thin = [domain for domain in self.basis.counts if dev.filter(pl.col("domain") == domain).is_empty()]
        blind = f"; no dev row tells of {', '.join(thin)}, which count as the mean" if thin else ""
        return (
            f"feedback: quotas from stage 2 on follow the student's answers to {dev.height:,} dev rows; shown is what "
            f"`adaptive` gives, of which every domain keeps {100 * floor:.0f} % at least{blind}"
        )

    def measured(self, costs: pl.DataFrame) -> Iterator[str]:
        """Where the lengths of replies come from."""
        asked = [purpose for purpose in _PURPOSES if purpose in set(costs["purpose"])]
        seen = {purpose: self.seen[purpose, None].replies for purpose in asked if (purpose, None) in self.seen}
        if seen:
            learned = ", ".join(f"{replies:,} {purpose}" for purpose, replies in seen.items())
            yield f"tokens a call are as in the replies that are here already: {learned}"
        if self.every.written and "synthesis" in asked:
            least = min(self.yields, key=lambda name: (self.yields[name].kept_fraction(self.every), name))
            worst, share = self.yields[least], 100 * self.every.kept / self.every.written
            yield (
                f"of {self.every.written:,} rows written here so far {self.every.kept:,} passed ({share:.0f} %), the "
                f"least in {least} ({worst.kept} of {worst.written}): calls are expected by that"
            )
        if guessed := [purpose for purpose in asked if purpose not in seen]:
            yield f"lengths of replies are guessed from max_tokens, for no model has answered yet: {', '.join(guessed)}"

    def capped(self, rows: pl.DataFrame) -> Iterator[str]:
        """What the run's caps will not let through."""
        for unit in ("calls", "tokens", "usd"):
            cap, expected = getattr(self.recipe.caps, unit), rows.select(_sum(unit)).item()
            if cap is not None and expected is not None and expected > cap:
                yield f"caps.{unit} is {cap:,} and {expected:,.10g} are expected: the run will stop before its end"
