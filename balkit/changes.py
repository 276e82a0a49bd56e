"""What happened to a pool between two of its versions, per domain and row by row."""

from __future__ import annotations

import polars as pl

from balkit.errors import PoolError
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
    rows = changed_rows(pool, since=since, until=until)
    counts = ((pl.col("change") == name).sum().cast(pl.Int64).alias(name) for name in KINDS)
    return rows.group_by("domain").agg(*counts).sort("domain", nulls_last=True)


def changed_rows(pool: Pool, *, since: int | str, until: int | str) -> pl.DataFrame:
    """The rows behind `changes`: domain, change (one of its columns), example_id, detail, prompt; in that order.

    `detail` is the other domain of a moved example, the splits of one that changed, a rejected rationale's reason.
    Raises as `changes` does.
    """
    first, last = pool.number_of(since), pool.number_of(until)
    if first > last:
        raise PoolError(f"{pool.path}: version {since} is newer than {until}; name the older one first")
    old, new = pool.at(first), pool.at(last)
    before, after = old.examples(), new.examples()
    kept = before.join(after, on="example_id", suffix="_now")
    moved = kept.filter(pl.col("domain") != pl.col("domain_now"))
    split = kept.filter(pl.col("split") != pl.col("split_now"))
    worked = new.rationales().join(old.rationales(), on="rationale_id", how="anti")
    known = pl.concat([after, before]).unique("example_id", keep="first", maintain_order=True)
    worked = worked.join(known.select("example_id", "domain", "prompt"), on="example_id", how="left")
    nothing = pl.lit(None, dtype=pl.String)
    parts = {
        "added": (after.join(before, on="example_id", how="anti"), nothing),
        "retired": (before.join(after, on="example_id", how="anti"), nothing),
        "moved_in": (moved.with_columns(domain="domain_now", other="domain"), pl.format("from {}", "other")),
        "moved_out": (moved, pl.format("to {}", "domain_now")),
        "split_changed": (split.with_columns(domain="domain_now"), pl.format("{} to {}", "split", "split_now")),
        "accepted": (worked.filter("accepted"), nothing),
        "rejected": (worked.filter(~pl.col("accepted")), pl.col("reason")),
    }
    rows = pl.concat(
        part.select("domain", pl.lit(name).alias("change"), "example_id", detail.alias("detail"), "prompt")
        for name, (part, detail) in parts.items()
    )
    return rows.sort("domain", "change", "example_id", nulls_last=True)
