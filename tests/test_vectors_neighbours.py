"""Nearest neighbours: exact, through the index, and the index's file."""

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


def by_sorting(queries: Floats, among: Floats, k: int) -> np.ndarray:
    return np.argsort(-(queries @ among.T), axis=1, kind="stable")[:, :k]


@given(n=st.integers(1, 40), m=st.integers(1, 40), k=st.integers(1, 50), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_exact_neighbours_are_those_of_sorting_all_similarities(n: int, m: int, k: int, seed: int) -> None:
    queries, among = corners(n, seed=seed), corners(m, seed=seed + 1)
    found = neighbours(queries, among=among, k=k)
    assert found.indices.shape == found.similarities.shape == (n, min(k, m))
    assert (found.indices.dtype, found.similarities.dtype) == (np.int64, np.float32)
    np.testing.assert_array_equal(found.indices, by_sorting(queries, among, k))


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = points(200)
    whole = neighbours(rows, among=rows, k=7)
    monkeypatch.setattr(sys.modules["balkit.vectors.neighbours"], "_CELLS_AT_ONCE", 600)
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
    np.testing.assert_array_equal(neighbours(rows, among=rows, k=5, exact_below=1).indices, by_sorting(rows, rows, 5))


class TestIndex:
    """Through hnswlib, which is an optional package."""

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("hnswlib")

    def test_it_finds_nearly_all_exact_neighbours(self) -> None:
        rows = points(1500, d=32)
        exact = neighbours(rows, among=rows, k=10)
        near = neighbours(rows, among=rows, k=10, exact_below=1)
        shared = [len(set(a) & set(b)) for a, b in zip(exact.indices.tolist(), near.indices.tolist(), strict=True)]
        assert sum(shared) / exact.indices.size > 0.95
        np.testing.assert_array_equal(near.indices[:, 0], np.arange(1500))
        assert (np.diff(near.similarities, axis=1) <= 0).all()

    def test_k_above_the_number_of_rows_gives_all_of_them(self) -> None:
        rows = points(5)
        found = neighbours(rows, among=rows, k=50, exact_below=1)
        np.testing.assert_array_equal(np.sort(found.indices, axis=1), np.tile(np.arange(5), (5, 1)))

    def test_many_equal_rows_do_not_break_it(self) -> None:
        rows = np.repeat(points(3), 200, axis=0)
        assert neighbours(rows, among=rows, k=100, exact_below=1).indices.shape == (600, 100)

    def test_built_twice_it_is_the_same(self, tmp_path: Path) -> None:
        rows = points(400)
        for folder in ("one", "two"):
            neighbours(rows, among=rows, k=5, exact_below=1, cache=tmp_path / folder)
        first, second = (next((tmp_path / folder).glob("*.hnsw")).read_bytes() for folder in ("one", "two"))
        assert first == second

    def test_a_kept_index_is_not_built_again(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        rows = points(400)
        built = neighbours(rows, among=rows, k=5, exact_below=1, cache=tmp_path)
        files = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
        with caplog.at_level(logging.WARNING):
            loaded = neighbours(rows, among=rows, k=5, exact_below=1, cache=tmp_path)
        np.testing.assert_array_equal(built.indices, loaded.indices)
        assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == files
        assert {file.suffix for file in files} == {".hnsw", ".json"}
        assert not caplog.text

    def test_other_vectors_have_another_index(self, tmp_path: Path) -> None:
        for seed in (1, 2):
            rows = points(100, seed=seed)
            found = neighbours(rows, among=rows, k=1, exact_below=1, cache=tmp_path)
            assert found.indices[:, 0].tolist() == list(range(100))
        assert len(list(tmp_path.glob("*.hnsw"))) == 2

    @pytest.mark.parametrize("where", [0, 100, 5000, -1])
    def test_a_flipped_byte_is_noticed_and_the_index_built_again(
        self, tmp_path: Path, where: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        rows = points(200)
        before = neighbours(rows, among=rows, k=5, exact_below=1, cache=tmp_path)
        file = next(tmp_path.glob("*.hnsw"))
        good = file.read_bytes()
        body = bytearray(good)
        body[where] ^= 0x10
        file.write_bytes(body)
        with caplog.at_level(logging.WARNING):
            after = neighbours(rows, among=rows, k=5, exact_below=1, cache=tmp_path)
        np.testing.assert_array_equal(before.indices, after.indices)
        assert "built again" in caplog.text
        assert file.read_bytes() == good

    @pytest.mark.parametrize("header", ["", "[]", "{", '{"dim": 3}'])
    def test_a_damaged_header_is_noticed(self, tmp_path: Path, header: str) -> None:
        rows = points(200)
        before = neighbours(rows, among=rows, k=5, exact_below=1, cache=tmp_path)
        next(tmp_path.glob("*.json")).write_text(header)
        after = neighbours(rows, among=rows, k=5, exact_below=1, cache=tmp_path)
        np.testing.assert_array_equal(before.indices, after.indices)

    def test_a_lost_index_file_is_built_again(self, tmp_path: Path) -> None:
        rows = points(200)
        neighbours(rows, among=rows, k=5, exact_below=1, cache=tmp_path)
        next(tmp_path.glob("*.hnsw")).unlink()
        neighbours(rows, among=rows, k=5, exact_below=1, cache=tmp_path)
        assert next(tmp_path.glob("*.hnsw")).stat().st_size > 0
