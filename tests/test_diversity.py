"""Diversity: numbers known by hand, numbers known from the released data, any order of the rows."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import real_input as real
from hypothesis import given
from hypothesis import strategies as st

from balkit import diversity
from balkit.errors import BalkitError, VectorError

WORDS = st.lists(st.lists(st.sampled_from(["a", "b", "c", "aa"]), max_size=8).map(" ".join), max_size=12)


def unit(rows: object) -> np.ndarray:
    vectors = np.asarray(rows, dtype=np.float64)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def noise(rows: int, dim: int, seed: int = 0) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(rows, dim)))


@given(texts=WORDS, n=st.integers(1, 4))
def test_distinct_n_is_distinct_over_all_n_grams(texts: list[str], n: int) -> None:
    split = [text.split() for text in texts]
    grams = [tuple(words[at : at + n]) for words in split for at in range(len(words) - n + 1)]
    found = diversity.distinct_n(texts, n=n)
    assert math.isnan(found) if not grams else found == len(set(grams)) / len(grams)


def test_an_n_gram_does_not_reach_into_the_next_text() -> None:
    assert math.isnan(diversity.distinct_n(["one two", "three four"], n=3))
    assert diversity.distinct_n(["a b c", "a b c"], n=3) == 0.5


def test_grams_of_no_words_are_refused() -> None:
    with pytest.raises(BalkitError, match="n is 0"):
        diversity.distinct_n(["a"], n=0)


def test_the_released_composed_problems_repeat_themselves() -> None:
    # Counting & Probability, equally many of either kind: distinct-3 is 0.29 written by ChatGPT, 0.82 real.
    folder = real.DATA / "long_tail_kd" / "math"
    if not folder.is_dir():
        pytest.skip(f"the real data is not here: BALKIT_REAL_DATA={real.DATA} holds no long_tail_kd")

    def problems(file: str) -> list[str]:
        lines = (folder / file).read_text(encoding="utf-8").split("\n")
        rows = [json.loads(line) for line in lines if line.strip()]
        return [row["text"] for row in rows if row["source"] == "Counting & Probability"]

    true, composed = problems("corpus.jsonl"), problems("math_chatgpt_cot_train_composed.jsonl")
    assert round(diversity.distinct_n(true), 2) == 0.82
    assert round(diversity.distinct_n(composed[: len(true)]), 2) == 0.29


def test_twins_have_no_distance_and_orthogonal_rows_all_of_it() -> None:
    assert diversity.mean_neighbour_distance(unit([[1, 0], [1, 0], [0, 1], [0, 1]])) == 0
    assert diversity.mean_neighbour_distance(unit(np.eye(3))) == 1
    assert diversity.mean_neighbour_distance(unit([[1, 0], [-1, 0]])) == 1  # what points away is not nearer than that


def test_neighbour_distance_in_blocks_is_that_of_all_pairs() -> None:
    vectors = noise(2500, 8)  # 6 million similarities, more than one block of them
    cosines = np.clip(vectors @ vectors.T, 0, 1)
    np.fill_diagonal(cosines, 0)
    assert diversity.mean_neighbour_distance(vectors) == pytest.approx((1 - cosines.max(axis=1)).mean(), abs=1e-6)


@pytest.mark.parametrize("shape", [(6, 40), (40, 6)])
def test_vendi_is_the_entropy_of_the_kernels_eigenvalues_on_either_side(shape: tuple[int, int]) -> None:
    vectors = noise(*shape).astype(np.float64)
    weights = np.linalg.eigvalsh(vectors @ vectors.T / len(vectors))
    weights = weights[weights > 1e-9]
    assert diversity.vendi(vectors.astype(np.float32)) == pytest.approx(np.exp(-(weights * np.log(weights)).sum()))


def test_vendi_counts_unlike_rows() -> None:
    assert diversity.vendi(unit(np.eye(5))) == pytest.approx(5)
    assert diversity.vendi(unit(np.repeat(np.eye(5), 7, axis=0))) == pytest.approx(5)
    assert diversity.vendi(unit(np.ones((9, 4)))) == pytest.approx(1)


def test_a_sample_comes_near_all_rows_and_does_not_depend_on_their_order() -> None:
    vectors = noise(600, 12)
    shuffled = vectors[np.random.default_rng(1).permutation(600)]
    near = [diversity.mean_neighbour_distance(rows, all_below=300, sample=200) for rows in (vectors, shuffled)]
    many = [diversity.vendi(rows, all_below=300) for rows in (vectors, shuffled)]
    for sampled, exact in ((near, diversity.mean_neighbour_distance(vectors)), (many, diversity.vendi(vectors))):
        assert sampled[0] == pytest.approx(sampled[1], abs=2e-6)
        assert sampled[0] != exact
        assert sampled[0] == pytest.approx(exact, rel=0.05)


def test_no_rows_and_one_row_are_answered() -> None:
    none, one = np.zeros((0, 4), dtype=np.float32), unit([[1, 2, 3, 4]])
    assert diversity.vendi(none) == 0
    assert diversity.vendi(one) == pytest.approx(1)
    assert math.isnan(diversity.mean_neighbour_distance(none))
    assert math.isnan(diversity.mean_neighbour_distance(one))
    assert math.isnan(diversity.distinct_n([]))
    assert diversity.distinct_n(["a b c"]) == 1
    assert math.isnan(diversity.length_drift([], ["a"]).median_ratio)
    assert diversity.length_drift(["ab"], ["ab"]) == diversity.LengthDrift(1, 0)


def test_vectors_that_are_not_of_length_one_are_refused_with_their_row() -> None:
    bad = np.array([[1, 0], [3, 0]], dtype=np.float32)
    for measure in (diversity.mean_neighbour_distance, diversity.vendi):
        with pytest.raises(VectorError, match="in row 1"):
            measure(bad)


def test_length_drift_is_in_medians_and_in_standard_deviations() -> None:
    every = ["x" * length for length in (2, 4, 6, 8)]
    drift = diversity.length_drift(every[2:], every)
    assert drift.median_ratio == 7 / 5
    assert drift.standardised == pytest.approx(2 / math.sqrt(5))
    assert math.isnan(diversity.length_drift(["xxx"], ["x", "x"]).standardised)
