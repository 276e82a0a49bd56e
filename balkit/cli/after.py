"""What is said after a run: what was done, what it cost, what to look at next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from balkit.cli.show import prose, say

if TYPE_CHECKING:
    import polars as pl

    from balkit.pool import Pool
    from balkit.results import RunResult


def summary(pool: Pool, result: RunResult, *, budget_rows: int, seconds: float) -> None:
    """Print it. `seconds` is what this process took."""
    from balkit.measuring import overall
    from balkit.report.panel import duration

    say()
    last = overall(result.measures).filter(stage=len(result.stages)).row(0, named=True)
    made = f"{last['real']:,} real, {last['synthetic']:,} written, {last['repeats']:,} repeated"
    stages = f"{len(result.stages)} stage{'s' * (len(result.stages) > 1)}"
    prose(f"done: {result.stages[-1].rows:,} of {budget_rows:,} rows in {stages} ({made}), in {duration(seconds)}")
    prose(f"cost: {_cost(pool, result)}")
    say("next:")
    commands = list(_next(pool, result))
    wide = max(len(command) for command, _ in commands)
    beside = all(wide + len(why) + 4 <= 80 for _, why in commands)
    for command, why in commands:
        say(f"  {command:{wide}}  {why}" if beside else f"  {command}\n      {why}")


def compared(pool: Pool, calls: pl.DataFrame, *, run_id: str) -> dict[str, Any]:
    """`report.against` of a run's CALLS: what it cost by part, with its forecast beside it."""
    import polars as pl

    from balkit.report import against
    from balkit.runs import forecast_of

    snapshots = pool.snapshots().filter(pl.col("run_id") == run_id).sort("stage")
    kept = int(snapshots["rows"][-1]) if snapshots.height else 0
    return against(calls, forecast=forecast_of(pool.path, run_id=run_id), rows=kept)


def _cost(pool: Pool, result: RunResult) -> str:
    total = compared(pool, pool.calls(run_id=result.run_id), run_id=result.run_id)["total"]
    spent = result.spent
    said = f"${spent.cost_microusd / 1e6:,.4f} in {spent.calls:,} calls, {spent.tokens:,} tokens"
    low, usual, high = (total.get(name) for name in ("usd_low", "usd_forecast", "usd_high"))
    if not spent.cost_microusd or None in (low, usual, high):
        return said
    return f"{said}; forecast ${usual:,.4f} (${low:,.4f} to ${high:,.4f})"


def _next(pool: Pool, result: RunResult) -> Iterator[tuple[str, str]]:
    where = shlex.quote(str(pool.path))
    yield f"balkit report {where}", "one page: the long tail, quotas and fill, reasons, money"
    yield f"balkit export {where} {result.snapshot_id} --to trl --out exports", "the rows for a trainer"
    if result.spent.cost_microusd:
        yield f"balkit spend {where}", "money by stage, domain and purpose"
    if conflicts := pool.conflicts().height:
        yield f"balkit conflicts {where}", f"{conflicts:,} worked answers disagree with their references or each other"
