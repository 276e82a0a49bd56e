"""What calls cost, from the ledger's own rows."""

from __future__ import annotations

from typing import Any

import polars as pl

from balkit.recipe import Recipe
from balkit.teacher.prices import rate_of

_FORECAST = ("forecast_calls", "usd_low", "usd_forecast", "usd_high")
_TEACHER = pl.concat_str("endpoint", "model", separator=" / ")


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


def against(calls: pl.DataFrame, *, forecast: list[dict[str, Any]] | None, rows: int) -> dict[str, Any]:
    """A run's CALLS held against its forecast: in all, per kept row, and by stage, domain, purpose and teacher.

    `rows` are those of the run's last snapshot. Each part has calls and usd (spent), forecast_calls, usd_low,
    usd_forecast and usd_high; these are null where nothing was forecast or no price was known. Money of a cascade is
    forecast under its first teacher.
    """
    spent = calls.select(
        "stage", "domain", "purpose", teacher=_TEACHER, calls=(pl.col("status") != "cached").cast(pl.Int64),
        usd=pl.col("cost_microusd") / 1e6,
    )  # fmt: skip
    schema = dict.fromkeys(("domain", "purpose", "endpoint", "model"), pl.String)
    sums = {"calls": pl.Int64, "usd_low": pl.Float64, "usd": pl.Float64, "usd_high": pl.Float64}
    planned = pl.DataFrame(forecast or [], schema={"stage": pl.Int64, **schema, **sums}).select(
        "stage", "domain", "purpose", "usd_low", "usd_high", teacher=_TEACHER, forecast_calls="calls",
        usd_forecast="usd",
    )  # fmt: skip
    unknown = forecast is None

    def by(part: str) -> list[dict[str, Any]]:
        return _joined(spent.with_columns(all=0), planned.with_columns(all=0), part=part, unknown=unknown).to_dicts()

    nothing: dict[str, Any] = {"calls": 0, "usd": 0.0} | dict.fromkeys(_FORECAST, None if unknown else 0)
    total = next(iter(by("all")), nothing)
    return {
        "total": {name: value for name, value in total.items() if name != "all"},
        "kept_rows": rows,
        "usd_per_row": total["usd"] / rows if rows else None,
        **{f"by_{part}": by(part) for part in ("stage", "domain", "purpose", "teacher")},
    }


def _joined(spent: pl.DataFrame, planned: pl.DataFrame, *, part: str, unknown: bool) -> pl.DataFrame:
    """One row a value of `part`: spent beside forecast. What only one of them has is 0 in the other."""
    done = spent.group_by(part).agg(pl.col("calls", "usd").sum())
    priced = [pl.when(pl.col(name).null_count() == 0).then(pl.col(name).sum()).alias(name) for name in _FORECAST]
    expected = planned.group_by(part).agg(*priced, forecast=pl.lit(True))
    both = done.join(expected, on=part, how="full", coalesce=True).sort(part)
    missing = pl.col("forecast").is_null() & (not unknown)
    return both.with_columns(
        pl.col("calls", "usd").fill_null(0),
        *(pl.when(missing).then(0).otherwise(pl.col(name)).alias(name) for name in _FORECAST),
    ).select(part, "calls", "forecast_calls", "usd", "usd_low", "usd_forecast", "usd_high")


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
