"""Facility location: `selection.select` against submodlib, apricot and plain numpy, every run a process of its own.

    python tests/benchmarks/bench_selection.py [rounds] [--peers PYTHON] [--many ROWS] [--limit SECONDS]

3,000 candidates, 150 of them chosen, the same similarities for all, the peers one after the other in every round, so
that a busy machine slows all alike. balkit also makes the similarities and ranks 2 * 150 + 64 rows. `--peers` is the
interpreter of an environment with `pip install submodlib-py apricot-select`; a peer that is not there is skipped.
`--many` adds so many candidates, 1 % of them chosen, with submodlib's sparse mode beside it for `--limit` seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from measuring import compared, digits, interleaved, median, table, told

from balkit.selection import facility, on_grid

WORKER = Path(__file__).with_name("facility_peers.py")
ROOT = Path(__file__).resolve().parents[2]
PEERS = ("submodlib", "apricot")


def clustered(n: int, *, d: int = 384, clusters: int = 40) -> np.ndarray:
    """(n, d) float32 unit vectors around `clusters` centres."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(clusters, d))[rng.integers(0, clusters, n)] + rng.normal(size=(n, d))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def ran(name: str, file: Path, rows: int, picks: int, *, python: str, limit: float | None = None) -> dict[str, Any]:
    """What a process said of its run; without `seconds` where it was stopped at `limit`."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [python if name.startswith(PEERS) else sys.executable, str(WORKER), name, str(file), str(rows)]
    try:
        done = subprocess.run(
            [*command, str(picks)],
            env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=limit,
            check=True,
        )
    except subprocess.TimeoutExpired as stopped:
        said = (stopped.stdout or b"").decode()
    else:
        said = done.stdout
    lines = [line for line in said.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else {}  # type: ignore[no-any-return]


def there(peer: str, *, python: str) -> bool:
    """Whether the interpreter has a peer."""
    done = subprocess.run([python, "-c", f"import {peer}"], capture_output=True, check=False)
    return done.returncode == 0


def objective(vectors: np.ndarray, rows: list[int]) -> float:
    """The mean over all rows of max(cosine, 0) to the nearest chosen one."""
    nearest = [(vectors[at : at + 1000] @ vectors[rows].T).max(axis=1) for at in range(0, len(vectors), 1000)]
    return float(np.maximum(np.concatenate(nearest), 0).mean(dtype=np.float64))


def dense(rounds: int, n: int, picks: int, *, python: str, folder: Path) -> str:
    """All of a kind on one matrix."""
    names = ["balkit", "plain numpy", *(peer for peer in PEERS if there(peer, python=python))]
    for peer in set(PEERS) - set(names):
        print(f"{peer} is not installed for {python}: skipped")
    vectors = as_rounded(clustered(n))
    file = folder / "dense.npy"
    np.save(file, vectors)
    said: dict[str, dict[str, Any]] = {}
    cpu: dict[str, list[float]] = {name: [] for name in names}

    def way(name: str) -> float:
        said[name] = ran(name, file, n, picks, python=python)
        cpu[name].append(float(said[name]["cpu_s"]))
        return float(said[name]["seconds"])

    times = interleaved(rounds, {name: lambda name=name: way(name) for name in names})  # type: ignore[misc]
    body = []
    for name, seconds in times.items():
        ratios = [compared(seconds, times["balkit"])[0], median(cpu[name]), compared(cpu[name], cpu["balkit"])[0]]
        worth, peak = f"{objective(vectors, said[name]['rows']):.6f}", digits(said[name]["peak_mib"])
        body.append(told(name, seconds, *ratios, worth, peak))
    title = f"{n:,} candidates, {picks} chosen, {rounds} rounds, numpy {np.__version__}"
    columns = "who | s, median | times balkit's | CPU s | times balkit's | objective | peak MiB | all rounds, s"
    return table(title, columns, body)


def many(n: int, *, python: str, limit: float, folder: Path) -> str:
    """As many as are taken in parts, beside what keeps the nearest neighbours of each."""
    vectors = as_rounded(clustered(n, clusters=400))
    file = folder / "many.npy"
    np.save(file, vectors)
    picks = n // 100
    body = []
    for name in ("balkit", "submodlib sparse"):
        if name == "submodlib sparse" and not there("submodlib", python=python):
            print(f"submodlib is not installed for {python}: skipped")
            continue
        found = ran(name, file, n, picks, python=python, limit=limit if name != "balkit" else None)
        worth = f"{objective(vectors, found['rows']):.6f}" if "rows" in found else ""
        seconds = median([found["seconds"]]) if "seconds" in found else f"stopped after {limit:g}"
        body.append([name, seconds, worth, digits(found["peak_mib"]) if found else ""])
    chance = np.random.default_rng(0).choice(n, picks, replace=False).tolist()
    body.append(["random", "", f"{objective(vectors, chance):.6f}", ""])
    return table(f"{n:,} candidates, {picks:,} chosen, one run", "who | s | objective | peak MiB", body)


def in_parts(n: int, picks: int, *, rows_at_once: int) -> str:
    """What taking rows in parts costs in coverage, where all at once can be had too."""
    body = []
    for clusters in (40, 400):
        vectors = as_rounded(clustered(n, clusters=clusters))
        grid = on_grid(vectors, name="vectors")
        depth = 2 * picks + 64
        found = [
            objective(vectors, facility.facility_location(grid, chosen=grid[:0], depth=depth, **how).rows[:picks])
            for how in ({}, {"rows_at_once": rows_at_once})
        ]
        body.append([clusters, f"{found[0]:.6f}", f"{found[1]:.6f}", f"{found[1] / found[0]:.4f}"])
    title = f"{n:,} candidates, {picks} chosen: all at once, and in parts of {rows_at_once:,} rows"
    return table(title, "clusters | at once | in parts | share", body)


def as_rounded(vectors: np.ndarray) -> np.ndarray:
    """The vectors as balkit rounds them, so that all have the same similarities."""
    return np.asarray(on_grid(vectors, name="vectors") / np.float32(2048))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("rounds", type=int, nargs="?", default=5)
    arguments.add_argument("--peers", default=sys.executable, metavar="PYTHON")
    arguments.add_argument("--many", type=int, metavar="ROWS")
    arguments.add_argument("--limit", type=float, default=600, metavar="SECONDS")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(dense(given.rounds, 3000, 150, python=given.peers, folder=Path(folder)), flush=True)
        print(in_parts(6000, 60, rows_at_once=1500), flush=True)
        if given.many:
            print(many(given.many, python=given.peers, limit=given.limit, folder=Path(folder)))


if __name__ == "__main__":
    main()
