"""Duplicates: exact, near and semantic, within rows and against others."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balkit import duplicates
from balkit.duplicates import Duplicates
from balkit.duplicates.alike import bag
from balkit.errors import VectorError
from balkit.texts import normalised

ROOT = Path(__file__).resolve().parent.parent
ALIKE, CLOSE = sys.modules["balkit.duplicates.alike"], sys.modules["balkit.duplicates.close"]


def first_kept(matches: np.ndarray) -> list[int]:
    """The rule itself: of an (n, n) table of matches, for every row the first kept earlier row that it matches."""
    other: list[int] = []
    for row, line in enumerate(matches):
        other.append(next((column for column in range(row) if line[column] and other[column] < 0), -1))
    return other


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def clouds(n: int, *, d: int = 24, noise: float = 0.35, seed: int = 0) -> np.ndarray:
    """Unit vectors around few centres, so that many are close and some chains of closeness are long."""
    rng = np.random.default_rng(seed)
    return unit(rng.normal(size=(1 + n // 8, d))[rng.integers(0, 1 + n // 8, n)] + noise * rng.normal(size=(n, d)))


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return (left.astype(np.float64) @ right.astype(np.float64).T).round(6)


def sentences(n: int, *, seed: int = 0) -> list[str]:
    """Texts of 6-30 words, a third of them an earlier one with a word or a letter changed."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("aeioubcdfglmnprst", k=rng.randrange(2, 9))) for _ in range(800)]
    texts: list[str] = []
    for _ in range(n):
        if texts and rng.random() < 0.34:
            edited = rng.choice(texts).split()
            edited[rng.randrange(len(edited))] = rng.choice(words)
            texts.append(" ".join(edited))
        else:
            texts.append(" ".join(rng.choices(words, k=rng.randrange(6, 31))))
    return texts


def by_ratio(texts: list[str], threshold: float) -> np.ndarray:
    from rapidfuzz import fuzz

    bags = [bag(text) for text in texts]
    return np.array([[fuzz.ratio(a, b) >= threshold * 100 for b in bags] for a in bags])


@given(st.lists(st.sampled_from(["A b", "a  B!", "x^2 + 1", "$x^{2}+1$", "x^2 - 1", "", "?"]), max_size=30))
def test_exact_finds_the_first_text_that_is_equal_after_normalising(texts: list[str]) -> None:
    found = duplicates.exact(texts)
    keys = [normalised(text) for text in texts]
    assert found.other.tolist() == [-1 if keys.index(key) == row else keys.index(key) for row, key in enumerate(keys)]
    assert found.similarity.tolist() == [float(other >= 0) for other in found.other]
    among = duplicates.exact_among(texts, among=["zz", *texts[::-1]])
    first = {key: index for index, key in reversed(list(enumerate(["zz", *keys[::-1]])))}
    assert among.other.tolist() == [first[key] for key in keys]


@given(n=st.integers(0, 60), seed=st.integers(0, 99), threshold=st.sampled_from([-1.0, 0.3, 0.8, 0.9, 0.97, 1.0]))
@settings(max_examples=80)
def test_semantic_is_the_first_kept_row_of_all_cosines(n: int, seed: int, threshold: float) -> None:
    rows = clouds(n, seed=seed)
    found = duplicates.semantic(rows, threshold=threshold)
    assert found.other.tolist() == first_kept(cosines(rows, rows) >= threshold)
    told = np.flatnonzero(found.other >= 0)
    np.testing.assert_allclose(found.similarity[told], cosines(rows, rows)[told, found.other[told]].clip(0), atol=1e-6)
    assert (found.similarity[found.kept] == 0).all()


