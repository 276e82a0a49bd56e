"""Interleaved timings, the memory of a process of its own, and Markdown tables, for the benchmarks."""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

Times = dict[str, list[float]]
Ways = Mapping[str, Callable[[], float]]


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call, from an empty write queue."""
    gc.collect()
    os.sync()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def interleaved(rounds: int, ways: Ways) -> Times:
    """The seconds that each way says it took, all of them in turn; each from an empty write queue."""
    found: Times = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(way())
    return found


def in_child(work: Callable[..., Any], *arguments: Any) -> tuple[Any, float, float]:
    """What `work` gives in a fresh process, and the MiB of that process before and at its peak."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as child:
        value, before, peak = child.submit(_measured, work, *arguments).result()
    return value, before, peak


def _measured(work: Callable[..., Any], *arguments: Any) -> tuple[Any, float, float]:
    before = peak_mib()
    value = work(*arguments)
    return value, before, peak_mib()


def peak_mib() -> float:
    """The most memory that this process ever had, resident. (`ru_maxrss` would begin with that of its parent.)"""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def table(title: str, header: str, rows: list[list[object]]) -> str:
    """A Markdown table; `header` has its columns apart by ` | `."""
    names = header.split(" | ")
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join([f"\n{title}\n", *("| " + " | ".join(map(str, line)) + " |" for line in lines)])


def told(name: str, times: list[float], *more: object) -> list[object]:
    """A line of a table: the name, the median, more columns, then all rounds in their order."""
    return [name, median(times), *more, " ".join(map(digits, times))]


def compared(times: list[float], others: list[float]) -> tuple[str, str]:
    """How many times the first is the second, round by round: the median, and all rounds."""
    found = [a / b for a, b in zip(times, others, strict=True)]
    return median(found), " ".join(map(digits, found))


def median(times: list[float]) -> str:
    """The median as `digits` writes it."""
    return digits(statistics.median(times))


def digits(value: float) -> str:
    """Three significant digits, and all of those before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"
