"""One stage's rows: choose real examples, have answers and missing examples written, refill, repeat, share out.

The order is the recipe's `fill`: real rows first, then written ones, then repeats. A rejected row is replaced by
the next-ranked real row of its domain, then by synthesis, then by a repeat; what a domain still lacks goes to the
other domains by the same policy. Where the recipe asks for several worked answers an example, each is a row: a domain
then draws as many fewer examples. Everything here is a function of its arguments and of the teacher's replies, and
the requests of a round depend only on earlier rounds, so a killed stage asks for the same keys again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from balkit import balance, frames, selection, synthesize, texts
from balkit.pool import ANSWERED, training_rows
from balkit.recipe import Select, Synthesis
from balkit.synthesize import examples_for
from balkit.within import Within

Encode = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Material:
    """What a stage may draw on; all frames are of the run's base version plus its own commits."""

    real: pl.DataFrame  # EXAMPLES: train, origin source, not standing in eval, not drawn or rejected before
    demonstrations: pl.DataFrame  # EXAMPLES: every usable real train example
    evaluation: Sequence[str]  # prompts of the eval split
    known: Sequence[str]  # prompts that a written example must not repeat
    rows: pl.DataFrame  # SNAPSHOT_ROWS of the earlier stages
    surplus: pl.DataFrame  # EXAMPLES written in earlier stages beyond their quota
    scores: pl.DataFrame  # example_id, value, reason: what the last student gave the candidates
    calls_made: Mapping[str, int]  # synthesis calls of earlier stages by domain
    yields: Mapping[str, synthesize.Yield] = field(default_factory=dict)  # of earlier stages by domain
    reviewed: pl.DataFrame = field(default_factory=frames.RATIONALES.empty)  # RATIONALES that a person accepted
    pool: pl.DataFrame = field(default_factory=frames.EXAMPLES.empty)  # example_id, prompt of `known`, `evaluation`


@dataclass(frozen=True)
class Choosing:
    """How a stage ranks real examples. `per_example` is how many rows an example gives at most."""

    seed: int
    select: Select
    per_example: int
    encode: Encode
    within: Within | None = None


@dataclass(frozen=True)
class Tools:
    """How a stage chooses, asks and checks: the recipe's sections and the two doors to the outside."""

    seed: int
    fill: Sequence[str]
    select: Select
    synthesis: Synthesis
    share: balance.Shares
    channel: synthesize.Channel
    encode: Encode
    within: Within | None = None
    on_rows: Callable[[Mapping[str, int]], None] | None = None  # told rows by domain of the stage so far

    @property
    def per_example(self) -> int:
        """Rows that an example gives at most."""
        return self.channel.section.per_example

    @property
    def choosing(self) -> Choosing:
        """What of this ranks real examples."""
        return Choosing(self.seed, self.select, self.per_example, self.encode, self.within)


@dataclass(frozen=True)
class StageRows:
    """What a stage adds to the pool. `deficits` says which domain lacked rows and who took them over."""

    rows: pl.DataFrame  # SNAPSHOT_ROWS of this stage alone
    examples: pl.DataFrame  # EXAMPLES written
    rationales: pl.DataFrame  # RATIONALES accepted and rejected
    decisions: pl.DataFrame  # DECISIONS of every step
    deficits: list[dict[str, Any]]


def assemble(quotas: Mapping[str, int], material: Material, *, stage: int, tools: Tools) -> StageRows:
    """The rows of one stage.

    `quotas` are rows per domain. The result has exactly their sum, unless every way that `fill` allows is used up in
    every domain; then an entry of `deficits` has given less than its `rows` to others.
    """
    real, rows, scores = material.real, material.rows, material.scores
    ranking = rank(quotas, real=real, rows=rows, scores=scores, stage=stage, choosing=tools.choosing)
    work = _Work(stage, material, tools, ranking)
    wanted, exhausted = _written_first(work, {domain: rows for domain, rows in quotas.items() if rows}), set[str]()
    while wanted:
        lacking = wanted
        for way in tools.fill:
            lacking = _WAYS[way](work, lacking)
        exhausted |= lacking.keys()
        wanted = _share_out(work, lacking, exhausted, quotas)
    return work.result(quotas)


