"""Sets of domains beside the labels' own: discovered ones, or another taxonomy."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl

from balkit import texts
from balkit.errors import PoolError
from balkit.pool import commits, database

if TYPE_CHECKING:
    import duckdb


def rows_of(
    con: duckdb.DuckDBPyConnection, name: str, labels: pl.DataFrame, *, detail: Any, version: int
) -> dict[str, pl.DataFrame]:
    """The rows that give a set these domains (example_id, domain) from the next version on; those that differ.

    Without a detail, that of the set stays. Raises `PoolError` for ids that the pool never had, that are retired or
    stand twice, and for bad names.
    """
    labels = labels.select(
        pl.lit(name).alias("domain_set"),
        pl.col("example_id").cast(pl.String),
        pl.Series("domain", [texts.canonical(str(domain or "")) for domain in labels["domain"]], dtype=pl.String),
    )
    odd = [domain for domain in labels["domain"].unique() if not domain or not commits.is_a_name(domain)]
    if odd:
        raise PoolError(f"domain set {name}: {odd[0]!r} is no name of a domain")
    if labels["example_id"].is_duplicated().any():
        raise PoolError(f"domain set {name}: an example_id stands twice")
    known = commits.retired(con, labels.select("example_id"), version=version)
    lost = labels.join(known, on="example_id", how="anti")
    if lost.height:
        raise PoolError(f"domain set {name}: {lost.height} examples are retired, such as {lost['example_id'][0]}")
    params = {"version": version, "name": name}
    stored: pl.DataFrame = con.sql("SELECT * FROM domains_at($version, $name)", params=params).pl()
    new = labels.join(stored, on=["example_id", "domain"], how="anti", maintain_order="left")
    said = json.dumps(detail, ensure_ascii=False, sort_keys=True)
    record = pl.DataFrame({"domain_set": [name], "detail": [said]})
    before = database.ask(con, "domain_sets", version=version).filter(pl.col("domain_set") == name)["detail"].to_list()
    same = before == [said] or (before and detail is None)
    return {"domain_labels": new, "domain_sets": record.clear() if same else record}