@pytest.mark.parametrize("tile", [(1024, 8192), (7, 5), (64, 16)])
@pytest.mark.parametrize("dense", [1, 64, 10**9])
def test_neither_blocks_nor_the_way_of_measuring_change_what_is_a_duplicate(
    tile: tuple[int, int], dense: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = clouds(700, d=300, noise=0.33)
    expected = first_kept(cosines(rows, rows) >= 0.9)
    monkeypatch.setattr(CLOSE, "_ROWS", tile[0])
    monkeypatch.setattr(CLOSE, "_COLUMNS", tile[1])
    monkeypatch.setattr(CLOSE, "_DENSE", dense)
    assert 50 < sum(other >= 0 for other in expected) < 650
    assert duplicates.semantic(rows, threshold=0.9).other.tolist() == expected


@pytest.mark.parametrize("angle", [0.3, 0.45, 1.0])
def test_a_cosine_at_the_threshold_counts_as_reaching_it(angle: float) -> None:
    rows = unit(np.array([[1, 0, 0], [np.cos(angle), np.sin(angle), 0], [np.cos(angle), 0, np.sin(angle)]]))
    at = float(cosines(rows[:1], rows[1:2])[0, 0])
    assert duplicates.semantic(rows, threshold=at).other.tolist() == [-1, 0, 0]
    assert duplicates.semantic(rows, threshold=at + 2e-6).other.tolist()[1:2] == [-1]


def test_thousands_of_equal_rows_keep_the_first() -> None:
    found = duplicates.semantic(np.repeat(clouds(3, d=8, noise=9), 2000, axis=0), threshold=0.95)
    assert np.flatnonzero(found.kept).tolist() == [0, 2000, 4000]


def test_semantic_among_gives_the_first_that_is_close_enough() -> None:
    new, among = clouds(150, seed=1), clouds(400, seed=1)
    found = duplicates.semantic_among(new, among=among, threshold=0.9)
    matches = cosines(new, among) >= 0.9
    assert found.other.tolist() == [int(line.argmax()) if line.any() else -1 for line in matches]
    assert 10 < found.kept.sum() < 140


def test_semantic_says_what_is_wrong_with_vectors() -> None:
    rows = clouds(5)
    with pytest.raises(VectorError, match="new vectors have 24 dimensions, those among which to look 8"):
        duplicates.semantic_among(rows, among=clouds(5, d=8), threshold=0.9)
    rows[3, 1] = np.nan
    with pytest.raises(VectorError, match="1 of 5 vectors are not finite, the first in row 3"):
        duplicates.semantic(rows, threshold=0.9)
    with pytest.raises(VectorError, match="expected \\(rows, dimensions\\)"):
        duplicates.semantic(rows[0], threshold=0.9)


class TestNear:
    """By rapidfuzz, which is an optional package."""

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("rapidfuzz")

    @pytest.mark.parametrize("threshold", [0.7, 0.9])
    def test_few_texts_are_compared_each_with_each(self, threshold: float, monkeypatch: pytest.MonkeyPatch) -> None:
        texts = [*sentences(300), "", "", "?!"]
        expected = first_kept(by_ratio(texts, threshold))
        assert duplicates.near(texts, threshold=threshold).other.tolist() == expected
        monkeypatch.setattr(ALIKE, "_ROWS", 7)
        assert duplicates.near(texts, threshold=threshold).other.tolist() == expected

    def test_sketches_find_nearly_all_that_comparing_all_finds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        texts = sentences(1500, seed=3)
        every = duplicates.near(texts)
        monkeypatch.setattr(ALIKE, "ALL_PAIRS", 0)
        found = duplicates.near(texts)
        assert (~every.kept).sum() > 200
        assert (~found.kept & ~every.kept).sum() >= 0.98 * (~every.kept).sum()
        told = np.flatnonzero(~found.kept)
        np.testing.assert_allclose(found.similarity[told].min(), 0.9, atol=0.05)
        assert (found.similarity[told] >= 0.9 - 1e-6).all()

    def test_word_order_and_layout_do_not_hide_a_duplicate(self) -> None:
        found = duplicates.near(["Count the red marbles", "the red marbles: COUNT!", "Weigh a blue stone"])
        assert (found.other.tolist(), found.similarity.tolist()) == ([-1, 0, -1], [0, 1, 0])

    @pytest.mark.parametrize("all_pairs", [0, 10**9])
    def test_near_among_gives_the_first_that_is_alike(self, all_pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ALIKE, "ALL_PAIRS", all_pairs)
        among = ["one two three four five six seven eight", "nothing like it at all", "nothing like it at all"]
        new = ["eight seven six five four three two one", "one two three four five six seven eights", among[2], "else"]
        found = duplicates.near_among(new, among=among)
        assert found.other.tolist() == [0, 0, 1, -1]
        assert found.similarity[[0, 2, 3]].tolist() == [1, 1, 0]

    @pytest.mark.parametrize("all_pairs", [0, 10**9])
    def test_nothing_to_compare_gives_no_duplicates(self, all_pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ALIKE, "ALL_PAIRS", all_pairs)
        assert duplicates.near([]).other.tolist() == []
        assert duplicates.near(["a"]).other.tolist() == [-1]
        assert duplicates.near_among(["a"], among=[]).other.tolist() == [-1]
        assert duplicates.near_among([], among=["a"]).other.tolist() == []

    def test_sketches_are_the_same_in_every_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        code = (
            "import sys; from balkit.duplicates.sketches import keys; "
            "print(keys(['', 'a', 'two red marbles', '\\U0001f600 \\ud800']).tobytes().hex())"
        )
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
        other = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True).stdout
        monkeypatch.setattr(sys.modules["balkit.duplicates.sketches"], "_CHARACTERS_AT_ONCE", 1)
        own = sys.modules["balkit.duplicates.sketches"].keys(["", "a", "two red marbles", "\U0001f600 \ud800"])
        assert other.strip() == own.tobytes().hex()


def test_kept_rows_are_those_without_another() -> None:
    assert Duplicates(np.array([-1, 0, -1]), np.array([0, 1, 0], np.float32)).kept.tolist() == [True, False, True]
