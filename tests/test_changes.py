"""What a diff of two versions counts."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from pool_rows import add, examples, rationales

from balkit.changes import changed_rows, changes
from balkit.errors import PoolError
from balkit.pool import Commit, Pool


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """Three examples of domain a and two of b in version 1 and 2."""
    made = Pool.create(tmp_path / "pool")
    add(made, "a1", "a2", "a3", domain="a")
    add(made, "b1", "b2", domain="b")
    return made


def found(pool: Pool, since: int, until: int) -> dict[str, dict[str, int]]:
    """The counts above zero by domain."""
    rows = changes(pool, since=since, until=until).rows(named=True)
    return {row["domain"]: {name: n for name, n in row.items() if name != "domain" and n} for row in rows}


def test_what_was_added_and_retired_counts_under_its_domain(pool: Pool) -> None:
    pool.retire(examples("a1")["example_id"].to_list(), reason="wrong")
    add(pool, "a4", "a5", domain="a")
    add(pool, "c1", domain="c")
    assert found(pool, 2, pool.version) == {"a": {"added": 2, "retired": 1}, "c": {"added": 1}}
    assert found(pool, 0, 2) == {"a": {"added": 3}, "b": {"added": 2}}


def test_a_new_label_is_a_move_out_of_one_domain_and_into_another(pool: Pool) -> None:
    labels = examples("a1", "a2").select("example_id", domain=pl.lit("b"), split=pl.Series(["train", "dev"]))
    pool.relabel(labels, message="these were b")
    assert found(pool, 2, 3) == {"a": {"moved_out": 2}, "b": {"moved_in": 2, "split_changed": 1}}


def test_rationales_count_as_accepted_or_rejected(pool: Pool) -> None:
    worked = pl.concat([rationales(examples("a1", "b1")), rationales(examples("a2"), accepted=False)])
    pool.commit(Commit("answers", rationales=worked))
    assert found(pool, 2, 3) == {"a": {"accepted": 1, "rejected": 1}, "b": {"accepted": 1}}


def test_rationales_of_a_retired_example_keep_its_domain(pool: Pool) -> None:
    pool.commit(Commit("answers", rationales=rationales(examples("a1"))))
    pool.retire(examples("a1")["example_id"].to_list(), reason="wrong")
    assert found(pool, 2, 4) == {"a": {"retired": 1, "accepted": 1}}


def test_the_rows_behind_a_diff_name_what_changed(pool: Pool) -> None:
    pool.relabel(examples("a1").select("example_id", domain=pl.lit("b"), split=pl.lit("dev")), message="it was b")
    pool.commit(Commit("answers", rationales=rationales(examples("b1"), accepted=False)))
    rows = changed_rows(pool, since=2, until=4)
    assert rows.select("domain", "change", "detail", "prompt").rows() == [
        ("a", "moved_out", "to b", "a1"),
        ("b", "moved_in", "from a", "a1"),
        ("b", "rejected", "answer differs", "b1"),
        ("b", "split_changed", "train to dev", "a1"),
    ]
    counts = changes(pool, since=2, until=4)
    assert sum(counts.select(pl.exclude("domain").sum()).row(0)) == rows.height


def test_versions_may_be_named_by_their_tags(pool: Pool) -> None:
    pool.tag(1, "start")
    assert changes(pool, since="start", until="2").equals(changes(pool, since=1, until=2))


def test_a_version_does_not_differ_from_itself(pool: Pool) -> None:
    assert changes(pool, since=2, until=2).is_empty()


def test_versions_go_up_and_exist(pool: Pool) -> None:
    with pytest.raises(PoolError, match="name the older one first"):
        changes(pool, since=2, until=1)
    with pytest.raises(PoolError, match="no version 9"):
        changes(pool, since=1, until=9)
