"""What happened to a pool between two of its versions, per domain."""

from __future__ import annotations

import polars as pl

from balkit.errors import PoolError
from balkit.pool import Pool


def changes(pool: Pool, *, since: int, until: int) -> pl.DataFrame:
    """Rows by domain that differ between two versions; domains without a difference are left out.

    Columns: domain; added, retired; moved_in, moved_out (another domain now), split_changed; accepted, rejected (new
    rationales). A row counts under its domain at `until`; retired and moved-out ones under that at `since`. An example
    that came and went in between shows only in its rationales, under no domain.
    Raises `PoolError` for a version that is not there, and where `since` is the newer one.
    """
    if since > until:
        raise PoolError(f"{pool.path}: version {since} is newer than {until}; name the older one first")
    old, new = pool.at(since), pool.at(until)
    before, after = old.examples(), new.examples()
    kept = before.join(after, on="example_id", suffix="_now")
    moved = kept.filter(pl.col("domain") != pl.col("domain_now"))
    worked = new.rationales().join(old.rationales(), on="rationale_id", how="anti")
    known = pl.concat([after, before]).unique("example_id", keep="first", maintain_order=True)
    worked = worked.join(known.select("example_id", "domain"), on="example_id", how="left")
    parts = {
        "added": after.join(before, on="example_id", how="anti"),
        "retired": before.join(after, on="example_id", how="anti"),
        "moved_in": moved.with_columns(domain="domain_now"),
        "moved_out": moved,
        "split_changed": kept.filter(pl.col("split") != pl.col("split_now")).with_columns(domain="domain_now"),
        "accepted": worked.filter("accepted"),
        "rejected": worked.filter(~pl.col("accepted")),
    }
    rows = pl.concat([part.select("domain", change=pl.lit(name)) for name, part in parts.items()])
    counts = ((pl.col("change") == name).sum().cast(pl.Int64).alias(name) for name in parts)
    return rows.group_by("domain").agg(*counts).sort("domain", nulls_last=True)
