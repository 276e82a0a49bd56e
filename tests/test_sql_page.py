"""docs/sql.md: its views have the columns that it names, its numbers are what they are called."""

from __future__ import annotations

import math
import re
from pathlib import Path

import polars as pl
import pytest
from small import Rule, make_pool, make_recipe

from balkit.pool import Pool
from balkit.stages import run
from balkit.teacher import Scripted

PAGE = (Path(__file__).parent.parent / "docs" / "sql.md").read_text(encoding="utf-8")
VIEWS = dict(re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", PAGE, flags=re.MULTILINE))


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    made = make_pool(tmp_path_factory.mktemp("sql") / "pool")
    run(made, make_recipe(select={"first": "k_center", "then": "k_center"}), teacher=Scripted(Rule()), train=False)
    return made


@pytest.mark.parametrize("view", sorted(VIEWS))
def test_a_view_has_the_columns_of_the_page_and_rows(pool: Pool, view: str) -> None:
    found = pool.sql(f"SELECT * FROM {view}")
    assert found.columns == VIEWS[view].split(", ")
    assert view == "rejections" or found.height


def test_every_view_is_on_the_page(pool: Pool) -> None:
    views = pool.sql("SELECT view_name FROM duckdb_views() WHERE NOT internal")["view_name"]
    assert set(views) - {"snapshot_parts"} == set(VIEWS)


def test_head_and_tail_are_told_by_the_even_share(pool: Pool) -> None:
    found = pool.sql("SELECT domain, real, part, cumulative_share FROM head_tail")
    assert dict(found.select("domain", "real").iter_rows()) == {"fruit": 40, "tool": 12, "bird": 3}
    assert found["part"].to_list() == ["head", "tail", "tail"]
    assert found["cumulative_share"].to_list() == pytest.approx([40 / 55, 52 / 55, 1.0])


def test_imbalance_is_measured_as_it_is_defined(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool")
    row = pool.sql("SELECT * FROM imbalance WHERE split = 'train'").row(0, named=True)
    counts = [3, 12, 40]
    entropy = -sum(n / 55 * math.log(n / 55) for n in counts)
    gini = sum(abs(a - b) for a in counts for b in counts) / (2 * len(counts) * sum(counts))
    assert (row["domains"], row["rows"], row["largest"], row["smallest"]) == (3, 55, 40, 3)
    assert row["imbalance_ratio"] == pytest.approx(40 / 3)
    assert (row["gini"], row["entropy"]) == pytest.approx((gini, entropy))
    assert row["effective_domains"] == pytest.approx(math.exp(entropy))
    even = pool.sql("SELECT * FROM imbalance WHERE split = 'eval'").row(0, named=True)
    assert (even["gini"], even["effective_domains"]) == pytest.approx((0.0, 3.0), abs=1e-9)


def test_rejections_count_what_was_refused(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool")
    recipe = make_recipe(fill=["real"], select={"first": "k_center", "then": "k_center"})
    result = run(pool, recipe, teacher=Scripted(Rule(wrong="apple")), train=False)
    found = pool.sql("SELECT * FROM rejections WHERE step = 'rationale'")
    assert set(found["reason"]) == {"answer_contradicts_reference"}
    refused = pool.rationales().filter(~pl.col("accepted"))["example_id"].n_unique()
    assert found["rows"].sum() == refused > 0
    assert set(found["run_id"]) == {result.run_id}
