"""`balkit report` at size: seconds (of the wall, and of CPU), peak memory and bytes of the page, beside the pool's.

    python tests/benchmarks/bench_report.py [rows ...] [--folder FOLDER]

For each number of rows (10,000 100,000 1,000,000 unless given) the pool of `bench_exports`, with one snapshot of all
of them, and a run around it: a settled call a row, a refusal for one row in five, an IFD for one in five, an answer to
eval for one in twenty. The page is written in a process of its own. A pool in FOLDER is kept and used again.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from bench_exports import SIZES, made
from measuring import digits, in_child, seconds, table

from balkit import frames, write_report
from balkit.pool import Commit, Pool

REASONS = ["answer_contradicts_reference", "empty", "no_answer", "too_long"]


def around(pool: Pool) -> None:
    """What a run keeps beside its rows."""
    if pool.committed(("bench", 1, "evaluation")) is not None:
        return
    rng, rows = np.random.default_rng(0), pool.snapshot("latest").rows.select("example_id", "domain")
    source = pool.rationales().filter("accepted").select("example_id", key="source").unique("example_id")
    asked = rows.join(source, on="example_id", maintain_order="left")

    def column(name: str, low: int, high: int) -> pl.Series:
        return pl.Series(name, rng.integers(low, high, asked.height))

    said = {"run_id": "bench", "purpose": "rationale", "endpoint": "teacher", "model": "big-1", "status": "succeeded"}
    calls = asked.with_columns(
        *(pl.lit(value).alias(name) for name, value in said.items()),
        *(pl.lit(1, pl.Int64).alias(name) for name in ("stage", "attempts")),
        column("input_tokens", 50, 200), column("output_tokens", 50, 400), column("cost_microusd", 50, 500),
    )  # fmt: skip
    fifth = rows.gather_every(5)
    refused = fifth.with_columns(
        pl.Series("reason", rng.choice(REASONS, fifth.height)), step=pl.lit("rationale"), method=pl.lit("teacher"),
        kept=pl.lit(False), gain=pl.lit(None, pl.Float64), rank=pl.lit(None, pl.Int64), detail=pl.lit("declared: 5"),
    )  # fmt: skip
    scored = fifth.select(
        "example_id", pl.Series("value", rng.gamma(9, 0.06, fifth.height)), checkpoint=pl.lit("c" * 64),
        name=pl.lit("ifd"), settings=pl.lit("response=reference"), reason=pl.lit(None, pl.String),
    )  # fmt: skip
    some = rows.gather_every(20)
    graded = some.with_columns(
        pl.Series("correct", rng.random(some.height) < 0.4), checkpoint=pl.lit("d" * 64), split=pl.lit("eval"),
        settings=pl.lit("kind=number"), predicted=pl.lit("4"), text=pl.lit("Answer: 4"),
    )  # fmt: skip
    pool.commit(Commit("calls", key=("bench", 1, "calls"), calls=frames.check(calls, frames.CALLS)))
    pool.commit(Commit("refused", key=("bench", 1, "data"), decisions=frames.check(refused, frames.DECISIONS)))
    pool.commit(Commit("scores", key=("bench", 0, "scores"), scores=frames.check(scored, frames.SCORES)))
    pool.commit(
        Commit("evaluated", key=("bench", 1, "evaluation"), evaluations=frames.check(graded, frames.EVALUATIONS))
    )


def reported(pool: str, out: str) -> tuple[float, float]:
    """The seconds of one page: wall and CPU."""
    began = time.process_time()
    return seconds(lambda: write_report(Pool.open(pool), out)), time.process_time() - began


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("rows", nargs="*", type=int, default=SIZES)
    arguments.add_argument("--folder", type=Path)
    given = arguments.parse_args()
    lines: list[list[object]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for rows in given.rows:
            path = made(given.folder or Path(scratch), rows)
            around(Pool.open(path))
            page = Path(scratch, "report.html")
            took, before, peak = in_child(reported, str(path), str(page))
            sizes = [(path / "pool.duckdb").stat().st_size / 1e6, page.stat().st_size / 1e6]
            lines.append([f"{rows:,}", *map(digits, took), f"{before:,.0f}", f"{peak:,.0f}", *map(digits, sizes)])
    print(table("Reports", "rows | seconds | CPU seconds | MiB before | MiB at peak | pool, MB | page, MB", lines))


if __name__ == "__main__":
    main()
