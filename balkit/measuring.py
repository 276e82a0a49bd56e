"""What the rows of a run stand for: coverage of the pool, diversity, drift of lengths, by domain and stage.

Pure, and the same for any order of the rows. Numbers of few rows and of many do not compare; see `diversity`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from balkit import diversity, frames, selection

Encode = Callable[[Sequence[str]], np.ndarray]

#: Real examples of a domain that stand for all of them where there are more: those with the lowest ids, which are
#: digests, so that it is a random sample. The radius is then a lower bound.
POOL_SAMPLE = 2_000


def measures(
    rows: pl.DataFrame, *, real: pl.DataFrame, quotas: Mapping[str, int], stage: int, encode: Encode | None
) -> pl.DataFrame:
    """MEASURES of a stage, a row for each domain of `quotas`.

    rows    SNAPSHOT_ROWS of the stage and those before it
    real    EXAMPLES that the run could choose from
    encode  gives unit vectors of prompts; without it, what needs vectors is null

    added are rows of this stage, rows of all stages so far; real (ones), synthetic and repeats add up to rows.
    share_of_pool is the part (0-1) of the domain's real examples that is among them. radius and mean_similarity say how
    near the real examples are to a prompt that was taken (`selection.spread`). distinct_3, neighbour_distance and vendi
    are of the prompts taken (`diversity`), real and synthetic apart; length_ratio and length_shift hold the characters
    of all prompts taken against those of the real examples (`diversity.length_drift`).
    """
    taken = rows.partition_by("domain", as_dict=True)
    every = real.sort("example_id").partition_by("domain", as_dict=True)
    none = rows.clear(), real.clear()
    return frames.MEASURES.of(
        [
            {"stage": stage, "domain": domain, "quota": quota}
            | _counts(taken.get((domain,), none[0]), pool=every.get((domain,), none[1]).height, stage=stage)
            | _measured(taken.get((domain,), none[0]), every.get((domain,), none[1]), encode=encode)
            for domain, quota in sorted(quotas.items())
        ]
    )


def overall(frame: pl.DataFrame) -> pl.DataFrame:
    """MEASURES of several stages as one row a stage, without domain: sums of rows, and means over the domains.

    Vendi scores are left out: effective numbers of rows do not average. `radius` is the largest of any domain.
    """
    means = [name for name in frames.MEASURES.nullable - {"quota", "share_of_pool", "radius"} if "vendi" not in name]
    used = (pl.col("share_of_pool") * pl.col("pool")).sum() / pl.col("pool").sum()
    return (
        frame.group_by("stage")
        .agg(
            pl.col("quota", "added", "rows", "real", "synthetic", "repeats", "pool").sum(),
            pl.when(pl.col("pool").sum() > 0).then(used).alias("share_of_pool"),
            pl.col("radius").max(),
            *(pl.col(name).mean() for name in frames.MEASURES.columns if name in means),
        )
        .sort("stage")
    )


def _counts(rows: pl.DataFrame, *, pool: int, stage: int) -> dict[str, Any]:
    first = rows.filter(pl.col("copy") == 0)
    real = first.filter(pl.col("origin") == "source")
    return {
        "added": rows.filter(pl.col("stage") == stage).height,
        "rows": rows.height,
        "real": real.height,
        "synthetic": first.height - real.height,
        "repeats": rows.height - first.height,
        "pool": pool,
        "share_of_pool": real["example_id"].n_unique() / pool if pool else None,
    }


def _measured(rows: pl.DataFrame, every: pl.DataFrame, *, encode: Encode | None) -> dict[str, Any]:
    once = rows.unique("example_id").sort("example_id")
    prompts = {
        origin: once.filter(pl.col("origin") == name)["prompt"].to_list()
        for origin, name in (("real", "source"), ("synthetic", "synthetic"))
    }
    pool = every["prompt"].head(POOL_SAMPLE).to_list()
    drift = diversity.length_drift([*prompts["real"], *prompts["synthetic"]], pool)
    found = {"length_ratio": drift.median_ratio, "length_shift": drift.standardised}
    found |= {f"distinct_3_{origin}": diversity.distinct_n(texts) for origin, texts in prompts.items()}
    if encode is not None:
        found |= _of_vectors({origin: encode(texts) for origin, texts in prompts.items() if texts}, pool, encode)
    return {name: None if math.isnan(value) else round(value, 6) for name, value in found.items()}


def _of_vectors(vectors: Mapping[str, np.ndarray], pool: Sequence[str], encode: Encode) -> dict[str, float]:
    found: dict[str, float] = {}
    for origin, rows in vectors.items():
        found |= {f"neighbour_distance_{origin}": diversity.mean_neighbour_distance(rows)}
        found |= {f"vendi_{origin}": diversity.vendi(rows)}
    if pool and vectors:
        spread = selection.spread(np.concatenate(list(vectors.values())), encode(pool))
        found |= {"radius": spread.radius, "mean_similarity": spread.mean_similarity}
    return found
