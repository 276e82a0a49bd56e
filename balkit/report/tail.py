"""The long tail, drawn in text."""

from __future__ import annotations

import sys

import polars as pl

from balkit import terminal

#: Characters of the longest bar, and where there is little room.
WIDTH, NARROW = 30, 16
_ROOMY = 100  # columns


def drawn(coverage: pl.DataFrame, *, width: int | None = None) -> pl.DataFrame:
    """`Pool.coverage` with `part` (head: at least an even share of the real train rows) and a bar after the domain.

    A bar's `#` are real train rows and its `+` synthetic ones, to the scale of the largest domain; a domain with rows
    has one sign at least. Plain ASCII, so that any terminal shows it; `width` is by the terminal's if not given.
    """
    longest = width or (WIDTH if terminal.width(sys.stdout) >= _ROOMY else NARROW)
    real, in_use = pl.col("real"), (pl.col("train") + pl.col("dev") + pl.col("eval")) > 0
    most = coverage["train"].max() if coverage.height else 0

    def signs(rows: pl.Expr, sign: str) -> pl.Expr:
        length = (rows / pl.lit(most or 1) * longest).round().clip(lower_bound=(rows > 0).cast(pl.Float64))
        return pl.lit(sign).repeat_by(length.cast(pl.Int64)).list.join("")

    part = pl.when(real >= real.filter(in_use).mean()).then(pl.lit("head")).otherwise(pl.lit("tail"))
    return coverage.select(
        "domain",
        part.alias("part"),
        pl.concat_str(signs(real, "#"), signs(pl.col("train") - real, "+")).alias("train rows"),
        pl.exclude("domain"),
    )
