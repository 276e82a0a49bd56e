"""Quotas: exact sums, the paper's formula, and what happens when a domain cannot meet its quota."""

from __future__ import annotations

from fractions import Fraction
from typing import get_args

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balkit import balance
from balkit.errors import BudgetError
from balkit.recipe import Balance

POLICIES = get_args(Balance.model_fields["policy"].annotation)
COUNTS = st.dictionaries(st.text(min_size=1, max_size=4), st.integers(0, 5000), min_size=1, max_size=30).filter(
    lambda counts: any(counts.values())
)
MATH = {
    "Algebra": 1744,
    "Intermediate Algebra": 763,
    "Prealgebra": 561,
    "Geometry": 349,
    "Number Theory": 290,
    "Counting & Probability": 231,
    "Precalculus": 187,
}


def total(plan: pl.DataFrame, domain: str) -> int:
    return int(plan.filter(pl.col("domain") == domain)["quota"].sum())


@given(budget=st.integers(1, 10**6), stages=st.integers(1, 50))
def test_stage_budgets_sum_to_the_budget(budget: int, stages: int) -> None:
    parts = [balance.stage_budget(budget, stage=i, stages=stages) for i in range(1, stages + 1)]
    assert sum(parts) == budget
    assert max(parts) - min(parts) <= 1


@given(counts=COUNTS, extra=st.integers(0, 10_000), stages=st.integers(1, 12), policy=st.sampled_from(POLICIES))
def test_quotas_are_integers_that_sum_to_each_stage_budget(
    counts: dict[str, int], extra: int, stages: int, policy: str
) -> None:
    budget = len(counts) + extra
    plan = balance.schedule(counts, budget_rows=budget, stages=stages, policy=Balance(policy=policy))
    assert plan["quota"].min() >= 0
    sums = plan.group_by("stage").agg(pl.col("quota").sum()).sort("stage")
    assert sums["quota"].to_list() == [balance.stage_budget(budget, stage=i, stages=stages) for i in sums["stage"]]


@given(counts=COUNTS, policy=st.sampled_from(POLICIES), stages=st.integers(1, 8), data=st.data())
def test_shares_sum_to_exactly_one(counts: dict[str, int], policy: str, stages: int, data: st.DataObject) -> None:
    stage = data.draw(st.integers(1, stages))
    assert sum(balance.shares(counts, policy=Balance(policy=policy), stage=stage, stages=stages).values()) == 1


@given(counts=COUNTS, policy=st.sampled_from(POLICIES), extra=st.integers(0, 500), stages=st.integers(1, 20))
def test_rounding_over_all_stages_stays_near_the_ideal(
    counts: dict[str, int], policy: str, extra: int, stages: int
) -> None:
    budget = len(counts) + extra
    section = Balance(policy=policy)
    plan = balance.schedule(counts, budget_rows=budget, stages=stages, policy=section)
    ideal = dict.fromkeys(counts, Fraction(0))
    for stage in range(1, stages + 1):
        rows = balance.stage_budget(budget, stage=stage, stages=stages)
        for domain, share in balance.shares(counts, policy=section, stage=stage, stages=stages).items():
            ideal[domain] += rows * share
    assert all(abs(total(plan, domain) - ideal[domain]) < 2 for domain in counts)


def test_adaptive_is_the_papers_formula_on_math() -> None:
    # method.md: at B = 2,100 Precalculus asks for 218 rows by the paper's formula and 177 by the released code.
    paper = balance.schedule(MATH, budget_rows=2100, stages=5, policy=Balance(policy="adaptive"))
    release = balance.schedule(MATH, budget_rows=2100, stages=5, policy=Balance(policy="adaptive_release"))
    assert total(paper, "Precalculus") == 218
    assert total(release, "Precalculus") in (176, 177)


def test_the_last_adaptive_stage_is_balanced_and_the_first_released_one_is_natural() -> None:
    last = balance.shares(MATH, policy=Balance(policy="adaptive"), stage=5, stages=5)
    first = balance.shares(MATH, policy=Balance(policy="adaptive_release"), stage=1, stages=5)
    assert set(last.values()) == {Fraction(1, 7)}
    assert first["Algebra"] == Fraction(1744, 4125)


@pytest.mark.parametrize(("exponent", "same_as"), [(1.0, "natural"), (0.0, "uniform")])
def test_temperature_spans_natural_and_uniform(exponent: float, same_as: str) -> None:
    plan = balance.schedule(MATH, budget_rows=700, stages=2, policy=Balance(policy="temperature", exponent=exponent))
    assert plan.equals(balance.schedule(MATH, budget_rows=700, stages=2, policy=Balance(policy=same_as)))  # type: ignore[arg-type]


def test_small_stages_do_not_starve_the_same_domains() -> None:
    counts = {f"d{i}": 10 for i in range(10)}
    plan = balance.schedule(counts, budget_rows=20, stages=4, policy=Balance(policy="uniform"))
    assert {total(plan, domain) for domain in counts} == {2}


def test_quotas_do_not_depend_on_the_order_of_domains() -> None:
    policy = Balance(policy="adaptive")
    backwards = dict(reversed(MATH.items()))
    assert balance.schedule(backwards, budget_rows=999, stages=4, policy=policy).equals(
        balance.schedule(MATH, budget_rows=999, stages=4, policy=policy)
    )


def test_a_budget_below_one_row_a_domain_is_refused_with_the_number_that_would_do() -> None:
    with pytest.raises(BudgetError, match="at least 7"):
        balance.schedule(MATH, budget_rows=6, stages=1, policy=Balance())


def test_natural_refuses_a_pool_without_real_examples() -> None:
    with pytest.raises(BudgetError, match="no domain has a real training example"):
        balance.shares({"a": 0, "b": 0}, policy=Balance(policy="natural"), stage=1, stages=1)


@given(
    room=st.dictionaries(st.text(min_size=1, max_size=2), st.integers(0, 50), max_size=8),
    lacking=st.integers(0, 300),
)
def test_what_one_domain_lacks_goes_to_others_within_their_room(room: dict[str, int], lacking: int) -> None:
    share = dict.fromkeys(room, Fraction(1, max(len(room), 1)))
    given_ = balance.redistribute(lacking, share=share, room=room)
    assert sum(given_.values()) == min(lacking, sum(room.values()))
    assert all(0 < rows <= room[domain] for domain, rows in given_.items())


def test_fill_takes_real_rows_first_then_writes_then_repeats() -> None:
    quotas = balance.fill_quotas(
        {"head": 10, "tail": 10, "empty": 4},
        stage=2,
        unused={"head": 30, "tail": 6},
        repeatable=["head", "tail"],
        fill=("real", "repeat"),
    ).rows_by_key("domain", named=True)
    assert quotas["head"][0] | {"take": 10, "repeat": 0, "short": 0, "tail": False} == quotas["head"][0]
    assert quotas["tail"][0] | {"take": 6, "repeat": 4, "short": 0, "tail": True} == quotas["tail"][0]
    assert quotas["empty"][0] | {"take": 0, "repeat": 0, "short": 4, "tail": True} == quotas["empty"][0]
