"""A domain's quota, shared out over the clusters inside it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import WORDS, Rule, make_pool, make_recipe

from balkit import selection
from balkit.errors import RecipeError, RunError
from balkit.explaining import Choice
from balkit.pool import Pool
from balkit.recipe import Balance
from balkit.stages import run
from balkit.teacher import Scripted
from balkit.within import Within

SIZES = {"common": 30, "middling": 9, "rare": 3}


def examples(sizes: dict[str, int]) -> tuple[pl.DataFrame, dict[str, str]]:
    cluster = {f"{name}{n}": name for name, size in sizes.items() for n in range(size)}
    return pl.DataFrame({"example_id": list(cluster), "domain": "fruit"}), cluster


def by_hash(some: pl.DataFrame, owed: int) -> pl.DataFrame:
    return selection.select(some, quota=owed, method="random", seed=0)


def counted(within: Within, frame: pl.DataFrame) -> Counter[str]:
    return Counter(within.cluster[example] for example in frame["example_id"])


@given(
    sizes=st.dictionaries(st.sampled_from("abcde"), st.integers(1, 20), min_size=1),
    policy=st.sampled_from(["natural", "uniform", "adaptive", "feedback"]),
    data=st.data(),
)
@settings(max_examples=40)
def test_every_candidate_is_ranked_once_and_the_quota_is_met(
    sizes: dict[str, int], policy: str, data: st.DataObject
) -> None:
    frame, cluster = examples(sizes)
    quota = data.draw(st.integers(0, frame.height))
    within = Within(cluster, Balance(policy=policy), 3)  # type: ignore[arg-type]
    found = within.ranked(frame, taken=frame.clear(), quota=quota, stage=2, choose=by_hash)
    assert found["rank"].to_list() == list(range(frame.height))
    assert sorted(found["example_id"]) == sorted(frame["example_id"])
    assert found["kept"].to_list() == [rank < quota for rank in range(frame.height)]
    owed = within.quotas(frame, taken=frame.clear(), quota=quota, stage=2)
    assert counted(within, found.filter("kept")) == Counter({name: n for name, n in owed.items() if n})
    again = within.ranked(frame.reverse(), taken=frame.clear(), quota=quota, stage=2, choose=by_hash)
    assert again.equals(found)


def test_uniform_shares_give_a_small_cluster_its_part_and_its_lack_to_the_others() -> None:
    frame, cluster = examples(SIZES)
    within = Within(cluster, Balance(policy="uniform"), 1)
    owed = within.quotas(frame, taken=frame.clear(), quota=18, stage=1)
    assert owed == {"common": 8, "middling": 7, "rare": 3}
    natural = Within(cluster, Balance(policy="natural"), 1)
    assert natural.quotas(frame, taken=frame.clear(), quota=14, stage=1) == {"common": 10, "middling": 3, "rare": 1}


def test_a_cluster_that_gave_its_part_before_gives_less_now() -> None:
    frame, cluster = examples(SIZES)
    within = Within(cluster, Balance(policy="uniform"), 2)
    before = frame.filter(pl.col("example_id").is_in(["common0", "common1", "common2", "common3"]))
    left = frame.join(before, on="example_id", how="anti")
    assert within.quotas(left, taken=before, quota=5, stage=2) == {"common": 0, "middling": 3, "rare": 2}


def halves(pool: Pool) -> dict[str, str]:
    """Fruit with an apple in it, rare, and without; other domains whole."""
    found = pool.examples(origin="source")
    return {
        row["example_id"]: row["domain"] + (" with apple" if f" {WORDS['fruit'][0]}," in row["prompt"] else "")
        for row in found.iter_rows(named=True)
    }


@pytest.mark.long
def test_a_run_shares_a_domains_rows_out_over_its_clusters(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool")
    cluster = halves(pool)
    labels = pl.DataFrame({"example_id": list(cluster), "domain": list(cluster.values())})
    pool.set_domains("halves", labels, detail={})
    select = {"first": "random", "then": "random"}
    shares = {}
    for name, within in (("plain", None), ("within", "halves")):
        recipe = make_recipe(
            name=name, select=select, fill=["real"], budget_rows=24, balance={"policy": "uniform", "within": within}
        )
        planned = Choice.planned(pool, recipe).taken
        result = run(pool, recipe, teacher=Scripted(Rule()), train=False)
        rows = pool.snapshot(result.snapshot_id).rows
        assert set(planned["example_id"]) <= set(rows.filter(pl.col("stage") == 1)["example_id"])
        fruit = rows.filter(pl.col("domain") == "fruit")
        shares[name] = Counter(cluster[example] for example in fruit["example_id"])
    available = Counter(cluster.values())["fruit with apple"]
    fair = min(available, shares["within"].total() // 2)
    assert shares["within"]["fruit with apple"] >= fair - 1
    assert shares["within"]["fruit with apple"] > shares["plain"]["fruit with apple"]


def test_a_set_that_is_not_there_and_the_domains_own_set_are_refused(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool")
    with pytest.raises(RunError, match=r"balance\.within: 'nothing' is not in the pool"):
        Choice.planned(pool, make_recipe(balance={"within": "nothing"}))
    with pytest.raises(RecipeError, match="these are the domains already"):
        make_recipe(domain_set="topics", answers={"kind": "text"}, balance={"within": "topics"})
