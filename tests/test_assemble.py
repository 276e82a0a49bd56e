"""One stage's rows, and what is said of each real row that was thought of."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import polars as pl
from small import Rule, make_recipe, rows

from balkit import frames, synthesize, texts
from balkit.assemble import Material, StageRows, Tools, assemble
from balkit.teacher import Scripted
from balkit.vectors import make_encoder


def real(**sizes: int) -> pl.DataFrame:
    fixed = {"split": "train", "origin": "source", "parents": [], "added_in": 1}
    return frames.EXAMPLES.of(
        [
            {"example_id": texts.example_id(row["question"], domain), "prompt": row["question"], **fixed}
            | {"reference": domain, "domain": domain}
            for domain, count in sizes.items()
            for row in rows(domain, count, seed=1)
        ]
    )


def stage_of(
    quotas: dict[str, int],
    examples: pl.DataFrame,
    *,
    seed: int = 0,
    stage: int = 1,
    fill: Sequence[str] = ("real",),
    wrong: str = "",
    share: float = 0.0,
) -> StageRows:
    """A stage that takes rows at random; the teacher is wrong about prompts with the word `wrong`."""
    written = {"per_call": 2, "calls_per_row": 4, "share": share}
    sections = {"rationale": {"tries": 1, "max_tokens": 64}, "synthesis": written}
    recipe = make_recipe(select={"first": "random", "then": "random"}, **sections)
    nothing: dict[str, Any] = {"evaluation": [], "known": [], "calls_made": {}}
    channel = synthesize.Channel(
        ask=Scripted(Rule(wrong=wrong)).ask, endpoint="rule", model="rule-1", stage=stage, section=recipe.rationale,
        expected=recipe.answers, labels=tuple(quotas),
    )  # fmt: skip
    material = Material(
        real=examples, demonstrations=examples, rows=frames.SNAPSHOT_ROWS.empty(), surplus=frames.EXAMPLES.empty(),
        scores=frames.SCORES.empty(), **nothing,
    )  # fmt: skip
    shares = {domain: Fraction(1, len(quotas)) for domain in quotas}
    tools = Tools(seed, fill, recipe.select, recipe.synthesis, shares, channel, make_encoder(recipe.vectors).encode)
    return assemble(quotas, material, stage=stage, tools=tools)


def taken(done: StageRows) -> set[str]:
    return set(done.rows["example_id"])


def test_no_seed_and_stage_share_their_draws_with_another() -> None:
    examples = real(fruit=40)
    draws = [
        frozenset(taken(stage_of({"fruit": 8}, examples, seed=seed, stage=stage)))
        for seed in range(3)
        for stage in range(1, 4)
    ]
    assert len(set(draws)) == 9


def said(done: StageRows) -> dict[str, str]:
    """example_id -> the reason of its choice."""
    return dict(done.decisions.filter(pl.col("step") == "select").select("example_id", "reason").iter_rows())


def test_every_row_says_what_became_of_it() -> None:
    examples = real(fruit=30)
    done = stage_of({"fruit": 10}, examples, wrong="apple")
    reasons, ids = said(done), taken(done)
    ranked = done.decisions.filter(pl.col("step") == "select").sort("rank")["example_id"].to_list()
    fallen = set(done.rationales.filter(~pl.col("accepted"))["example_id"])
    assert fallen - set(ranked[:10]), "a refill was rejected too"
    assert {one for one, reason in reasons.items() if reason == "rationale rejected"} == fallen
    assert {one for one, reason in reasons.items() if reason == "chosen"} == ids & set(ranked[:10])
    assert {one for one, reason in reasons.items() if reason == "refill"} == ids - set(ranked[:10])
    assert {one for one, reason in reasons.items() if reason == "below quota"} == set(ranked) - ids - fallen


def test_rows_for_another_domains_deficit_are_taken_over() -> None:
    done = stage_of({"fruit": 5, "bird": 5}, real(fruit=30, bird=2))
    domains = dict(done.rows.select("example_id", "domain").iter_rows())
    told = [(domains[one], reason) for one, reason in said(done).items() if one in domains]
    counted = {pair: told.count(pair) for pair in told}
    assert counted == {("bird", "chosen"): 2, ("fruit", "chosen"): 5, ("fruit", "took over"): 3}


def test_real_rows_that_fill_leaves_out_were_not_rejected() -> None:
    reasons = said(stage_of({"fruit": 2}, real(fruit=3), fill=("synthetic",)))
    assert set(reasons.values()) == {"not tried", "below quota"}


def test_a_share_is_written_though_real_rows_are_left() -> None:
    done = stage_of({"fruit": 9, "bird": 4}, real(fruit=30, bird=3), fill=("real", "synthetic"), share=0.5)
    counted = dict(done.rows.group_by(pl.concat_str("domain", "origin", separator=" ")).len().iter_rows())
    assert counted == {"fruit source": 5, "fruit synthetic": 4, "bird source": 2, "bird synthetic": 2}
    none = stage_of({"fruit": 9}, real(fruit=30), fill=("real",), share=0.5)
    assert set(none.rows["origin"]) == {"source"}