def candidates(
    quotas: Mapping[str, int], unused: pl.DataFrame, *, rows: pl.DataFrame, stage: int, choosing: Choosing
) -> pl.DataFrame:
    """Those of the unused EXAMPLES that are worth a score: in head domains, by coverage, a multiple of the quota.

    `quotas` are examples by domain here (`synthesize.examples_for`). A tail domain gives all it has, so none of its
    examples is scored. `rows` are the SNAPSHOT_ROWS so far.
    """
    parts, select = [unused.clear()], choosing.select
    for domain, quota in sorted(quotas.items()):
        here = unused.filter(pl.col("domain") == domain).sort("example_id")
        wanted = here.height if select.candidates == "all" else select.candidates * quota
        if quota >= here.height:
            continue
        if wanted < here.height:
            taken = rows.filter(pl.col("domain") == domain).unique("example_id", maintain_order=True)
            task = _Ask(select.first, choosing.seed, stage, taken, frames.SCORES.empty())
            ranked = _ranked(here, quota=wanted, task=task, choosing=choosing)
            here = here.join(ranked.filter("kept"), on="example_id", how="semi", maintain_order="left")
        parts.append(here)
    return pl.concat(parts)


def _share_out(
    work: _Work, lacking: Mapping[str, int], exhausted: set[str], quotas: Mapping[str, int]
) -> dict[str, int]:
    if not lacking:
        return {}
    total = sum(lacking.values())
    fill, repeatable = work.tools.fill, work.repeatable()
    room = {
        domain: total
        if "synthetic" in fill or ("repeat" in fill and domain in repeatable)
        else len(work.queue.get(domain, ())) * work.tools.per_example
        for domain in quotas
        if domain not in exhausted
    }
    given = balance.redistribute(total, share=work.tools.share, room=room)
    left = dict(given)
    for domain, rows in sorted(lacking.items()):
        part = _part(left, rows)
        left = _less(left, part)
        work.deficits.append({"stage": work.stage, "domain": domain, "rows": rows, "given_to": part})
    return given


def _part(given: Mapping[str, int], rows: int) -> dict[str, int]:
    """Up to `rows` of what was given to others, by name: one lacking domain's share of a deficit's entry."""
    part: dict[str, int] = {}
    for domain, more in sorted(given.items()):
        part[domain] = min(more, rows - sum(part.values()))
    return {domain: more for domain, more in part.items() if more}


def rank(
    quotas: Mapping[str, int],
    *,
    real: pl.DataFrame,
    rows: pl.DataFrame,
    scores: pl.DataFrame,
    stage: int,
    choosing: Choosing,
) -> pl.DataFrame:
    """DECISIONS of `select` for every domain with a quota (in rows) or room for others' rows; no teacher is asked.

    real, rows, scores are those of `Material`: the candidates, what earlier stages took, and the last student's scores.
    """
    parts = [frames.DECISIONS.empty()]
    seed = int(texts.rank_key(choosing.seed, "select", stage)[:16], 16)  # seed + stage would be another seed's stage
    for (domain,), here in real.sort("domain", "example_id").group_by("domain", maintain_order=True):
        quota = examples_for(quotas.get(str(domain), 0), per_example=choosing.per_example)
        # A tail domain gives all it has: nothing is left to choose, and dropping a real row would only buy another.
        is_first = stage == 1 or quota >= here.height
        method = choosing.select.first if is_first else choosing.select.then
        taken = rows.filter(pl.col("domain") == domain).unique("example_id", maintain_order=True)
        task = _Ask(method, seed, stage, taken, scores)
        parts.append(_ranked(here, quota=quota, task=task, choosing=choosing))
    return pl.concat(parts)


@dataclass(frozen=True)
class _Ask:
    """How one domain is ranked, what was taken of it before, and the last student's SCORES."""

    method: str
    seed: int
    stage: int
    taken: pl.DataFrame
    scores: pl.DataFrame


