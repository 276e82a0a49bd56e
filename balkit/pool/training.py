"""From examples and their rationales to the rows of a snapshot."""

from __future__ import annotations

import polars as pl

from balkit import frames
from balkit.pool import identity

#: What `training_rows` needs of every row; `text` is the rationale's.
ANSWERED: dict[str, pl.DataType] = {
    **{
        name: frames.EXAMPLES.columns[name]
        for name in ("example_id", "prompt", "reference", "domain", "split", "origin")
    },
    **{name: frames.RATIONALES.columns[name] for name in ("rationale_id", "text", "answer", "author")},
    "copy": pl.Int64(),
}


def answered(examples: pl.DataFrame, rationales: pl.DataFrame, *, per_example: int = 1) -> pl.DataFrame:
    """EXAMPLES with an accepted rationale, a row for each of the first `per_example` by id, in the examples' order."""
    accepted = rationales.filter("accepted").sort("rationale_id")
    accepted = accepted.filter(pl.int_range(pl.len()).over("example_id") < per_example)
    joined = examples.join(
        accepted.select("example_id", "rationale_id", "text", "answer", "author"),
        on="example_id",
        maintain_order="left",
    )
    return joined.with_columns(copy=pl.lit(0, dtype=pl.Int64)).select(ANSWERED.keys())


def training_rows(rows: pl.DataFrame, *, stage: int, seed: int = 0, start: int = 0) -> pl.DataFrame:
    """SNAPSHOT_ROWS from rows with the columns of `ANSWERED`, in a seeded order that mixes the domains.

    Several rationales of an example are rows of their own, apart from each other. `position` counts from `start`. The
    order does not depend on that of the input.
    """
    first = pl.col("rationale_id") == pl.col("rationale_id").min().over("example_id", "copy")
    which = pl.col("copy").cast(pl.String) + pl.when(first).then(pl.lit("")).otherwise(" " + pl.col("rationale_id"))
    shaped = rows.with_columns(
        row_id=identity.digests(rows.select("example_id", "rationale_id", "copy")).str.slice(0, 16),
        order=identity.digests(rows.with_columns(copy=which).select(*_rank_key(seed, stage))),  # `texts.rank_key`
        stage=pl.lit(stage, dtype=pl.Int64),
        answer=pl.col("answer").fill_null(""),
    )
    shaped = shaped.sort("order", "row_id").with_columns(position=start + pl.int_range(pl.len(), dtype=pl.Int64))
    return frames.check(shaped.rename({"text": "rationale"}), frames.SNAPSHOT_ROWS)


def _rank_key(seed: int, stage: int) -> list[pl.Expr]:
    parts = [pl.lit(seed, pl.Int64), pl.lit(str(stage)), pl.col("example_id"), pl.col("copy")]
    return [part.alias(str(number)) for number, part in enumerate(parts)]
