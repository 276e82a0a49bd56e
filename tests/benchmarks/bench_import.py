"""Import time of `balkit` and `balkit.cli` over a bare interpreter. Target: at most 0.5 s each.

    python tests/benchmarks/bench_import.py [rounds]

Each round starts one fresh interpreter for each line, in turn, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

LINES = {"bare interpreter": "pass", "import balkit": "import balkit", "import balkit.cli": "import balkit.cli"}


def seconds(code: str) -> float:
    """Wall time of a fresh interpreter that runs the code."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - started


def main(rounds: int) -> None:
    """Print the median of each line and how far it lies over the bare interpreter."""
    for code in LINES.values():
        seconds(code)  # compiles the bytecode
    found: dict[str, list[float]] = {name: [] for name in LINES}
    for _ in range(rounds):
        for name, code in LINES.items():
            found[name].append(seconds(code))
    bare = statistics.median(found["bare interpreter"])
    print(f"median of {rounds} interleaved runs, Python {sys.version.split()[0]}")
    for name, times in found.items():
        median = statistics.median(times)
        print(f"{name:18}  {median:.3f} s  (+{median - bare:.3f} s)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
