"""Semantic duplicates from vectors: `balkit.duplicates.semantic` against semhash, whose index is part of its time.

    python tests/benchmarks/bench_duplicates.py [--rows N ...] [--vectors FILE.npy] [--rounds R] [--threads T]

Clustered vectors of 384 dimensions, or those of a file, of which a tenth are others with noise, at a cosine of about
0.95; the threshold
is 0.9. Recall: of all pairs from the threshold on, by comparing all, the share of which not both rows are kept. Both
in turn, as many threads each. Where semhash is not installed (`pip install semhash`) it is skipped.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

_THREADS = sys.argv[sys.argv.index("--threads") + 1] if "--threads" in sys.argv else "2"
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = _THREADS

import numpy as np  # noqa: E402
from bench_neighbours import clustered  # noqa: E402
from measuring import compared, median, table  # noqa: E402

from balkit.duplicates import semantic  # noqa: E402

THRESHOLD = 0.9
Way = Callable[[np.ndarray], np.ndarray]


def with_copies(rows: np.ndarray) -> np.ndarray:
    """The last tenth of the rows replaced by others with noise."""
    rng, rows = np.random.default_rng(2), rows.copy()
    count, (_, d) = len(rows) // 10, rows.shape
    copied = rows[rng.integers(0, len(rows) - count, count)]
    rows[-count:] = copied + rng.normal(scale=0.33 / d**0.5, size=copied.shape)
    rows = rows[rng.permutation(len(rows))]
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def balkit(rows: np.ndarray) -> np.ndarray:
    """Which rows are kept."""
    return np.flatnonzero(semantic(rows, threshold=THRESHOLD).kept)


def peer() -> Way | None:
    """semhash, as its documentation has it for vectors that are there."""
    try:
        from semhash import SemHash
    except ModuleNotFoundError:
        print("semhash is not installed: skipped")
        return None

    def way(rows: np.ndarray) -> np.ndarray:
        made = SemHash.from_embeddings(rows, [str(row) for row in range(len(rows))], model=None)
        return np.array([int(row) for row in made.self_deduplicate(threshold=THRESHOLD).selected])

    return way


def pairs(rows: np.ndarray) -> np.ndarray:
    """`(pairs, 2)`: all rows that are close enough, each pair once."""
    found = []
    for start in range(0, len(rows), 1024):
        row, column = np.nonzero(rows[start : start + 1024] @ rows.T >= THRESHOLD)
        found.append(np.stack([row + start, column], axis=1)[row + start < column])
    return np.concatenate(found)


def compare(rows: np.ndarray, *, name: str, rounds: int) -> None:
    """Print a table for one set of vectors."""
    ways: dict[str, Way] = {"balkit": balkit}
    if (semhash := peer()) is not None:
        ways["semhash"] = semhash
    close = pairs(rows)
    wall: dict[str, list[float]] = {each: [] for each in ways}
    cpu: dict[str, list[float]] = {each: [] for each in ways}
    said: dict[str, list[object]] = {}
    for _ in range(rounds):
        for each, way in ways.items():
            started, used = time.perf_counter(), time.process_time()
            kept = way(rows)
            wall[each].append(time.perf_counter() - started)
            cpu[each].append(time.process_time() - used)
            inside = np.isin(close, kept).all(axis=1)
            said[each] = [len(rows) - len(kept), f"{1 - inside.mean():.4f}"]
    lines = [
        [
            each,
            *said[each],
            median(wall[each]),
            compared(wall[each], wall["balkit"])[0],
            median(cpu[each]),
            compared(cpu[each], cpu["balkit"])[0],
        ]
        for each in ways
    ]
    header = "what | dropped | recall | wall, s | to balkit's | CPU, s | to balkit's"
    title = f"{name}: {len(rows):,} rows, {rows.shape[1]} dimensions, {len(close):,} close pairs, {rounds} rounds."
    print(table(title, header, lines), flush=True)


def main() -> None:
    """Print a table for every size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000])
    parser.add_argument("--vectors", type=Path, help="a .npy file of unit vectors, float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", default="2")
    options = parser.parse_args()
    print(f"{_THREADS} threads, load {os.getloadavg()[0]:.1f}, numpy {np.__version__}")
    if options.vectors:
        compare(with_copies(np.load(options.vectors)), name=options.vectors.name, rounds=options.rounds)
    for n in options.rows:
        compare(with_copies(clustered(n)), name="clustered", rounds=options.rounds)


if __name__ == "__main__":
    main()
