"""Choosing rows: what every method promises, and what each one means."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from balkit import frames, recipe, texts
from balkit.errors import BalkitError, FrameError, VectorError
from balkit.selection import (
    Evidence,
    facility,
    medoids,
    methods,
    needs_scores,
    needs_vectors,
    select,
    spread,
    strata,
)
from balkit.selection.grid import Floats, on_grid

METHODS = get_args(recipe.Method)
NEED_VECTORS = [method for method in METHODS if needs_vectors(method)]
NEED_SCORES = [method for method in METHODS if needs_scores(method)]


def unit(rows: np.ndarray) -> Floats:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def points(n: int, *, d: int = 6, seed: int = 0) -> Floats:
    return unit(np.random.default_rng(seed).normal(size=(n, d)))


def groups(sizes: list[int], *, d: int = 8) -> Floats:
    """Well separated clusters of these sizes, in order."""
    rows = np.concatenate([np.tile(np.eye(d)[c], (size, 1)) for c, size in enumerate(sizes)])
    return unit(rows + 0.01 * np.random.default_rng(0).normal(size=rows.shape))


def candidates(n: int) -> pl.DataFrame:
    return pl.DataFrame({"example_id": [f"e{i}" for i in range(n)], "domain": ["Geometry"] * n}).cast(pl.String())


def picked(decisions: pl.DataFrame) -> list[int]:
    kept = decisions.filter("kept").sort("rank")["example_id"]
    return [int(example[1:]) for example in kept]


@st.composite
def cases(draw: st.DrawFn) -> tuple[pl.DataFrame, Evidence]:
    """Up to 25 candidates, some with equal vectors, some unscored or misaligned."""
    n = draw(st.integers(0, 25))
    which = draw(st.lists(st.integers(0, 11), min_size=n, max_size=n))
    score = st.one_of(st.just(float("nan")), st.sampled_from([0.2, 0.5, 0.9, 1.0, 1.3]))
    scores = np.array(draw(st.lists(score, min_size=n, max_size=n)), dtype=np.float64)
    chosen = points(draw(st.integers(0, 3)), seed=1)
    reasons = [f"why {i}" for i in range(n)]
    evidence = Evidence(vectors=points(12)[which], chosen=chosen, scores=scores, reasons=reasons, strata=4)
    return candidates(n), evidence


def shuffled(case: tuple[pl.DataFrame, Evidence], order: list[int]) -> tuple[pl.DataFrame, Evidence]:
    frame, evidence = case
    assert evidence.vectors is not None
    assert evidence.scores is not None
    assert evidence.reasons is not None
    moved = Evidence(
        vectors=evidence.vectors[order],
        chosen=evidence.chosen,
        scores=evidence.scores[order],
        reasons=[evidence.reasons[i] for i in order],
        strata=evidence.strata,
    )
    return frame[order], moved


@pytest.mark.parametrize("method", METHODS)
@given(case=cases(), quota=st.integers(0, 30), seed=st.integers(0, 3), data=st.data())
@settings(max_examples=25)
def test_the_order_of_the_rows_changes_nothing(
    method: recipe.Method, case: tuple[pl.DataFrame, Evidence], quota: int, seed: int, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(case[0]))))
    frame, evidence = shuffled(case, list(order))
    before = select(case[0], quota=quota, method=method, evidence=case[1], seed=seed)
    assert before.equals(select(frame, quota=quota, method=method, evidence=evidence, seed=seed))


@pytest.mark.parametrize("method", METHODS)
@given(case=cases(), quota=st.integers(0, 30))
@settings(max_examples=25)
def test_every_candidate_is_decided_and_ranks_count_up(
    method: recipe.Method, case: tuple[pl.DataFrame, Evidence], quota: int
) -> None:
    frame, evidence = case
    decisions = frames.check(select(frame, quota=quota, method=method, evidence=evidence, seed=0), frames.DECISIONS)
    assert sorted(decisions["example_id"]) == sorted(frame["example_id"])
    ranks = decisions["rank"].drop_nulls().to_list()
    assert ranks == list(range(len(ranks)))
    assert decisions["kept"].to_list() == [rank is not None and rank < quota for rank in decisions["rank"]]
    assert decisions["kept"].sum() == min(quota, len(ranks))
    if method not in ("ifd", "ifd_coverage"):
        assert len(ranks) == len(frame)


@pytest.mark.parametrize("method", METHODS)
def test_the_ranking_goes_on_beyond_the_greedy_depth(method: recipe.Method) -> None:
    n = 150
    evidence = Evidence(vectors=points(n), scores=np.linspace(0, 0.9, n))
    decisions = select(candidates(n), quota=3, method=method, evidence=evidence, seed=0)
    assert decisions["rank"].to_list() == list(range(n))
    if method in ("k_center", "facility_location", "medoids", "ifd_coverage"):
        assert decisions["gain"].is_null().sum() == n - (2 * 3 + 64)


@pytest.mark.parametrize("method", ["random", "stratified"])
def test_another_seed_chooses_other_rows(method: recipe.Method) -> None:
    evidence = Evidence(vectors=points(60))
    one, two = (picked(select(candidates(60), quota=20, method=method, evidence=evidence, seed=s)) for s in (1, 2))
    assert set(one) != set(two)


@pytest.mark.parametrize("method", METHODS)
def test_one_candidate_is_chosen(method: recipe.Method) -> None:
    evidence = Evidence(vectors=points(1), scores=np.array([0.5]))
    decisions = select(candidates(1), quota=1, method=method, evidence=evidence, seed=0)
    assert decisions.select("kept", "reason", "rank").row(0) == (True, "chosen", 0)


@pytest.mark.parametrize("method", NEED_VECTORS)
def test_a_method_that_needs_vectors_says_so(method: recipe.Method) -> None:
    with pytest.raises(VectorError, match=f"{method} needs the candidates' vectors"):
        select(candidates(3), quota=1, method=method, evidence=Evidence(scores=np.zeros(3)), seed=0)


@pytest.mark.parametrize("method", NEED_SCORES)
def test_a_method_that_needs_scores_says_so(method: recipe.Method) -> None:
    with pytest.raises(BalkitError, match=f"{method} needs scores"):
        select(candidates(3), quota=1, method=method, evidence=Evidence(vectors=points(3)), seed=0)


def test_every_method_of_a_recipe_is_there_and_reads_what_the_recipe_says() -> None:
    assert set(methods.METHODS) == set(METHODS)
    assert {method: needs_scores(method) for method in NEED_SCORES} == recipe.SCORES_OF


@pytest.mark.parametrize("value", [np.nan, np.inf, 5.0])
def test_an_unusable_vector_names_its_row(value: float) -> None:
    vectors = points(4)
    vectors[2, 1] = value
    with pytest.raises(VectorError, match=r"candidates: 1 of 4 vectors .* row 2"):
        select(candidates(4), quota=1, method="k_center", evidence=Evidence(vectors=vectors), seed=0)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (candidates(2).drop("domain"), "lack domain"),
        (pl.concat([candidates(2), candidates(2)]), "twice"),
        (candidates(2).with_columns(domain=pl.col("example_id")), "2 domains"),
    ],
)
def test_a_frame_that_is_not_candidates_of_one_domain_is_refused(frame: pl.DataFrame, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        select(frame, quota=1, method="random", seed=0)


def test_a_negative_quota_and_missing_rows_of_evidence_are_refused() -> None:
    with pytest.raises(BalkitError, match="-1"):
        select(candidates(2), quota=-1, method="random", seed=0)
    with pytest.raises(BalkitError, match="3 scores for 2 candidates"):
        select(candidates(2), quota=1, method="ifd", evidence=Evidence(scores=np.zeros(3)), seed=0)


def test_random_ranks_by_the_hash_of_seed_and_id() -> None:
    decisions = select(candidates(20), quota=5, method="random", seed=7)
    expected = sorted(candidates(20)["example_id"], key=lambda example: texts.rank_key(7, example))
    assert decisions["example_id"].to_list() == expected


def test_ifd_takes_the_highest_drops_the_misaligned_and_keeps_the_unscored_for_last() -> None:
    scores = np.array([0.3, 0.8, 1.0, np.nan, 0.5, np.inf])
    evidence = Evidence(scores=scores, reasons=[None, None, None, "too_long", None, None])
    rows = select(candidates(6), quota=2, method="ifd", evidence=evidence, seed=0)
    told = {row["example_id"]: (row["rank"], row["kept"], row["reason"]) for row in rows.iter_rows(named=True)}
    assert told["e1"] == (0, True, "chosen")
    assert told["e4"] == (1, True, "chosen")
    assert told["e0"] == (2, False, "below quota")
    assert told["e2"] == (None, False, "ifd at or above max")
    assert told["e3"][1:] == (False, "unscored: too_long")
    assert told["e5"][1:] == (False, "unscored: not_finite")
    assert sorted(told[example][0] for example in ("e3", "e5")) == [3, 4]


def test_an_unscored_row_is_chosen_only_when_no_scored_one_is_left() -> None:
    evidence = Evidence(scores=np.array([np.nan, 0.4]), reasons=["empty", None])
    rows = select(candidates(2), quota=2, method="ifd", evidence=evidence, seed=0)
    assert rows["reason"].to_list() == ["chosen", "chosen, unscored: empty"]


def test_max_ifd_is_the_users() -> None:
    evidence = Evidence(scores=np.array([0.3, 1.4]), max_ifd=2.0)
    assert picked(select(candidates(2), quota=1, method="ifd", evidence=evidence, seed=0)) == [1]


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12))
@settings(max_examples=80)
def test_every_prefix_holds_each_clusters_share_rounded_up_or_down(sizes: list[int]) -> None:
    cluster = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    order = cluster[strata.interleaved(cluster, depth=len(cluster))]
    for length in range(1, len(order) + 1):
        share = length * np.array(sizes) / len(order)
        assert (np.abs(np.bincount(order[:length], minlength=len(sizes)) - share) < 1).all()


def test_stratified_finds_the_clusters_and_takes_their_shares() -> None:
    sizes = [60, 30, 10]
    evidence = Evidence(vectors=groups(sizes), strata=20)
    for quota in (10, 20, 50):
        rows = picked(select(candidates(100), quota=quota, method="stratified", evidence=evidence, seed=3))
        counts = np.bincount(np.repeat(np.arange(3), sizes)[rows], minlength=3)
        # 20 strata split the three groups further, so each of them may be off by some rounding.
        assert np.abs(counts - quota * np.array(sizes) / 100).max() <= 4


def test_k_center_goes_to_the_farthest_row() -> None:
    vectors = unit(np.array([[1, 0], [0.99, 0.1], [0, 1], [0.7, 0.7]]))
    evidence = Evidence(vectors=vectors, chosen=vectors[:1])
    rows = select(candidates(4), quota=4, method="k_center", evidence=evidence, seed=0)
    assert rows["example_id"].to_list() == ["e2", "e3", "e1", "e0"]
    np.testing.assert_allclose(rows["gain"], [1.0, 0.293, 0.005, 0.0], atol=2e-3)


def test_k_center_starts_in_the_middle_and_takes_duplicates_last() -> None:
    vectors = unit(np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0.2]]))
    rows = picked(select(candidates(4), quota=4, method="k_center", evidence=Evidence(vectors=vectors), seed=0))
    assert rows[0] == 3
    assert set(rows[1:3]) in ({0, 2}, {1, 2})


def test_coverage_continues_from_what_is_chosen() -> None:
    vectors = groups([5, 3])
    alone = picked(
        select(candidates(8), quota=1, method="facility_location", evidence=Evidence(vectors=vectors), seed=0)
    )
    after = Evidence(vectors=vectors, chosen=vectors[:1])
    next_ = picked(select(candidates(8), quota=1, method="facility_location", evidence=after, seed=0))
    assert alone[0] < 5 <= next_[0]


def covered_by(similarities: np.ndarray, rows: tuple[int, ...], start: np.ndarray) -> float:
    return float(np.maximum(similarities[list(rows)].max(axis=0), start).sum())


def plain_greedy(similarities: np.ndarray, start: np.ndarray, depth: int) -> list[int]:
    rows: list[int] = []
    for _ in range(depth):
        added = np.maximum(similarities - start, 0).sum(axis=1)
        added[rows] = -1
        rows.append(int(added.argmax()))
        start = np.maximum(start, similarities[rows[-1]])
    return rows


@given(n=st.integers(1, 40), kinds=st.integers(1, 40), m=st.integers(0, 4), seed=st.integers(0, 999))
@settings(max_examples=60)
def test_gains_that_are_kept_up_to_date_are_those_of_plain_greedy(n: int, kinds: int, m: int, seed: int) -> None:
    which = np.random.default_rng(seed).integers(0, kinds, n)
    vectors = on_grid(points(kinds, seed=seed)[which], name="vectors")
    chosen = on_grid(points(m, seed=seed + 1), name="chosen")
    picks = facility.facility_location(vectors, chosen=chosen, depth=n)
    similarities = np.clip(vectors @ vectors.T // 128, 0, 32767)
    start = np.clip(vectors @ chosen.T // 128, 0, 32767).max(axis=1, initial=0) if m else np.zeros(n)
    assert picks.rows == plain_greedy(similarities, start, n)
    total = covered_by(similarities, tuple(range(n)), start) - start.sum()
    np.testing.assert_allclose(sum(picks.gains), total / n / 32768, atol=1e-9)
    assert all(later <= earlier for earlier, later in zip(picks.gains, picks.gains[1:], strict=False))


@pytest.mark.parametrize("m", [0, 5])
@pytest.mark.parametrize("depth", [1, 30, 120, 600])
def test_rows_in_parts_are_picked_once_and_cover_about_as_much(depth: int, m: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(facility, "_FEW", 100)
    monkeypatch.setattr(facility, "_CELLS", 1 << 16)
    vectors = on_grid(points(600), name="vectors")
    chosen = on_grid(points(m, seed=5), name="chosen") if m else vectors[:0]
    whole = facility.facility_location(vectors, chosen=chosen, depth=depth)
    parts = facility.facility_location(vectors, chosen=chosen, depth=depth, rows_at_once=100)
    assert len(set(parts.rows)) == len(parts.rows) == depth
    similarities = np.maximum(vectors @ vectors.T, 0)
    start = (vectors @ chosen.T).max(axis=1, initial=0)
    best, found = (covered_by(similarities, tuple(picks.rows), start) for picks in (whole, parts))
    assert found >= 0.95 * best


def test_medoids_stand_for_their_clusters_the_largest_first() -> None:
    sizes = [30, 5, 15]
    evidence = Evidence(vectors=groups(sizes))
    rows = select(candidates(50), quota=3, method="medoids", evidence=evidence, seed=0)
    of = np.repeat(np.arange(3), sizes)
    assert of[picked(rows)].tolist() == [0, 2, 1]
    for row in picked(rows):
        members = evidence.vectors[of == of[row]]  # type: ignore[index]
        sums = (members @ members.T).sum(axis=0)
        best = np.flatnonzero(of == of[row])[sums.argmax()]
        assert sums.max() - sums[np.flatnonzero(of == of[row]).tolist().index(row)] < 0.01 or best == row


@given(n=st.integers(2, 60), quota=st.integers(1, 12), m=st.integers(0, 4), seed=st.integers(0, 999))
@settings(max_examples=60)
def test_medoids_cover_no_less_than_the_greedy_they_begin_from(n: int, quota: int, m: int, seed: int) -> None:
    vectors = on_grid(points(n, seed=seed), name="vectors")
    chosen = on_grid(points(m, seed=seed + 1), name="chosen") if m else vectors[:0]
    depth = min(n, 2 * quota)
    greedy = facility.facility_location(vectors, chosen=chosen, depth=depth).rows[:quota]
    found = medoids.medoids(vectors, chosen=chosen, quota=quota, depth=depth).rows
    assert len(set(found)) == len(found) == depth
    similarities = np.clip(vectors @ vectors.T // 128, 0, 32767)
    start = np.clip(vectors @ chosen.T // 128, 0, 32767).max(axis=1, initial=0) if m else np.zeros(n)
    assert covered_by(similarities, tuple(found[:quota]), start) >= covered_by(similarities, tuple(greedy), start)


@pytest.mark.parametrize("method", ["loss", "uncertainty"])
def test_the_highest_score_comes_first_and_the_unscored_last(method: recipe.Method) -> None:
    evidence = Evidence(scores=np.array([0.3, 2.8, np.nan, 1.0]), reasons=[None, None, "too_long", None])
    rows = select(candidates(4), quota=2, method=method, evidence=evidence, seed=0)
    assert rows["example_id"].to_list() == ["e1", "e3", "e0", "e2"]
    assert rows["gain"].to_list() == [2.8, 1.0, 0.3, None]
    assert rows["reason"].to_list() == ["chosen", "chosen", "below quota", "unscored: too_long"]


@given(case=cases(), quota=st.integers(0, 30))
@settings(max_examples=25)
def test_ifd_coverage_of_weight_one_is_ifd(case: tuple[pl.DataFrame, Evidence], quota: int) -> None:
    frame, evidence = case
    evidence = replace(evidence, quality_weight=1.0)
    both = [
        select(frame, quota=quota, method=method, evidence=evidence, seed=0)["example_id"].to_list()
        for method in ("ifd", "ifd_coverage")
    ]
    assert both[0] == both[1]


@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_ifd_coverage_keeps_every_score_in_detail_and_only_coverage_in_gain(weight: float) -> None:
    scores = np.array([0.3, 0.6, 1.2, np.nan])
    evidence = Evidence(vectors=points(4), scores=scores, quality_weight=weight)
    rows = select(candidates(4), quota=1, method="ifd_coverage", evidence=evidence, seed=0).sort("example_id")
    assert rows["detail"].to_list() == ["ifd 0.3", "ifd 0.6", "ifd 1.2", None]
    assert rows["reason"][2] == "ifd at or above max"
    assert rows["gain"].is_null().to_list() == [weight == 1, weight == 1, True, True]


def test_ifd_coverage_of_weight_nothing_is_facility_location() -> None:
    evidence = Evidence(vectors=points(80), scores=np.linspace(0, 0.9, 80), quality_weight=0)
    both = [
        select(candidates(80), quota=8, method=method, evidence=evidence, seed=0).head(16)["example_id"].to_list()
        for method in ("facility_location", "ifd_coverage")
    ]
    assert both[0] == both[1]


def test_more_weight_on_quality_gives_higher_scores_and_less_coverage() -> None:
    scores = np.random.default_rng(3).uniform(0, 0.99, 200)
    vectors = points(200)
    told = []
    for weight in (0.0, 0.3, 0.7, 1.0):
        evidence = Evidence(vectors=vectors, scores=scores, quality_weight=weight)
        rows = picked(select(candidates(200), quota=20, method="ifd_coverage", evidence=evidence, seed=0))
        told.append((scores[rows].mean(), -spread(vectors[rows], vectors).mean_similarity))
    assert told == sorted(told)
    assert [coverage for _, coverage in told] == sorted(coverage for _, coverage in told)


@given(seed=st.integers(0, 999), quota=st.integers(1, 3))
@settings(max_examples=15)
def test_facility_location_reaches_its_share_of_the_best_coverage(seed: int, quota: int) -> None:
    vectors = points(10, seed=seed)
    rows = picked(
        select(candidates(10), quota=quota, method="facility_location", evidence=Evidence(vectors=vectors), seed=0)
    )
    similarities = np.maximum(vectors @ vectors.T, 0)
    best = max(covered_by(similarities, some, np.zeros(10)) for some in combinations(range(10), quota))
    assert covered_by(similarities, tuple(rows), np.zeros(10)) >= (1 - 1 / np.e) * best


def test_blocks_of_similarities_do_not_change_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    evidence = Evidence(vectors=points(120), chosen=points(5, seed=9), scores=np.linspace(0, 0.9, 120), strata=5)
    whole = [select(candidates(120), quota=9, method=method, evidence=evidence, seed=0) for method in NEED_VECTORS]
    for module in (facility, medoids, sys.modules["balkit.selection.grid"]):
        monkeypatch.setattr(module, "CELLS_AT_ONCE", 360)
    monkeypatch.setattr(facility, "_CACHED", 240)
    parts = [select(candidates(120), quota=9, method=method, evidence=evidence, seed=0) for method in NEED_VECTORS]
    assert all(one.equals(other) for one, other in zip(whole, parts, strict=True))


def test_spread_measures_the_worst_and_the_mean_row() -> None:
    every = unit(np.array([[1, 0], [0, 1], [1, 1]]))
    told = spread(every[:1], every)
    assert told.radius == pytest.approx(1, abs=1e-6)
    assert told.mean_similarity == pytest.approx((1 + 0 + 2**-0.5) / 3, abs=1e-6)
    assert spread(every, every).radius == pytest.approx(0, abs=1e-6)


def test_spread_of_nothing_is_defined() -> None:
    assert spread(points(0), points(3)).radius == 1
    assert spread(points(2), points(0)).mean_similarity == 1


def test_the_pages_method_of_ones_own_works_and_every_method_is_on_the_page() -> None:
    page = (Path(__file__).parents[1] / "docs" / "selection.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["chosen"].filter("kept")["example_id"].to_list() == ["b"]
    assert set(re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE)) == set(METHODS)
    (body,) = re.findall(r"^```yaml\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    assert recipe.sections.Select(**yaml.safe_load(body)["select"]).then == "ifd_coverage"
