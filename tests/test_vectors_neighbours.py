"""Nearest neighbours: exact, by cells, through the index, and the index's file."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balkit.errors import VectorError
from balkit.vectors import most_similar, neighbours
from balkit.vectors.encoders import Floats


def points(n: int, *, d: int = 16, seed: int = 0) -> Floats:
    rows = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def corners(n: int, *, seed: int) -> Floats:
    """Unit vectors whose similarities are eighths, so exact, and often equal."""
    return np.random.default_rng(seed).choice(np.array([-0.25, 0.25], np.float32), size=(n, 16))


def clustered(n: int, *, seed: int = 0) -> Floats:
    """Unit vectors around n / 50 centres that depend on `n` alone."""
    centres, rng = points(max(1, n // 50), d=24), np.random.default_rng(seed)
    rows = centres[rng.integers(0, len(centres), n)] + 0.1 * rng.normal(size=(n, 24))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def by_sorting(queries: Floats, among: Floats, k: int) -> np.ndarray:
    return np.argsort(-(queries @ among.T), axis=1, kind="stable")[:, :k]


@given(n=st.integers(1, 40), m=st.integers(1, 40), k=st.integers(1, 50), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_exact_neighbours_are_those_of_sorting_all_similarities(n: int, m: int, k: int, seed: int) -> None:
    queries, among = corners(n, seed=seed), corners(m, seed=seed + 1)
    found = neighbours(queries, among=among, k=k)
    assert found.indices.shape == found.similarities.shape == (n, min(k, m))
    assert (found.indices.dtype, found.similarities.dtype) == (np.int64, np.float32)
    np.testing.assert_array_equal(found.indices, by_sorting(queries, among, k))


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = points(200)
    whole = neighbours(rows, among=rows, k=7)
    for name, value in (("_ROWS", 17), ("_COLUMNS", 31), ("_WAITING", 50)):
        monkeypatch.setattr(sys.modules["balkit.vectors.best"], name, value)
    blocks = neighbours(rows, among=rows, k=7)
    np.testing.assert_array_equal(whole.indices, blocks.indices)
    np.testing.assert_array_equal(whole.similarities, blocks.similarities)


@pytest.mark.parametrize("k", [1, 3])
def test_ties_go_to_the_lower_index(k: int) -> None:
    rows = np.repeat(points(30, d=64), 5, axis=0)
    found = neighbours(rows, among=rows, k=k)
    np.testing.assert_array_equal(found.indices, (np.arange(150) // 5 * 5)[:, None] + np.arange(k))
    np.testing.assert_allclose(found.similarities, 1, atol=1e-6)


def test_nothing_to_search_gives_empty_arrays() -> None:
    assert neighbours(points(3), among=points(0), k=2).indices.shape == (3, 0)
    assert neighbours(points(0), among=points(3), k=2).indices.shape == (0, 2)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_names_its_row(value: float) -> None:
    rows = points(5)
    rows[3, 2] = value
    with pytest.raises(VectorError, match=r"among: 1 of 5 .* row 3"):
        neighbours(points(2), among=rows, k=1)


def test_other_dimensions_are_an_error() -> None:
    with pytest.raises(VectorError, match="8 dimensions"):
        neighbours(points(2, d=8), among=points(2, d=16), k=1)


def test_most_similar_says_which_and_how_much() -> None:
    among = points(20)
    found = most_similar(among[[4, 11]], among=among)
    assert found.index.tolist() == [4, 11]
    np.testing.assert_allclose(found.similarity, 1, atol=1e-6)


def test_most_similar_to_nothing_is_minus_one() -> None:
    found = most_similar(points(2), among=points(0))
    assert (found.index.tolist(), found.similarity.tolist()) == ([-1, -1], [-1.0, -1.0])


def test_exact_search_stands_in_for_a_missing_hnswlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hnswlib", None)
    rows = corners(50, seed=0)
    np.testing.assert_array_equal(neighbours(rows, among=rows, k=5, method="graph").indices, by_sorting(rows, rows, 5))


class TestCells:
    """Partition, then exact."""

    @pytest.mark.parametrize("kind", ["clustered", "alike", "equal"])
    def test_they_find_as_many_of_the_exact_neighbours_as_asked_for(self, kind: str) -> None:
        rows = {"clustered": clustered(6000), "alike": points(3000, d=8), "equal": np.repeat(points(60), 50, axis=0)}
        exact = neighbours(rows[kind], among=rows[kind], k=10, method="exact")
        near = neighbours(rows[kind], among=rows[kind], k=10, method="cells")
        as_near = near.similarities >= exact.similarities[:, -1:] - 1e-6
        assert as_near.mean() > 0.97
        assert (near.method, near.recall == 1.0) in (("cells", True), ("cells", False), ("exact", True))
        assert abs(near.recall - as_near.mean()) < 0.02
        assert (np.diff(near.similarities, axis=1) <= 0).all()

    def test_many_queries_are_looked_up_in_cells_and_few_exactly(self) -> None:
        rows = clustered(6000)
        assert neighbours(rows, among=rows, k=10).method == "cells"
        assert neighbours(rows[:20], among=rows, k=10).method == "exact"

    def test_vectors_without_clusters_are_searched_exactly(self) -> None:
        rows = points(3000, d=64)
        found = neighbours(rows, among=rows, k=10, method="cells")
        assert (found.method, found.recall) == ("exact", 1.0)

    def test_what_is_found_does_not_depend_on_blocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rows, queries = clustered(3000), clustered(3000, seed=1)
        whole = neighbours(queries, among=rows, k=5, method="cells")
        assert whole.method == "cells"
        for module, name, value in (("cells", "_ROWS", 100), ("best", "_WAITING", 1000), ("cells", "MOST_ROWS", 700)):
            monkeypatch.setattr(sys.modules[f"balkit.vectors.{module}"], name, value)
        blocks = neighbours(queries, among=rows, k=5, method="cells")
        np.testing.assert_array_equal(whole.indices, blocks.indices)
        assert whole.recall == blocks.recall

    def test_more_neighbours_than_cells_within_reach_hold_are_still_found(self) -> None:
        rows = np.concatenate([clustered(3000), -clustered(3, seed=5)])
        found = neighbours(rows, among=rows, k=40, method="cells")
        assert (found.indices >= 0).all()
        assert all(len(set(line)) == 40 for line in found.indices.tolist())


def test_more_rows_than_a_packed_candidate_can_name_are_searched_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = points(300)
    expected = neighbours(rows, among=rows, k=7, method="exact")
    for name, module in (("_COLUMN_BITS", "best"), ("MOST_COLUMNS", "best"), ("MOST_COLUMNS", "neighbours")):
        value = 5 if name == "_COLUMN_BITS" else 32
        monkeypatch.setattr(sys.modules[f"balkit.vectors.{module}"], name, value)
    found = neighbours(rows, among=rows, k=7, method="exact")
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.similarities, expected.similarities)


class TestIndex:
    """Through hnswlib, which is an optional package."""

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("hnswlib")

    def test_it_finds_nearly_all_exact_neighbours(self) -> None:
        rows = points(1500, d=32)
        exact = neighbours(rows, among=rows, k=10, method="exact")
        near = neighbours(rows, among=rows, k=10, method="graph")
        shared = [len(set(a) & set(b)) for a, b in zip(exact.indices.tolist(), near.indices.tolist(), strict=True)]
        assert sum(shared) / exact.indices.size > 0.95
        np.testing.assert_array_equal(near.indices[:, 0], np.arange(1500))
        assert (np.diff(near.similarities, axis=1) <= 0).all()

    def test_k_above_the_number_of_rows_gives_all_of_them(self) -> None:
        rows = points(5)
        found = neighbours(rows, among=rows, k=50, method="graph")
        np.testing.assert_array_equal(np.sort(found.indices, axis=1), np.tile(np.arange(5), (5, 1)))

    def test_many_equal_rows_do_not_break_it(self) -> None:
        rows = np.repeat(points(3), 200, axis=0)
        assert neighbours(rows, among=rows, k=100, method="graph").indices.shape == (600, 100)

    def test_built_twice_it_is_the_same(self, tmp_path: Path) -> None:
        rows = points(400)
        for folder in ("one", "two"):
            neighbours(rows, among=rows, k=5, method="graph", cache=tmp_path / folder)
        first, second = (next((tmp_path / folder).glob("*.hnsw")).read_bytes() for folder in ("one", "two"))
        assert first == second

    def test_a_kept_index_is_not_built_again(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        rows = points(400)
        built = neighbours(rows, among=rows, k=5, method="graph", cache=tmp_path)
        files = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
        with caplog.at_level(logging.WARNING):
            loaded = neighbours(rows, among=rows, k=5, method="graph", cache=tmp_path)
        np.testing.assert_array_equal(built.indices, loaded.indices)
        assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == files
        assert {file.suffix for file in files} == {".hnsw", ".json"}
        assert not caplog.text

    def test_other_vectors_have_another_index(self, tmp_path: Path) -> None:
        for seed in (1, 2):
            rows = points(100, seed=seed)
            found = neighbours(rows, among=rows, k=1, method="graph", cache=tmp_path)
            assert found.indices[:, 0].tolist() == list(range(100))
        assert len(list(tmp_path.glob("*.hnsw"))) == 2

    @pytest.mark.parametrize("where", [0, 100, 5000, -1])
    def test_a_flipped_byte_is_noticed_and_the_index_built_again(
        self, tmp_path: Path, where: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        rows = points(200)
        before = neighbours(rows, among=rows, k=5, method="graph", cache=tmp_path)
        file = next(tmp_path.glob("*.hnsw"))
        good = file.read_bytes()
        body = bytearray(good)
        body[where] ^= 0x10
        file.write_bytes(body)
        with caplog.at_level(logging.WARNING):
            after = neighbours(rows, among=rows, k=5, method="graph", cache=tmp_path)
        np.testing.assert_array_equal(before.indices, after.indices)
        assert "built again" in caplog.text
        assert file.read_bytes() == good

    @pytest.mark.parametrize("header", ["", "[]", "{", '{"dim": 3}'])
    def test_a_damaged_header_is_noticed(self, tmp_path: Path, header: str) -> None:
        rows = points(200)
        before = neighbours(rows, among=rows, k=5, method="graph", cache=tmp_path)
        next(tmp_path.glob("*.json")).write_text(header)
        after = neighbours(rows, among=rows, k=5, method="graph", cache=tmp_path)
        np.testing.assert_array_equal(before.indices, after.indices)

    def test_a_lost_index_file_is_built_again(self, tmp_path: Path) -> None:
        rows = points(200)
        neighbours(rows, among=rows, k=5, method="graph", cache=tmp_path)
        next(tmp_path.glob("*.hnsw")).unlink()
        neighbours(rows, among=rows, k=5, method="graph", cache=tmp_path)
        assert next(tmp_path.glob("*.hnsw")).stat().st_size > 0
