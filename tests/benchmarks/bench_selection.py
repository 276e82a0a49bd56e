"""Facility location: `selection.select` against greedy in plain numpy (the peer), which computes every gain anew.

    python tests/benchmarks/bench_selection.py [rounds] [candidates] [quota]

Each round runs both, in turn, so that a busy machine slows both alike. Both rank `2 * quota + 64` rows.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import polars as pl

from balkit.selection import Evidence, select


def plain_greedy(vectors: np.ndarray, depth: int) -> list[int]:
    """Greedy on the mean of max(cosine, 0), float32, one matrix of similarities."""
    similarities = np.maximum(vectors @ vectors.T, 0)
    covered = np.zeros(len(vectors), dtype=np.float32)
    rows: list[int] = []
    for _ in range(depth):
        gains = np.maximum(similarities, covered).sum(axis=1)
        gains[rows] = -1
        rows.append(int(gains.argmax()))
        covered = np.maximum(covered, similarities[rows[-1]])
    return rows


def clustered(n: int, *, d: int = 384, clusters: int = 40) -> np.ndarray:
    """(n, d) float32 unit vectors around `clusters` centres."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(clusters, d))[rng.integers(0, clusters, n)] + rng.normal(size=(n, d))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def main(rounds: int, n: int, quota: int) -> None:
    """Print the median of each and how far their chosen rows agree."""
    vectors = clustered(n)
    frame = pl.DataFrame({"example_id": [f"e{i}" for i in range(n)], "domain": ["one"] * n})
    depth = min(n, 2 * quota + 64)

    def ours() -> list[int]:
        evidence = Evidence(vectors=vectors)
        ranked = select(frame, quota=quota, method="facility_location", evidence=evidence, seed=0)
        return [int(example[1:]) for example in ranked["example_id"][:depth]]

    runs: dict[str, Callable[[], list[int]]] = {"plain numpy": lambda: plain_greedy(vectors, depth), "balkit": ours}
    rows = {name: run() for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    same = len(set(rows["balkit"][:quota]) & set(rows["plain numpy"][:quota]))
    print(f"n={n} quota={quota} depth={depth}, median of {rounds} interleaved runs, numpy {np.__version__}")
    for name, times in seconds.items():
        print(f"{name:12}  {statistics.median(times):.3f} s")
    print(f"the same rows: {same} of {quota} (balkit rounds a cosine to ~2e-4)")


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    main(*(given + [5, 3000, 150][len(given) :]))
