"""Discovered domains: clusters of vectors, their number and their names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import real_input as real
from polars.testing import assert_frame_equal

from balkit.clusters import Discovered, assign, discover, suggest
from balkit.clusters.grid import ONE, distances, on_grid, silhouette
from balkit.clusters.naming import key_terms
from balkit.errors import MissingExtra, VectorError
from balkit.vectors import Hashing, SentenceTransformers, Vectors

ROOT = Path(__file__).resolve().parent.parent
SIZES = [300, 150, 60, 30, 20, 15, 12]
TOPICS = ["apple orchard", "hammer nail", "heron marsh", "violin sonata", "kettle tea", "glacier ice", "rocket fuel"]
REASON = real.missing()


def toy(sizes: list[int] | None = None, *, spread: float = 0.5, dim: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Long-tailed clusters around random directions: vectors (n, dim) float32 and the cluster of each."""
    rng = np.random.default_rng(7)
    truth = np.repeat(np.arange(len(sizes or SIZES)), sizes or SIZES)
    centres = rng.normal(size=(len(sizes or SIZES), dim))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    rows = centres[truth] + spread / np.sqrt(dim) * rng.normal(size=(len(truth), dim))
    return np.asarray(rows, dtype=np.float32), truth


def ids_of(n: int) -> list[str]:
    return [f"id{i:05}" for i in range(n)]


def texts_of(truth: np.ndarray) -> list[str]:
    return [f"Number {i} about the {TOPICS[c]} and what was seen" for i, c in enumerate(truth)]


@cache
def found(k: int | None = None, *, min_rows: int = 10, seed: int = 0) -> tuple[Discovered, np.ndarray]:
    vectors, truth = toy()
    texts = texts_of(truth)
    return discover(texts, vectors, ids=ids_of(len(truth)), k=k, min_rows=min_rows, seed=seed), truth


def rand(truth: np.ndarray, labels: pl.DataFrame) -> float:
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(truth, labels["domain"].to_list()))


def same(one: Discovered, other: Discovered) -> None:
    assert_frame_equal(one.labels, other.labels, check_exact=True)
    assert_frame_equal(one.domains, other.domains, check_exact=True)
    assert_frame_equal(one.candidates, other.candidates, check_exact=True)
    np.testing.assert_array_equal(one.centres, other.centres)


def test_long_tailed_clusters_and_their_number_are_found() -> None:
    result, truth = found()
    assert result.candidates.filter("suggested")["k"].to_list() == [len(SIZES)]
    assert result.domains["rows"].to_list() == SIZES
    assert rand(truth, result.labels) == pytest.approx(1)


def test_k_means_alone_misses_the_small_ones() -> None:
    from sklearn.cluster import KMeans

    vectors, truth = toy()
    alone = KMeans(len(SIZES), n_init=1, random_state=0).fit_predict(vectors)
    result, _ = found(len(SIZES))
    assert rand(truth, pl.DataFrame({"domain": alone})) < 0.9 < rand(truth, result.labels)


def test_domains_are_named_by_their_own_words() -> None:
    result, _ = found()
    for name, topic in zip(result.domains["domain"], TOPICS, strict=True):
        assert set(topic.split()) <= set(name.split(", ")), name
        assert "number" not in name
    assert result.domains["domain"].n_unique() == len(SIZES)


def test_what_is_said_of_a_domain_agrees_with_its_labels() -> None:
    result, _ = found()
    means = result.labels.group_by("domain").agg(pl.len().alias("rows"), (1 - pl.col("distance")).mean().alias("mean"))
    joined = result.domains.join(means, on="domain")
    assert joined["rows"].to_list() == joined["rows_right"].to_list()
    np.testing.assert_allclose(joined["cohesion"], joined["mean"], atol=1e-6)
    for domain, typical in result.domains.select("domain", "typical").iter_rows():
        near = result.labels.filter(pl.col("domain") == domain).sort("distance", "example_id")
        assert typical == near["example_id"].head(3).to_list()
    np.testing.assert_allclose(np.linalg.norm(result.centres, axis=1), 1, atol=1e-2)