def _ranked(here: pl.DataFrame, *, quota: int, task: _Ask, choosing: Choosing) -> pl.DataFrame:
    """DECISIONS on the candidates of a domain, cluster by cluster where the recipe shares its quota out."""
    choose = partial(_selected, task=task, choosing=choosing)
    if choosing.within is None or quota >= here.height:
        return choose(here, quota)
    return choosing.within.ranked(here, taken=task.taken, quota=quota, stage=task.stage, choose=choose)


def _selected(candidates: pl.DataFrame, quota: int, *, task: _Ask, choosing: Choosing) -> pl.DataFrame:
    select, encode, method, taken = choosing.select, choosing.encode, task.method, task.taken
    ids, needs_vectors = candidates["example_id"].to_list(), selection.needs_vectors(method)
    scored = {row["example_id"]: row for row in task.scores.iter_rows(named=True)}
    evidence = selection.Evidence(
        vectors=encode(candidates["prompt"].to_list()) if needs_vectors else None,
        chosen=encode(taken["prompt"].to_list()) if needs_vectors and taken.height else None,
        scores=np.array([_value(scored.get(i)) for i in ids]) if selection.needs_scores(method) else None,
        reasons=[scored[i]["reason"] if i in scored else "not among the candidates" for i in ids],
        max_ifd=select.max_ifd,
        quality_weight=select.quality_weight,
        strata=select.strata,
    )
    return selection.select(candidates, quota=quota, method=method, evidence=evidence, seed=task.seed)


def _value(score: Mapping[str, Any] | None) -> float:
    return float("nan") if score is None or score["value"] is None else float(score["value"])


