"""What a diff of two versions counts."""

from __future__ import annotations

import random
from pathlib import Path

import polars as pl
import pytest
from once import copied
from pool_rows import add, examples, rationales

from balkit.changes import changed_rows, changes
from balkit.errors import PoolError
from balkit.pool import Commit, Pool
from balkit.pool.reads import View


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """Three examples of domain a and two of b in version 1 and 2."""
    return copied(two_versions, tmp_path / "pool")


def two_versions(folder: Path) -> None:
    made = Pool.create(folder)
    add(made, "a1", "a2", "a3", domain="a")
    add(made, "b1", "b2", domain="b")


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


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.long
def test_a_diff_is_what_a_comparison_of_both_versions_gives(tmp_path: Path, seed: int) -> None:
    draw, pool = random.Random(seed), Pool.create(tmp_path / "pool")
    for number in range(12):
        used = pool.examples()
        some = used.sample(min(used.height, draw.randint(0, 4)), seed=draw.randrange(2**32))
        step = draw.choice(["add", "add", "retire", "relabel", "work"])
        if step == "add" or some.is_empty():
            asked = [f"{number} {n}" for n in range(draw.randint(1, 6))]
            add(pool, *asked, domain=draw.choice("abc"), split=draw.choice(["train", "dev", "eval"]))
        elif step == "retire":
            pool.retire(some["example_id"].to_list(), reason="odd")
        elif step == "relabel":
            splits = [draw.choice(["train", "dev", "eval"]) for _ in range(some.height)]
            labels = some.select("example_id", domain=pl.lit(draw.choice("abc")), split=pl.Series(splits))
            pool.relabel(labels, message="moved")
        else:
            worked = rationales(some, source=f"key {number}", accepted=draw.random() < 0.6)
            pool.commit(Commit("answers", rationales=worked))
    newest = pool.version
    for since, until in ((0, newest), (newest // 3, newest), (2, newest // 2), (newest - 1, newest)):
        rows = changed_rows(pool, since=since, until=until)
        assert rows.rows() == compared(pool.at(since), pool.at(until)).rows()


def compared(old: View, new: View) -> pl.DataFrame:
    """The rows of a diff, from all rows of both versions."""
    before, after = old.examples(), new.examples()
    kept = before.join(after, on="example_id", suffix="_now")
    moved = kept.filter(pl.col("domain") != pl.col("domain_now"))
    split = kept.filter(pl.col("split") != pl.col("split_now"))
    worked = new.rationales().join(old.rationales(), on="rationale_id", how="anti")
    known = pl.concat([after, before]).unique("example_id", keep="first", maintain_order=True)
    worked = worked.join(known.select("example_id", "domain", "prompt"), on="example_id", how="left")
    nothing = pl.lit(None, dtype=pl.String)
    parts = {
        "added": (after.join(before, on="example_id", how="anti"), nothing),
        "retired": (before.join(after, on="example_id", how="anti"), nothing),
        "moved_in": (moved.with_columns(domain="domain_now", other="domain"), pl.format("from {}", "other")),
        "moved_out": (moved, pl.format("to {}", "domain_now")),
        "split_changed": (split.with_columns(domain="domain_now"), pl.format("{} to {}", "split", "split_now")),
        "accepted": (worked.filter("accepted"), nothing),
        "rejected": (worked.filter(~pl.col("accepted")), pl.col("reason")),
    }
    rows = pl.concat(
        part.select("domain", pl.lit(name).alias("change"), "example_id", detail.alias("detail"), "prompt")
        for name, (part, detail) in parts.items()
    )
    return rows.sort("domain", "change", "example_id", "detail", nulls_last=True)
