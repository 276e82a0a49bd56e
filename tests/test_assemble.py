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
) -> StageRows:
    """A stage that takes rows at random; the teacher is wrong about prompts with the word `wrong`."""
    recipe = make_recipe(select={"first": "random", "then": "random"}, rationale={"tries": 1, "max_tokens": 64})
    nothing: dict[str, Any] = {"evaluation": [], "known": [], "calls_made": {}}
    rule = Rule(wrong=wrong)

    def encode(prompts: Sequence[str]) -> Any:
        raise AssertionError("random needs no vectors")

    channel = synthesize.Channel(
        ask=Scripted(rule).ask, endpoint="rule", model="rule-1", stage=stage, section=recipe.rationale,
        expected=recipe.answers, labels=tuple(quotas),
    )  # fmt: skip
    material = Material(
        real=examples, demonstrations=examples, rows=frames.SNAPSHOT_ROWS.empty(), surplus=frames.EXAMPLES.empty(),
        scores=frames.SCORES.empty(), **nothing,
    )  # fmt: skip
    share = {domain: Fraction(1, len(quotas)) for domain in quotas}
    tools = Tools(seed, fill, recipe.select, recipe.synthesis, share, channel, encode)
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
