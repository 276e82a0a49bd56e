"""The quickstart's two arms over several seeds: equal rows, paired differences, 95 % t-intervals over seeds.

    python tests/benchmarks/study_quickstart.py [--seeds 0 1 2] [--out FOLDER]

A seed changes what is drawn, what the teacher is asked with, and the student's first weights. Resumes by itself.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path

import polars as pl

from balkit.quickstart import ARMS, BALANCED, OVERALL, quickstart
from balkit.report import table

#: Two-sided 95 % quantiles of Student's t by degrees of freedom.
_T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("build/study_quickstart"))
    options = parser.parse_args()
    reports = {}
    for seed in options.seeds:
        reports[seed] = quickstart(options.out / f"seed{seed}", seed=seed, say=lambda text: None)
        arms = reports[seed]["arms"]
        shown = ", ".join(f"{arm} {100 * arms[arm]['macro_accuracy']:.1f}" for arm in ARMS)
        seconds, peak = reports[seed]["wall_seconds"], reports[seed]["peak_rss_mib"]
        print(f"seed {seed}: macro {shown}; {seconds:.0f} s, {peak:.0f} MiB", flush=True)
    print(table(summary(reports)))
    (options.out / "study.json").write_text(json.dumps(reports, indent=1), encoding="utf-8")


def summary(reports: dict[int, dict[str, object]]) -> pl.DataFrame:
    """Means over seeds in percent, and the paired difference of the balanced arm with its interval."""
    rows = []
    for name in OVERALL:
        values = {
            arm: [100 * report["arms"][arm][f"{name}_accuracy"] for report in reports.values()]  # type: ignore[index]
            for arm in ARMS
        }
        baseline = next(arm for arm in ARMS if arm != BALANCED)
        gains = [ours - theirs for ours, theirs in zip(values[BALANCED], values[baseline], strict=True)]
        row: dict[str, object] = {"accuracy %": name} | {arm: statistics.mean(found) for arm, found in values.items()}
        rows.append(row | {"difference": statistics.mean(gains), "95 % interval": _interval(gains)})
    return pl.DataFrame(rows)


def _interval(values: list[float]) -> str:
    if len(values) < 2:
        return "-"
    half = _T95.get(len(values) - 1, 2.0) * statistics.stdev(values) / math.sqrt(len(values))
    middle = statistics.mean(values)
    return f"{middle - half:+.1f} to {middle + half:+.1f}"


if __name__ == "__main__":
    main()
