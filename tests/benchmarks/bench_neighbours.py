"""Ten neighbours of every row among all rows: `balkit.vectors.neighbours` against faiss and usearch, index included.

    python tests/benchmarks/bench_neighbours.py [--rows N ...] [--vectors FILE.npy] [--rounds R] [--threads T]

Clustered vectors of 384 dimensions, or those of a file. balkit's time holds its checks: finite vectors, the search for
how far to look, and the recall measured on other queries. A peer's setting is the cheapest that reaches recall@10 of
0.98, found before; its time is that of building and searching. All in turn, as many threads each. What is not installed
(`pip install faiss-cpu usearch`) is skipped.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_THREADS = sys.argv[sys.argv.index("--threads") + 1] if "--threads" in sys.argv else "2"
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = _THREADS

import numpy as np  # noqa: E402
from measuring import compared, median, table  # noqa: E402

from balkit.vectors import neighbours  # noqa: E402

K, RECALL = 10, 0.98
Way = Callable[[np.ndarray], np.ndarray]


def clustered(n: int, *, d: int = 384) -> np.ndarray:
    """(n, d) float32 unit vectors, fifty to a cluster."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(max(1, n // 50), d))[rng.integers(0, max(1, n // 50), n)] + rng.normal(size=(n, d))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def installed(name: str) -> Any | None:
    """A peer, or None with a word about it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        print(f"{name} is not installed: skipped")
        return None


def faiss_ways(faiss: Any) -> dict[str, list[Way]]:
    """Flat; IVF and HNSW from quick to thorough."""
    faiss.omp_set_num_threads(int(_THREADS))

    def flat(rows: np.ndarray) -> np.ndarray:
        index = faiss.IndexFlatIP(rows.shape[1])
        index.add(rows)
        return index.search(rows, K)[1]

    def ivf(probes: int) -> Way:
        def way(rows: np.ndarray) -> np.ndarray:
            lists = int(len(rows) ** 0.5)
            coarse = faiss.IndexFlatIP(rows.shape[1])
            index = faiss.IndexIVFFlat(coarse, rows.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
            index.train(rows)
            index.add(rows)
            index.nprobe = probes
            return index.search(rows, K)[1]

        return way

    def hnsw(ef: int) -> Way:
        def way(rows: np.ndarray) -> np.ndarray:
            index = faiss.IndexHNSWFlat(rows.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction, index.hnsw.efSearch = ef, ef
            index.add(rows)
            return index.search(rows, K)[1]

        return way

    return {
        "faiss Flat": [flat],
        "faiss IVF": [ivf(probes) for probes in (1, 2, 4, 8, 16, 24, 32)],
        "faiss HNSW": [hnsw(ef) for ef in (40, 100)],
    }


def usearch_ways(usearch: Any) -> dict[str, list[Way]]:
    """Its graph, in float32, from quick to thorough."""

    def graph(ef: int) -> Way:
        def way(rows: np.ndarray) -> np.ndarray:
            index = usearch.Index(ndim=rows.shape[1], metric="ip", dtype="f32", expansion_add=ef, expansion_search=ef)
            index.add(np.arange(len(rows)), rows, threads=int(_THREADS))
            return np.asarray(index.search(rows, K, threads=int(_THREADS)).keys).astype(np.int64)

        return way

    return {"usearch": [graph(ef) for ef in (64, 128)]}


def recall(rows: np.ndarray, found: np.ndarray) -> float:
    """On 1,000 rows: the share of neighbours as near as the exact ones."""
    tried = np.random.default_rng(1).permutation(len(rows))[:1000]
    least = np.partition(rows[tried] @ rows.T, len(rows) - K, axis=1)[:, len(rows) - K]
    near = np.einsum("nd,nkd->nk", rows[tried], rows[found[tried]])
    return float(np.mean(near >= least[:, None] - 1e-5))


def cheapest(ways: list[Way], rows: np.ndarray, *, patience_s: float) -> tuple[Way, float]:
    """The first that reaches the recall, or the last one that was tried, with its recall."""
    for way in ways:
        started = time.perf_counter()
        reached = recall(rows, way(rows))
        if reached >= RECALL or time.perf_counter() - started > patience_s:
            break
    return way, reached


def compare(rows: np.ndarray, *, name: str, rounds: int, only: str) -> None:
    """Print a table for one set of vectors."""
    said: dict[str, str] = {}

    def balkit(rows: np.ndarray) -> np.ndarray:
        found = neighbours(rows, among=rows, k=K)
        said["balkit"] = f"{found.method}, recall said to be {found.recall:.3f}"
        return found.indices

    ways = {"balkit": [balkit]}
    faiss, usearch = installed("faiss"), installed("usearch.index")
    if faiss is not None:
        ways |= faiss_ways(faiss)
        if len(rows) > 50_000:
            del ways["faiss Flat"]
    if usearch is not None:
        ways |= usearch_ways(usearch)
    ways = {each: choices for each, choices in ways.items() if each == "balkit" or each in (only or each).split(",")}
    chosen = {each: cheapest(choices, rows, patience_s=60) for each, choices in ways.items()}
    wall: dict[str, list[float]] = {each: [] for each in chosen}
    cpu: dict[str, list[float]] = {each: [] for each in chosen}
    for _ in range(rounds):
        for each, (way, _) in chosen.items():
            started, used = time.perf_counter(), time.process_time()
            way(rows)
            wall[each].append(time.perf_counter() - started)
            cpu[each].append(time.process_time() - used)
    lines: list[list[object]] = [
        [
            each,
            f"{reached:.3f}",
            median(wall[each]),
            compared(wall[each], wall["balkit"])[0],
            median(cpu[each]),
            compared(cpu[each], cpu["balkit"])[0],
            said.get(each, ""),
        ]
        for each, (_, reached) in chosen.items()
    ]
    header = "what | recall@10 | wall, s | to balkit's | CPU, s | to balkit's | "
    print(table(f"{name}: {len(rows):,} rows, {rows.shape[1]} dimensions, {rounds} rounds.", header, lines), flush=True)


def main() -> None:
    """Print a table for every size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000])
    parser.add_argument("--vectors", type=Path, help="a .npy file of unit vectors, float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", default="2")
    parser.add_argument("--only", default="", help="peers, apart by commas: faiss Flat, faiss IVF, faiss HNSW, usearch")
    options = parser.parse_args()
    print(f"{_THREADS} threads, load {os.getloadavg()[0]:.1f}, numpy {np.__version__}")
    if options.vectors:
        compare(np.load(options.vectors), name=options.vectors.name, rounds=options.rounds, only=options.only)
    for n in options.rows:
        compare(clustered(n), name="clustered", rounds=options.rounds, only=options.only)


if __name__ == "__main__":
    main()
