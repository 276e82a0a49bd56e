"""What calls cost, from the ledger's own rows."""

from __future__ import annotations

from typing import Any

import polars as pl

from balkit.recipe import Recipe
from balkit.teacher.prices import rate_of


def by_endpoint(calls: pl.DataFrame) -> pl.DataFrame:
    """CALLS summed up by run, stage, purpose, endpoint and domain; `usd` is what all attempts are charged."""
    summed = calls.group_by("run_id", "stage", "purpose", "endpoint", "domain").agg(
        calls=pl.len(),
        cached=(pl.col("status") == "cached").sum(),
        failed=(~pl.col("status").is_in(["cached", "succeeded"])).sum(),
        input_tokens=pl.col("input_tokens").sum(),
        output_tokens=pl.col("output_tokens").sum(),
        usd=pl.col("cost_microusd").sum() / 1e6,
    )
    ordered = summed.sort("run_id", "stage", "purpose", "endpoint", "domain")
    return ordered.with_columns(pl.col("run_id").str.head(12))


def cascades(calls: pl.DataFrame, *, recipe: Recipe) -> list[dict[str, Any]]:
    """What each cascade of a run's recipe saved, given the run's CALLS.

    `usd_without` is what the last teacher alone would have cost, had it read and written as many tokens as the first
    one did; null where its price is unknown. `saved_usd` may be negative: the first one failed too often.
    """
    found = []
    for purpose in ("rationale", "vote"):
        sections = recipe.asked(purpose)
        mine = calls.filter(pl.col("purpose") == purpose)
        if len(sections) < 2 or not mine.height:
            continue
        first, last = (mine.filter(pl.col("endpoint") == sections[at].name) for at in (0, -1))
        rate, usd = rate_of(sections[-1]), int(mine["cost_microusd"].sum()) / 1e6
        tokens = int(first["input_tokens"].sum()), int(first["output_tokens"].sum())
        without = None if rate is None else rate.cost_microusd(*tokens) / 1e6
        found.append(
            {
                "purpose": purpose,
                "cascade": " > ".join(section.name for section in sections),
                "examples": mine["example_id"].n_unique(),
                "asked_last": last["example_id"].n_unique(),
                "usd": usd,
                "usd_without": without,
                "saved_usd": None if without is None else without - usd,
            }
        )
    return found