def test_the_order_of_the_rows_changes_nothing() -> None:
    vectors, truth = toy()
    ids, texts = ids_of(len(truth)), texts_of(truth)
    order = np.random.default_rng(3).permutation(len(ids))
    one = discover(texts, vectors, ids=ids, k=None, min_rows=10, seed=5)
    shuffled = [texts[i] for i in order], vectors[order]
    same(one, discover(*shuffled, ids=[ids[i] for i in order], k=None, min_rows=10, seed=5))
    assert_frame_equal(suggest(vectors, seed=5), suggest(vectors[order], seed=5), check_exact=True)
    assert_frame_equal(one.candidates, suggest(vectors, min_rows=10, seed=5), check_exact=True)


@pytest.mark.parametrize("threads", ["1", "4"])
@pytest.mark.long
def test_the_number_of_threads_changes_nothing(threads: str) -> None:
    code = (
        "import numpy as np; from test_discover import found; r = found()[0];"
        "print(r.labels.hash_rows().sum(), r.domains.hash_rows().sum(), r.centres.tobytes().hex()[:4000])"
    )
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    env = {**os.environ, **dict.fromkeys(names, threads), "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    result, _ = found()
    expected = result.labels.hash_rows().sum(), result.domains.hash_rows().sum(), result.centres.tobytes().hex()[:4000]
    assert done.stdout.split() == [str(part) for part in expected]


def test_later_rows_go_where_the_same_rows_went() -> None:
    result, _ = found()
    vectors, _ = toy()
    names = result.domains["domain"].to_list()
    assert assign(vectors, result.centres, names) == result.labels["domain"].to_list()
    assert assign(vectors[:5] * 7, result.centres, names) == result.labels["domain"].to_list()[:5]
    assert assign(vectors[:0], result.centres, names) == []


def test_clusters_below_min_rows_go_to_the_nearest() -> None:
    result, _ = found(min_rows=25)
    assert result.domains["rows"].min() >= 25
    assert result.domains["rows"].sum() == sum(SIZES)
    assert result.domains.height == 5


def test_as_many_domains_as_asked_for() -> None:
    for k in (2, 5):
        assert found(k)[0].domains.height == k


def test_fewer_domains_than_asked_for_are_said_to_be_fewer(caplog: pytest.LogCaptureFixture) -> None:
    result, _ = found(40)
    assert result.domains.height < 40
    assert result.domains["rows"].min() >= 10
    assert "no 40 clusters of 10 rows" in caplog.text


@pytest.mark.parametrize("words", ["", "12 345 6", "\x00\x1b[31m", "the and of"])
def test_texts_without_words_give_numbered_names(words: str) -> None:
    vectors, truth = toy()
    result = discover([words] * len(truth), vectors, ids=ids_of(len(truth)), k=None, min_rows=10, seed=0)
    assert result.domains["domain"].to_list() == [f"cluster {i}" for i in range(1, len(SIZES) + 1)]
    assert result.domains["terms"].list.len().to_list() == [0] * len(SIZES)


def test_other_scripts_are_named_too() -> None:
    words = ["яблоко сад", "молоток гвоздь", "цапля болото", "σκύλος γάτα", "茶壶 茶叶", "ملح بحر", "straße größe"]
    vectors, truth = toy()
    texts = [f"{words[c]} {i}\u202e\x07" for i, c in enumerate(truth)]
    result = discover(texts, vectors, ids=ids_of(len(truth)), k=None, min_rows=10, seed=0)
    assert [set(name.split(", ")) for name in result.domains["domain"]] == [set(w.split()) for w in words]


def test_names_differ_even_where_all_texts_are_the_same() -> None:
    vectors, truth = toy()
    result = discover(["one same sentence"] * len(truth), vectors, ids=ids_of(len(truth)), k=4, min_rows=10, seed=0)
    assert result.domains["domain"].n_unique() == 4
    assert all(name.isprintable() and name for name in result.domains["domain"])


def test_bad_rows_are_refused_by_name() -> None:
    vectors, truth = toy()
    ids, texts = ids_of(len(truth)), texts_of(truth)

    def refused(match: str, *, rows: np.ndarray = vectors, names: list[str] = ids, k: int | None = None, least=10):
        with pytest.raises(VectorError, match=match):
            discover(texts[: len(names)], rows, ids=names, k=k, min_rows=least, seed=0)

    broken = vectors.copy()
    broken[17, 3] = np.nan
    refused("not finite.*id00017", rows=broken)
    broken[17] = np.inf
    refused("not finite.*id00017", rows=broken)
    broken[17] = 0
    refused("zero.*id00017", rows=broken)
    refused("all .* are the same", rows=np.ones_like(vectors))
    refused("too few", rows=vectors[:19], names=ids[:19])
    refused("id00000 stands more than once", names=["id00000", *ids[:-1]])
    refused("each row needs all three", rows=vectors[:50])
    refused("min_rows = 0", least=0)
    refused("at least 2", k=1)
    refused("at most 58", k=200)
    refused(r"of shape \(", rows=vectors[:, 0])
    refused("lower min_rows", least=500)


def test_more_domains_than_distinct_rows_are_refused() -> None:
    rows = np.repeat(np.eye(3, 8, dtype=np.float32), 50, axis=0)
    with pytest.raises(VectorError, match=r"3 of them distinct.*at most 3"):
        discover([""] * 150, rows, ids=ids_of(150), k=4, min_rows=10, seed=0)
    result = discover([""] * 150, rows, ids=ids_of(150), k=None, min_rows=10, seed=0)
    assert result.domains["rows"].to_list() == [50, 50, 50]
    assert result.labels["distance"].to_list() == [0.0] * 150


def test_assign_refuses_what_does_not_fit() -> None:
    with pytest.raises(VectorError, match="each centre has one name"):
        assign(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), ["one"])
    with pytest.raises(VectorError, match="use the encoder"):
        assign(np.eye(3, dtype=np.float32), np.eye(2, dtype=np.float32), ["one", "two"])
    with pytest.raises(VectorError, match="row 1"):
        assign(np.array([[1, 0], [0, 0]], np.float32), np.eye(2, dtype=np.float32), ["one", "two"])