@dataclass
class _Work:
    """What has been gathered so far in a stage."""

    stage: int
    material: Material
    tools: Tools
    ranking: pl.DataFrame
    queue: dict[str, deque[str]] = field(init=False)  # domain -> real example ids not yet tried, best first
    surplus: pl.DataFrame = field(init=False)
    tried: dict[str, str] = field(default_factory=dict)  # real example id -> why its turn came
    taken: list[dict[str, Any]] = field(default_factory=list)  # rows of this stage, in the order of arrival
    examples: list[pl.DataFrame] = field(default_factory=list)
    rationales: list[pl.DataFrame] = field(default_factory=list)
    decisions: list[pl.DataFrame] = field(default_factory=list)
    deficits: list[dict[str, Any]] = field(default_factory=list)
    calls_made: dict[str, int] = field(default_factory=dict)
    yields: dict[str, synthesize.Yield] = field(default_factory=dict)  # by domain, of the run so far

    def __post_init__(self) -> None:
        ranked = self.ranking.filter(pl.col("rank").is_not_null()).sort("domain", "rank")
        self.queue = {
            str(domain): deque(part["example_id"]) for (domain,), part in ranked.group_by("domain", maintain_order=True)
        }
        self.surplus = self.material.surplus.sort("example_id")
        self.calls_made, self.yields = dict(self.material.calls_made), dict(self.material.yields)

    def repeatable(self) -> set[str]:
        """Domains that have a row of this run to repeat."""
        return set(self.material.rows["domain"]) | {row["domain"] for row in self.taken}

    def prompts(self, origin: str) -> dict[str, list[str]]:
        """Prompts of the run's rows so far by domain, each once, the oldest first: `source` or `synthetic` ones."""
        found: dict[str, dict[str, None]] = {}
        for row in [*self.material.rows.iter_rows(named=True), *self.taken]:
            if row["origin"] == origin:
                found.setdefault(row["domain"], {})[row["prompt"]] = None
        return {domain: list(prompts) for domain, prompts in found.items()}

    def answered(self, examples: pl.DataFrame) -> pl.DataFrame:
        """Has worked answers written; returns the accepted ones, and records why others fell.

        `examples` has `wanted`: how many rows each is to give. What a person accepted comes first and costs nothing.
        """
        ready = self.material.reviewed.join(examples, on="example_id", how="semi", maintain_order="left")
        there = ready.group_by("example_id").agg(there=pl.len().cast(pl.Int64))
        asked = examples.select("example_id", "prompt", "reference", "domain", "wanted")
        asked = asked.join(there, on="example_id", how="left", maintain_order="left")
        asked = asked.with_columns(pl.col("wanted") - pl.col("there").fill_null(0)).filter(pl.col("wanted") > 0)
        written = synthesize.rationales(asked, channel=self.tools.channel)
        self.rationales.append(written)
        accepted = _firsts(pl.concat([ready, written.filter("accepted")]), examples)
        fallen = (
            written.join(accepted, on="example_id", how="anti")
            .sort(pl.col("reason").is_in(["vote_tied", "vote_thin"]), maintain_order=True)
            .unique("example_id", keep="last", maintain_order=True)
            .join(examples.select("example_id", "domain"), on="example_id", maintain_order="left")
        )
        self.decisions.append(_decided(fallen.sort("example_id"), step="rationale", method="teacher"))
        return accepted

    def take(self, examples: pl.DataFrame, accepted: pl.DataFrame) -> dict[str, int]:
        """Adds accepted rows in the order of `examples`; returns how many a domain."""
        both = examples.join(
            accepted.select("example_id", "rationale_id", "text", "answer", "author"),
            on="example_id",
            maintain_order="left",
        )
        for row in both.iter_rows(named=True):
            self.taken.append(row | {"copy": 0})
        self.tell()
        return dict(both.group_by("domain").len().iter_rows())

    def tell(self, written: Mapping[str, int] | None = None) -> None:
        """How many rows are in, with written examples that passed but are not taken yet."""
        if self.tools.on_rows is not None:
            self.tools.on_rows(Counter(row["domain"] for row in self.taken) + Counter(written))

    def result(self, quotas: Mapping[str, int]) -> StageRows:
        decisions = pl.concat([_settled(self.ranking, self.taken, self.tried, quotas=quotas), *self.decisions])
        taken = pl.DataFrame([{name: row[name] for name in ANSWERED} for row in self.taken], schema=ANSWERED)
        examples = pl.concat([frames.EXAMPLES.empty(), *self.examples])
        rationales = pl.concat([frames.RATIONALES.empty(), *self.rationales])
        return StageRows(
            rows=training_rows(taken, stage=self.stage, seed=self.tools.seed, start=self.material.rows.height),
            examples=examples.unique("example_id").sort("example_id"),
            rationales=rationales.unique("rationale_id").sort("rationale_id"),
            decisions=frames.check(decisions, frames.DECISIONS),
            deficits=self.deficits,
        )


def _take_real(work: _Work, wanted: Mapping[str, int]) -> dict[str, int]:
    """The best-ranked real rows; a rejected one is replaced by the next until the domain has none left."""
    lacking, turn, each = dict(wanted), "took over" if work.deficits else "chosen", work.tools.per_example
    while True:
        batch = [
            work.queue[domain].popleft()
            for domain, rows in sorted(lacking.items())
            for _ in range(min(examples_for(rows, per_example=each), len(work.queue.get(domain, ()))))
        ]
        if not batch:
            return lacking
        work.tried |= dict.fromkeys(batch, turn)
        turn = "refill" if turn == "chosen" else turn
        order = pl.DataFrame({"example_id": batch}, schema={"example_id": pl.String})
        examples = order.join(work.material.real, on="example_id", maintain_order="left")
        accepted = work.answered(_wanting(examples, rows=lacking, per_example=each))
        lacking = _less(lacking, work.take(examples, accepted))


def _write(work: _Work, wanted: Mapping[str, int]) -> dict[str, int]:
    """What earlier stages wrote beyond their quota, then new examples from the teacher.

    A domain that got all the examples that it asked for, but not as many rows, asks for more.
    """
    lacking, asking, each = dict(wanted), dict(wanted), work.tools.per_example
    while asking:
        missing = {domain: examples_for(rows, per_example=each) for domain, rows in asking.items()}
        examples, accepted = _written(work, missing)
        examples = _wanting(examples, rows=asking, per_example=each)
        accepted = _with_more(work, examples, accepted)
        lacking = _less(lacking, work.take(examples, accepted))
        got = dict(examples.group_by("domain").len().iter_rows())
        asking = {name: lacking[name] for name in asking if name in lacking and got.get(name) == missing[name]}
    return lacking


