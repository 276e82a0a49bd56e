"""What happened to a pool between two of its versions, per domain and row by row."""

from __future__ import annotations

import polars as pl

from balkit.pool import Pool

#: What can happen to a row.
KINDS = ("added", "retired", "moved_in", "moved_out", "split_changed", "accepted", "rejected")


def changes(pool: Pool, *, since: int | str, until: int | str) -> pl.DataFrame:
    """Rows by domain that differ between two versions; domains without a difference are left out.

    Columns: domain; added, retired; moved_in, moved_out (another domain now), split_changed; accepted, rejected (new
    rationales). A row counts under its domain at `until`; retired and moved-out ones under that at `since`. An example
    that came and went in between shows only in its rationales, under no domain.
    Raises `PoolError` for a version that is not there, and where `since` is the newer one.
    """
    rows = pool.changed_rows(since=since, until=until, prompts=False)
    counts = ((pl.col("change") == name).sum().cast(pl.Int64).alias(name) for name in KINDS)
    return rows.group_by("domain").agg(*counts).sort("domain", nulls_last=True)


def changed_rows(pool: Pool, *, since: int | str, until: int | str) -> pl.DataFrame:
    """The rows behind `changes`: domain, change (one of its columns), example_id, detail, prompt; in that order.

    `detail` is the other domain of a moved example, the splits of one that changed, a rejected rationale's reason.
    Raises as `changes` does.
    """
    return pool.changed_rows(since=since, until=until)
