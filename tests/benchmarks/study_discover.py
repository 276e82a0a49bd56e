"""How well discovered domains meet real topics: R52 of BALKIT_REAL_DATA, balkit's clusters beside other methods.

    python tests/benchmarks/study_discover.py [--hashing] [--rows N] [--scale N]

prints the tables of docs/benchmarks.md, "Discovered domains". MiniLM takes minutes for all 5,200 texts; `--hashing`
uses the encoder without a model instead. `--scale N` measures seconds and memory on N made-up vectors, and no more.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from sklearn.cluster import HDBSCAN, AgglomerativeClustering, KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import real_input as real

from balkit.clusters import discover
from balkit.vectors import Hashing, SentenceTransformers, Vectors


def own_f1(topics: np.ndarray, found: np.ndarray, *, rows: range) -> float:
    """For topics with so many rows, the mean of the F1 of the one cluster that meets the topic best."""
    frame = pl.DataFrame({"topic": topics, "cluster": found})
    pairs = frame.group_by("topic", "cluster").len("both").join(frame.group_by("topic").len("t"), on="topic")
    pairs = pairs.join(frame.group_by("cluster").len("c"), on="cluster").filter(pl.col("t").is_in(list(rows)))
    best = pairs.with_columns(f1=2 * pl.col("both") / (pl.col("t") + pl.col("c"))).group_by("topic").agg(pl.max("f1"))
    return float(best["f1"].mean() or 0)


def report(name: str, topics: np.ndarray, found: np.ndarray) -> None:
    """One row of the table."""
    sizes = np.unique(found, return_counts=True)[1]
    numbers = [
        normalized_mutual_info_score(topics, found),
        adjusted_rand_score(topics, found),
        own_f1(topics, found, rows=range(10, 100)),
        own_f1(topics, found, rows=range(100, 10_000)),
        sizes.max() / sizes.sum(),
    ]
    print(f"| {name} | {len(sizes)} |", " | ".join(f"{number:.3f}" for number in numbers), "|", flush=True)


def compare(texts: list[str], vectors: np.ndarray, topics: np.ndarray, *, min_rows: int = 10) -> None:
    """balkit's clusters, k-means, average linkage over k-means cells, and HDBSCAN with its noise to the nearest."""
    print("| method | k | NMI | ARI | F1, topics of 10-99 rows | F1, larger topics | largest share |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    ids = [f"{i:06}" for i in range(len(texts))]
    for k in (None, 16, 32, 52):
        result = discover(texts, vectors, ids=ids, k=k, min_rows=min_rows, seed=0)
        name = "balkit, suggested k" if k is None else "balkit"
        report(name, topics, result.labels["domain"].to_numpy())
        if k is None:
            print(result.domains.select("domain", "rows", "cohesion"), file=sys.stderr)
    for k in (16, 32, 52):
        report("k-means", topics, KMeans(k, n_init=3, random_state=0).fit_predict(vectors))
    cells = KMeans(256, n_init=1, random_state=0).fit(vectors)
    for k in (16, 32, 52):
        merged = AgglomerativeClustering(k, metric="cosine", linkage="average").fit_predict(cells.cluster_centers_)
        report("average linkage", topics, merged[cells.labels_])
    for least in (5, 10):
        found = HDBSCAN(min_cluster_size=least, min_samples=3, copy=True).fit_predict(vectors)
        if found.max() > 0:
            centres = np.stack([vectors[found == c].mean(axis=0) for c in range(found.max() + 1)])
            centres /= np.linalg.norm(centres, axis=1, keepdims=True)
            noise = (found < 0).mean()
            found = np.where(found < 0, (vectors @ centres.T).argmax(axis=1), found)
            report(f"HDBSCAN, at least {least} ({noise:.0%} noise)", topics, found)


def scale(n: int) -> None:
    """Seconds and peak memory of `discover` on n vectors of 384 dimensions in 200 long-tailed clusters."""
    rng = np.random.default_rng(0)
    weights = 1 / np.arange(1, 201)
    centres = rng.normal(size=(200, 384))
    rows = np.empty((n, 384), dtype=np.float32)
    for start in range(0, n, 10_000):
        some = rng.choice(200, min(10_000, n - start), p=weights / weights.sum())
        rows[start : start + len(some)] = centres[some] + rng.normal(size=(len(some), 384))
    texts = [f"word{i % 997} other{i % 31} again{i % 7} " * 20 for i in range(n)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started = time.perf_counter()
    result = discover(texts, rows, ids=[f"{i:07}" for i in range(n)], k=None, min_rows=50, seed=0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = time.perf_counter() - started
    print(f"{n} rows: {seconds:.0f} s, {before:.0f} MiB before, {peak:.0f} MiB peak, {result.domains.height} domains")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--hashing", action="store_true", help="the encoder without a model")
    arguments.add_argument("--rows", type=int, help="only the first so many texts")
    arguments.add_argument("--scale", type=int, help="time on so many made-up vectors instead")
    arguments.add_argument("--cache", type=Path, help="a folder that keeps the vectors (a temporary one)")
    given = arguments.parse_args()
    if given.scale:
        scale(given.scale)
        return
    if reason := real.missing():
        sys.exit(reason)
    lines = (real.DATA / "long_tail_kd/r52/r52_count_100.jsonl").read_text(encoding="utf-8").splitlines()[: given.rows]
    rows = [json.loads(line) for line in lines]
    texts = [row["text"] for row in rows]
    encoder = Hashing() if given.hashing else SentenceTransformers(real.encoder_folder())
    with tempfile.TemporaryDirectory() as folder:
        vectors = Vectors(given.cache or Path(folder), encoder).of(texts)
        compare(texts, vectors, np.array([row["label"] for row in rows]))


if __name__ == "__main__":
    main()
