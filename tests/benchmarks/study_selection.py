"""How well each method's choice stands for MATH: objective and coverage beside random, over seeds.

    python tests/benchmarks/study_selection.py [--rows N] [--share S] [--seeds N] [--steps N]

prints the table of docs/benchmarks.md, "Methods of choosing". Real MiniLM vectors of up to N train problems of every
domain of BALKIT_REAL_DATA (those with the lowest ids, which are digests; 0: all), a tenth of them chosen. Scores are by
the reference, of a student of two layers that trained for `--steps` steps on a stage of the shipped recipe.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import real_input as real
from measuring import table

from balkit import recipe, scoring, selection
from balkit.basis import Basis
from balkit.pool import Pool
from balkit.stages import run
from balkit.vectors import SentenceTransformers, Vectors

Rows = list[int]


def examples(pool: Pool, plan: recipe.Recipe, *, rows: int) -> pl.DataFrame:
    """The real train EXAMPLES, up to `rows` a domain."""
    every = Basis.of(pool, plan).real.sort("domain", "example_id")
    return every.filter(pl.int_range(pl.len()).over("domain") < (rows or every.height))


def scored(pool: Pool, plan: recipe.Recipe, asked: pl.DataFrame) -> pl.DataFrame:
    """SCORES of a student that was trained on one stage."""
    done = run(pool, plan)
    (stage,) = done.stages
    assert stage.checkpoint is not None
    return scoring.score(stage.checkpoint, asked, recipe=plan)


def line(
    method: str, parts: list[tuple[np.ndarray, np.ndarray]], choose: Callable[[int, int], Rows], seeds: int
) -> list[object]:
    """A row of the table: means over domains, and the least and the most of the seeds."""
    told = []
    for seed in range(seeds):
        each = []
        for number, (vectors, quality) in enumerate(parts):
            rows = choose(number, seed)
            spread = selection.spread(vectors[rows], vectors)
            each.append((spread.mean_similarity, spread.radius, quality[rows].mean()))
        told.append(np.mean(each, axis=0))
    cells = []
    for values in np.transpose(told):
        low, high = values.min(), values.max()
        cells.append(f"{values.mean():.4f}" + (f" ({low:.4f} to {high:.4f})" if high - low > 5e-5 else ""))
    return [f"`{method}`", *cells]


def study(asked: pl.DataFrame, vectors: np.ndarray, scores: pl.DataFrame, *, share: float, seeds: int) -> str:
    """All methods, domain by domain."""
    frames, parts, evidence = [], [], []
    for domain in asked["domain"].unique(maintain_order=True):
        here = asked.filter(pl.col("domain") == domain).select("example_id", "domain")
        rows = np.flatnonzero((asked["domain"] == domain).to_numpy())
        named = {
            name: here.join(scores.filter(pl.col("name") == name), on="example_id", how="left", maintain_order="left")
            for name in ("ifd", "loss", "entropy")
        }
        values = {name: found["value"].fill_null(float("nan")).to_numpy() for name, found in named.items()}
        order = np.argsort(np.argsort(np.nan_to_num(values["ifd"], nan=-1)))
        frames.append(here)
        parts.append((vectors[rows], (order + 1) / len(order)))
        evidence.append(values)

    def chooser(method: recipe.Method) -> Callable[[int, int], Rows]:
        def choose(number: int, seed: int) -> Rows:
            name = selection.needs_scores(method)
            known = selection.Evidence(
                vectors=parts[number][0], scores=evidence[number][name] if name else None, max_ifd=float("inf")
            )
            quota = max(1, round(share * frames[number].height))
            found = selection.select(frames[number], quota=quota, method=method, evidence=known, seed=seed)
            kept = set(found.filter("kept")["example_id"])
            return [row for row, example in enumerate(frames[number]["example_id"]) if example in kept]

        return choose

    body = [line(method, parts, chooser(method), seeds) for method in get_args(recipe.Method)]
    title = f"MATH, {asked.height:,} problems of {len(parts)} domains, {share:.0%} of each chosen, {seeds} seeds"
    return table(title, "method | objective (mean similarity) | radius | mean rank by IFD, 0-1", body)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=250)
    arguments.add_argument("--share", type=float, default=0.1)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--steps", type=int, default=30)
    given = arguments.parse_args()
    if reason := real.missing():
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as folder:
        pool = real.loader("math").load(Path(folder, "math"), real.DATA)
        train = real.CUT["train"] | {"max_steps": given.steps}
        plan = real.cut("math", pool=pool.path, stages=1, budget_rows=420, train=train)
        asked = examples(pool, plan, rows=given.rows)
        vectors = Vectors(pool.path / "vectors", SentenceTransformers(real.encoder_folder())).of(
            asked["prompt"].to_list()
        )
        print(study(asked, vectors, scored(pool, plan, asked), share=given.share, seeds=given.seeds))


if __name__ == "__main__":
    main()