def test_the_silhouette_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import silhouette_score

    vectors, truth = toy([40, 20, 10, 1])
    apart = distances(on_grid(vectors))
    expected = silhouette_score(np.asarray(apart - np.diag(np.diag(apart))) / ONE, truth, metric="precomputed")
    assert silhouette(apart, truth, count=4) == pytest.approx(expected, abs=1e-4)


def test_a_missing_scikit_learn_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    with pytest.raises(MissingExtra, match=r"balkit\[embed\]"):
        key_terms([["one text"]])


@pytest.mark.slow
@pytest.mark.skipif(REASON is not None, reason=str(REASON))
@pytest.mark.timeout(3600)
def test_real_news_falls_into_its_topics(tmp_path: Path) -> None:
    """Floors under what docs/benchmarks.md measures on all 5,200 rows; here the first 2,000, with MiniLM."""
    from sklearn.metrics import normalized_mutual_info_score

    lines = (real.DATA / "long_tail_kd/r52/r52_count_100.jsonl").read_text(encoding="utf-8").splitlines()[:2000]
    rows = [json.loads(line) for line in lines]
    texts, topics = [row["text"] for row in rows], np.array([row["label"] for row in rows])
    for encoder, nmi, ari in ((SentenceTransformers(real.encoder_folder()), 0.54, 0.30), (Hashing(), 0.35, 0.08)):
        vectors = Vectors(tmp_path, encoder).of(texts)
        result = discover(texts, vectors, ids=ids_of(len(rows)), k=24, min_rows=10, seed=0)
        reached = normalized_mutual_info_score(topics, result.labels["domain"].to_list())
        print(encoder.name, f"NMI {reached:.3f} ARI {rand(topics, result.labels):.3f}")
        assert reached > nmi
        assert rand(topics, result.labels) > ari
