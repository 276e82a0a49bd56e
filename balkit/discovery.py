"""Domains for a pool that has none, or inside one that is too wide: clusters of its examples, kept as a set."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from balkit import clusters
from balkit.errors import PoolError
from balkit.pool import Pool
from balkit.vectors import Vectors


@dataclass(frozen=True)
class Discovery:
    """What a discovery found. `version` holds it; the pool's old one for a dry run, or when nothing was new.

    domains     domain, terms, rows, cohesion (mean cosine to the centre), typical (ids); largest first
    candidates  k, silhouette, smallest, largest, largest_share, suggested; no rows where old centres were used
    assigned    examples that got a domain now, those of dev and eval included
    """

    version: int
    domains: pl.DataFrame
    candidates: pl.DataFrame
    assigned: int


def discover(
    pool: Pool,
    vectors: Vectors,
    *,
    domain_set: str = "discovered",
    k: int | None = None,
    within: str | None = None,
    min_rows: int = 10,
    seed: int = 0,
    again: bool = False,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Discovery:
    """Cluster the pool's real train examples, name the clusters, and give every example the domain nearest to it.

    The labels stay as they are; reads, coverage and recipes that name the `domain_set` see the new domains. `within`
    keeps to the examples of one domain; the others keep theirs. Where the set is there already, examples that came
    later go to its domains, by the centres that were stored; `again` discovers anew.

    Raises `PoolError` where there are no such examples, or the set was made with another encoder or domain, and
    `VectorError` as `clusters.discover` does.
    """
    stored = {
        name: json.loads(detail) for name, detail in pool.domain_sets().select("domain_set", "detail").iter_rows()
    }
    if domain_set in stored and not again:
        return _extended(
            pool, vectors, domain_set, stored[domain_set], within=within, dry_run=dry_run, progress=progress
        )
    examples = pool.examples()
    inside = examples if within is None else examples.filter(pl.col("domain") == within)
    fitted = inside.filter((pl.col("split") == "train") & (pl.col("origin") == "source"))
    if fitted.is_empty():
        where = "" if within is None else f" of domain {within!r} (there are: {', '.join(pool.coverage()['domain'])})"
        raise PoolError(f"{pool.path}: no train examples{where} to find domains in")
    found = clusters.discover(
        fitted["prompt"].to_list(),
        vectors.of(fitted["prompt"].to_list(), progress=progress),
        ids=fitted["example_id"].to_list(),
        k=k,
        min_rows=min_rows,
        seed=seed,
    )
    domains = _apart(found.domains, within=within)
    detail = {
        "method": "clusters of vectors, named by class-based TF-IDF",
        "encoder": vectors.encoder.name,
        "within": within,
        "k": domains.height,
        "min_rows": min_rows,
        "seed": seed,
        "fitted_on": fitted.height,
        "domains": domains.to_dicts(),
        "dim": found.centres.shape[1],
        "centres": base64.b64encode(found.centres.astype("<f4").tobytes()).decode(),
    }
    labels = _labels(examples, vectors, detail, progress=progress)
    version = pool.version if dry_run else pool.set_domains(domain_set, labels, detail=detail)
    return Discovery(version, domains, found.candidates, inside.height)


def _extended(
    pool: Pool,
    vectors: Vectors,
    name: str,
    detail: Any,
    *,
    within: str | None,
    dry_run: bool,
    progress: Callable[[int, int], None] | None,
) -> Discovery:
    if not isinstance(detail, dict) or "centres" not in detail:
        raise PoolError(
            f"{pool.path}: the domains {name} were made by hand; discover them again (again, --again), or under "
            "another name"
        )
    if (detail.get("encoder"), detail.get("within")) != (vectors.encoder.name, within):
        raise PoolError(
            f"{pool.path}: the domains {name} were made by {detail['encoder']} within "
            f"{detail.get('within') or 'all'}, not by {vectors.encoder.name} within {within or 'all'}; discover them "
            "again (again, --again), or under another name"
        )
    new = pl.Series("example_id", pool.at(pool.version).without_domain(name), dtype=pl.String)
    examples = pool.examples().filter(pl.col("example_id").is_in(new.implode()))
    labels = _labels(examples, vectors, detail, progress=progress)
    version = pool.version if dry_run else pool.set_domains(name, labels, detail=detail)
    candidates = pl.DataFrame(schema={"k": pl.Int64, "silhouette": pl.Float64, "suggested": pl.Boolean})
    return Discovery(version, pl.DataFrame(detail["domains"]), candidates, labels.height)


def _labels(
    examples: pl.DataFrame, vectors: Vectors, detail: dict[str, Any], *, progress: Callable[[int, int], None] | None
) -> pl.DataFrame:
    """The domain of each example: the nearest centre's, or its own where it lies outside of what was clustered."""
    within, names = detail["within"], [row["domain"] for row in detail["domains"]]
    centres = np.frombuffer(base64.b64decode(detail["centres"]), dtype="<f4").reshape(-1, detail["dim"])
    inside = examples if within is None else examples.filter(pl.col("domain") == within)
    near = clusters.assign(vectors.of(inside["prompt"].to_list(), progress=progress), centres, names)
    given = inside.select("example_id", domain=pl.Series(near, dtype=pl.String))
    others = examples.join(given, on="example_id", how="anti").select("example_id", "domain")
    return pl.concat([given, others]).sort("example_id")


def _apart(domains: pl.DataFrame, *, within: str | None) -> pl.DataFrame:
    """Inside one domain the new names begin with its name, so that they are no other domain's."""
    named: Sequence[pl.Expr] = (
        [] if within is None else [pl.format("{} / {}", pl.lit(within), "domain").alias("domain")]
    )
    return domains.with_columns(*named)
