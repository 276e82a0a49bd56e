"""Where hnswlib begins to win: ten neighbours of every row among all rows, exact against the index, built and loaded.

    python tests/benchmarks/bench_neighbours.py [rows ...]

Clustered vectors of 384 dimensions. The index is built on one thread, exact search uses all of them.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from balkit.vectors import Neighbours, neighbours


def clustered(n: int, *, d: int = 384) -> np.ndarray:
    """(n, d) float32 unit vectors, fifty to a cluster."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(max(1, n // 50), d))[rng.integers(0, max(1, n // 50), n)] + rng.normal(size=(n, d))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def timed(run: Callable[[], Neighbours]) -> tuple[float, Neighbours]:
    started = time.perf_counter()
    found = run()
    return time.perf_counter() - started, found


def main(sizes: list[int]) -> None:
    """Print seconds of each and the share of exact neighbours that the index finds."""
    print("rows     exact   built  loaded  recall@10")
    for n in sizes:
        rows = clustered(n)
        exact_s, exact = timed(lambda rows=rows: neighbours(rows, among=rows, k=10, exact_below=len(rows) + 1))
        with tempfile.TemporaryDirectory() as folder:
            cache = Path(folder)
            built_s, _ = timed(
                lambda rows=rows, cache=cache: neighbours(rows, among=rows, k=10, exact_below=1, cache=cache)
            )
            loaded_s, near = timed(
                lambda rows=rows, cache=cache: neighbours(rows, among=rows, k=10, exact_below=1, cache=cache)
            )
        shared = sum(len(set(a) & set(b)) for a, b in zip(exact.indices.tolist(), near.indices.tolist(), strict=True))
        print(f"{n:6}  {exact_s:6.2f}  {built_s:6.2f}  {loaded_s:6.2f}  {shared / exact.indices.size:.3f}", flush=True)


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [2_000, 5_000, 10_000, 20_000])