def _written_first(work: _Work, wanted: Mapping[str, int]) -> dict[str, int]:
    """What is lacking once the recipe's share of written rows is there; what could not be written is still lacking."""
    if "synthetic" not in work.tools.fill:
        return dict(wanted)
    share = work.tools.synthesis.share
    first = {domain: balance.written_first(rows, share=share) for domain, rows in wanted.items()}
    asked = {domain: rows for domain, rows in first.items() if rows}
    lacking = _write(work, asked) if asked else {}
    return _less(wanted, {domain: rows - lacking.get(domain, 0) for domain, rows in asked.items()})


def _written(work: _Work, missing: Mapping[str, int]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Written EXAMPLES, up to `missing` by domain, and their accepted RATIONALES."""
    tools, material = work.tools, work.material
    waiting = pl.col("domain").is_in(list(missing))
    written = synthesize.write_examples(
        missing,
        channel=tools.channel,
        section=tools.synthesis,
        sources=synthesize.Sources(
            demonstrations=material.demonstrations,
            known=[*material.known, *(row["prompt"] for row in work.taken), *work.surplus["prompt"]],
            evaluation=material.evaluation,
            encode=tools.encode,
            pool=pl.concat([part.select("example_id", "prompt") for part in (material.pool, *work.examples)]),
            waiting=work.surplus.filter(waiting),
            chosen=work.prompts("source"),
            written=work.prompts("synthetic"),
            earlier=work.yields,
        ),
        seed=tools.seed,
        start_sample=work.calls_made,
        on_kept=work.tell,
    )
    for domain, tally in written.tally.items():
        work.calls_made[domain] = work.calls_made.get(domain, 0) + tally.calls
        work.yields[domain] = work.yields.get(domain, synthesize.Yield()) + tally
    work.examples.append(written.examples)
    work.rationales.append(written.rationales)
    work.decisions.append(written.decisions)
    surplus = written.decisions.filter(pl.col("reason") == "surplus").select("example_id").unique()
    again = written.examples.join(surplus, on="example_id", how="semi")
    work.surplus = pl.concat([work.surplus.filter(~waiting), again])
    kept = written.decisions.filter(pl.col("kept")).select("example_id").unique()
    examples = written.examples.join(kept, on="example_id", how="semi").sort("domain", "example_id")
    return examples, written.rationales.filter(pl.col("accepted"))


def _with_more(work: _Work, examples: pl.DataFrame, accepted: pl.DataFrame) -> pl.DataFrame:
    """The accepted RATIONALES of written examples and, where these want more rows, further ones."""
    there = accepted.group_by("example_id").agg(there=pl.len().cast(pl.Int64))
    short = examples.join(there, on="example_id", maintain_order="left").filter(pl.col("there") < pl.col("wanted"))
    if short.height and work.tools.synthesis.votes:  # without votes they have used up their tries
        more = synthesize.rationales(
            short.select("example_id", "prompt", "reference", "domain", wanted=pl.col("wanted") - pl.col("there")),
            channel=work.tools.channel,
        )
        work.rationales.append(more)
        accepted = pl.concat([accepted, more.filter("accepted")])
    return _firsts(accepted, examples)


def _repeat(work: _Work, wanted: Mapping[str, int]) -> dict[str, int]:
    """The domain's own rows again, the least repeated first, in the order in which they came in."""
    lacking = dict(wanted)
    earlier = work.material.rows.rename({"rationale": "text"}).iter_rows(named=True)
    rows = [*earlier, *work.taken]
    for domain in sorted(wanted):
        originals: dict[tuple[str, str], dict[str, Any]] = {}
        copies: dict[tuple[str, str], int] = {}
        for row in rows:
            if row["domain"] == domain:
                which = row["example_id"], row["rationale_id"]
                originals.setdefault(which, row)
                copies[which] = copies.get(which, 0) + 1
        for _ in range(wanted[domain] if originals else 0):
            least = min(originals, key=copies.__getitem__)
            work.taken.append(originals[least] | {"copy": copies[least]})
            copies[least] += 1
            lacking = _less(lacking, {domain: 1})
    work.tell()
    return lacking


def _wanting(examples: pl.DataFrame, *, rows: Mapping[str, int], per_example: int) -> pl.DataFrame:
    """The examples with `wanted`: `per_example` rows of each, less of a domain's last where its rows are fewer."""
    before = per_example * pl.int_range(pl.len(), dtype=pl.Int64).over("domain")
    left = pl.col("domain").replace_strict(dict(rows), return_dtype=pl.Int64) - before
    return examples.with_columns(wanted=pl.min_horizontal(left, pl.lit(per_example, pl.Int64)))


def _firsts(accepted: pl.DataFrame, examples: pl.DataFrame) -> pl.DataFrame:
    """RATIONALES in their order, of each example up to its `wanted` and the same text once."""
    if accepted["example_id"].is_duplicated().any():
        text = pl.Series("normalised", [texts.normalised(text) for text in accepted["text"]], dtype=pl.String)
        accepted = accepted.hstack([text]).unique(["example_id", "normalised"], keep="first", maintain_order=True)
        accepted = accepted.drop("normalised")
    wanted = accepted.join(examples.select("example_id", "wanted"), on="example_id", maintain_order="left")
    return wanted.filter(pl.int_range(pl.len()).over("example_id") < pl.col("wanted")).drop("wanted")


def _less(wanted: Mapping[str, int], got: Mapping[str, int]) -> dict[str, int]:
    left = {domain: rows - got.get(domain, 0) for domain, rows in wanted.items()}
    return {domain: rows for domain, rows in left.items() if rows > 0}


_WAYS: dict[str, Callable[[_Work, Mapping[str, int]], dict[str, int]]] = {
    "real": _take_real,
    "synthetic": _write,
    "repeat": _repeat,
}


def _decided(rows: pl.DataFrame, *, step: str, method: str) -> pl.DataFrame:
    """DECISIONS for refused rows that carry `example_id, domain, reason, detail`."""
    return rows.select(
        "example_id",
        "domain",
        pl.lit(step).alias("step"),
        pl.lit(method).alias("method"),
        pl.lit(False).alias("kept"),
        pl.col("reason").fill_null("rejected"),
        pl.lit(None, dtype=pl.Float64).alias("gain"),
        pl.lit(None, dtype=pl.Int64).alias("rank"),
        "detail",
    )


def _settled(
    ranking: pl.DataFrame, taken: Sequence[Mapping[str, Any]], tried: Mapping[str, str], *, quotas: Mapping[str, int]
) -> pl.DataFrame:
    """The ranking with what became of it; far below the quota, rows that were never tried are left out.

    A kept row was `chosen`, a `refill` for a rejected one, or `took over` from a domain that lacked rows.
    """
    ids = pl.Series("example_id", [row["example_id"] for row in taken], dtype=pl.String)
    quota = pl.col("domain").replace_strict(dict(quotas), default=0, return_dtype=pl.Int64)
    turn = pl.col("example_id").replace_strict(dict(tried), default=None, return_dtype=pl.String)
    is_in = pl.col("example_id").is_in(ids.implode())
    return (
        ranking.with_columns(
            kept=is_in,
            reason=pl.when(is_in & (turn != "chosen"))
            .then(turn)
            .when(~is_in & turn.is_not_null())
            .then(pl.lit("rationale rejected"))
            .when(~is_in & pl.col("kept"))
            .then(pl.lit("not tried"))
            .otherwise("reason"),
        )
        .filter(pl.col("rank").is_null() | turn.is_not_null() | (pl.col("rank") < 3 * quota + 100))
        .select(frames.DECISIONS.columns.keys())
    )
