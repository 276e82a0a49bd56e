"""One greedy facility location in a process of its own, for `bench_selection.py`; prints one line of JSON.

    python facility_peers.py NAME VECTORS.npy ROWS PICKS

The peers need numpy and themselves alone, so that they run in an environment without balkit. They get the matrix of
similarities ready made, outside of the clock; balkit makes its own from the vectors, inside of it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

NEIGHBOURS = 100
_GROUP = 5_000  # rows among which the sparse peer's neighbours are looked for

Pick = Callable[[], list[int]]


def kernel(vectors: np.ndarray) -> np.ndarray:
    """(n, n) float32: max(cosine, 0)."""
    return np.asarray(np.maximum(vectors @ vectors.T, 0))


def plain(vectors: np.ndarray, picks: int) -> Pick:
    similarities = kernel(vectors)

    def pick() -> list[int]:
        covered = np.zeros(len(vectors), dtype=np.float32)
        rows: list[int] = []
        for _ in range(picks):
            gains = np.maximum(similarities, covered).sum(axis=1)
            gains[rows] = -1
            rows.append(int(gains.argmax()))
            covered = np.maximum(covered, similarities[rows[-1]])
        return rows

    return pick


def balkit(vectors: np.ndarray, picks: int) -> Pick:
    import polars as pl

    from balkit.selection import Evidence, select

    frame = pl.DataFrame({"example_id": [f"{row}" for row in range(len(vectors))]}).with_columns(domain=pl.lit("one"))

    def pick() -> list[int]:
        evidence = Evidence(vectors=vectors)
        ranked = select(frame, quota=picks, method="facility_location", evidence=evidence, seed=0)
        return [int(row) for row in ranked["example_id"].head(picks)]

    return pick


def submodlib(vectors: np.ndarray, picks: int) -> Pick:
    from submodlib import FacilityLocationFunction

    return _maximised(FacilityLocationFunction, len(vectors), picks, mode="dense", sijs=kernel(vectors))


def submodlib_sparse(vectors: np.ndarray, picks: int) -> Pick:
    import scipy.sparse
    from submodlib import FacilityLocationFunction

    parts = []
    for start in range(0, len(vectors), _GROUP):
        near = kernel(vectors[start : start + _GROUP])
        columns = np.argpartition(-near, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
        parts.append((np.take_along_axis(near, columns, axis=1).ravel(), columns.ravel() + start))
    data, columns = (np.concatenate([part[which] for part in parts]) for which in (0, 1))
    ends = np.arange(0, len(data) + 1, NEIGHBOURS)
    graph = scipy.sparse.csr_matrix((data, columns, ends), shape=(len(vectors), len(vectors)))
    given = {"mode": "sparse", "sijs": graph, "num_neighbors": NEIGHBOURS}
    return _maximised(FacilityLocationFunction, len(vectors), picks, **given)


def _maximised(make: Any, n: int, picks: int, **given: Any) -> Pick:
    def pick() -> list[int]:
        separate = {} if given["mode"] == "sparse" else {"separate_rep": False}
        objective = make(n=n, **separate, **given)
        print(json.dumps({"peak_mib": peak_mib()}), flush=True)  # in case that the rest takes too long
        quiet = {"stopIfZeroGain": False, "stopIfNegativeGain": False, "verbose": False, "show_progress": False}
        return [row for row, _ in objective.maximize(budget=picks, optimizer="LazyGreedy", **quiet)]

    return pick


def apricot(vectors: np.ndarray, picks: int) -> Pick:
    from apricot import FacilityLocationSelection

    similarities = kernel(vectors).astype(np.float64)
    chooser = FacilityLocationSelection(picks, metric="precomputed", optimizer="lazy")
    small = FacilityLocationSelection(2, metric="precomputed", optimizer="lazy")
    small.fit(similarities[:50, :50])  # numba compiles on first use
    return lambda: [int(row) for row in chooser.fit(similarities).ranking]


NAMES: dict[str, Callable[[np.ndarray, int], Pick]] = {
    "balkit": balkit,
    "plain numpy": plain,
    "submodlib": submodlib,
    "submodlib sparse": submodlib_sparse,
    "apricot": apricot,
}


def peak_mib() -> float:
    """The most memory that this process ever had, resident. (`ru_maxrss` would begin with that of its parent.)"""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main(name: str, file: str, rows: str, picks: str) -> None:
    """Pick, and say which rows, in what time and memory."""
    pick = NAMES[name](np.load(file)[: int(rows)], int(picks))
    started, cpu = time.perf_counter(), time.process_time()
    chosen = pick()
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "cpu_s": cpu_s, "peak_mib": peak_mib(), "rows": chosen}))


if __name__ == "__main__":
    main(*sys.argv[1:])
