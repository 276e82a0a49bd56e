"""Snapshots: order, digests, the line of defence around eval, files on demand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import polars as pl
import pytest
from once import copied
from pool_rows import add, call, examples, rationales, snapshot_rows, stage_commit

from balkit import frames, texts
from balkit.errors import PoolError
from balkit.pool import Commit, Pool, SnapshotDraft


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return copied(Pool.create, tmp_path / "pool")


def two_stages(pool: Pool) -> None:
    pool.commit(stage_commit(examples("c", "a", "b")))
    pool.commit(stage_commit(examples("e", "d", origin="synthetic"), stage=2, parent="run-s1"))


def test_a_snapshot_holds_its_parents_rows_verbatim_then_its_own(pool: Pool) -> None:
    two_stages(pool)
    first, second = pool.snapshot("run-s1"), pool.snapshot("run-s2")
    assert second.rows["prompt"].to_list() == ["c", "a", "b", "e", "d"]
    assert second.rows["position"].to_list() == [0, 1, 2, 3, 4]
    assert second.rows["stage"].to_list() == [1, 1, 1, 2, 2]
    assert second.rows.head(3).equals(first.rows)
    assert (second.parent, second.run_id, second.stage, second.version) == ("run-s1", "run", 2, 2)


def test_the_digest_is_of_the_ordered_ids_and_copies(pool: Pool) -> None:
    two_stages(pool)
    snapshot = pool.snapshot("run-s2")
    ids = [list(row) for row in snapshot.rows.select("example_id", "rationale_id", "copy").iter_rows()]
    assert snapshot.digest == texts.digest(ids)


def test_two_pools_with_the_same_commits_have_the_same_digests(tmp_path: Path) -> None:
    pools = [Pool.create(tmp_path / name) for name in ("one", "two")]
    for pool in pools:
        two_stages(pool)
    assert len({pool.snapshot("run-s2").digest for pool in pools}) == 1
    assert len({pool.log()["digest"][0] for pool in pools}) == 1


def test_a_repeat_is_another_row_of_the_same_example(pool: Pool) -> None:
    pool.commit(stage_commit(examples("a")))
    pool.commit(stage_commit(examples("a"), stage=2, parent="run-s1", copy=1))
    assert pool.snapshot("run-s2").rows["copy"].to_list() == [0, 1]
    repeats = pool.sql("SELECT snapshot_id, rows, source, synthetic, repeats FROM coverage_by_stage").rows()
    assert repeats == [("run-s1", 1, 1, 0, 0), ("run-s2", 1, 0, 0, 1)]


def test_the_same_row_twice_is_refused(pool: Pool) -> None:
    pool.commit(stage_commit(examples("a")))
    with pytest.raises(PoolError, match="stands twice"):
        pool.commit(stage_commit(examples("a"), stage=2, parent="run-s1"))
    assert pool.version == 1


def test_the_order_of_the_draft_is_that_of_its_positions(pool: Pool) -> None:
    commit = stage_commit(examples("a", "b"))
    assert commit.snapshot is not None
    turned = dataclasses.replace(commit.snapshot, rows=commit.snapshot.rows.reverse())
    pool.commit(dataclasses.replace(commit, snapshot=turned))
    assert pool.snapshot("run-s1").rows["prompt"].to_list() == ["a", "b"]


def test_an_unknown_snapshot_is_named_with_those_that_are_there(pool: Pool) -> None:
    two_stages(pool)
    with pytest.raises(PoolError, match="no snapshot 'run-s9'; there are: run-s1, run-s2"):
        pool.snapshot("run-s9")


def test_an_unknown_parent_is_refused(pool: Pool) -> None:
    with pytest.raises(PoolError, match="no snapshot 'run-s1'; there are: none yet"):
        pool.commit(stage_commit(examples("a"), stage=2, parent="run-s1"))


def test_the_same_stage_committed_again_changes_nothing(pool: Pool) -> None:
    commit = stage_commit(examples("a"))
    assert pool.commit(commit) == pool.commit(commit) == 1
    assert pool.commit(dataclasses.replace(commit, key=None)) == 1
    assert pool.snapshot("run-s1").rows.height == 1


def test_a_snapshot_never_changes(pool: Pool) -> None:
    pool.commit(stage_commit(examples("a")))
    other = dataclasses.replace(stage_commit(examples("b")), key=("run", 1, "again"))
    with pytest.raises(PoolError, match="a snapshot never changes"):
        pool.commit(other)


def test_deficits_and_recipe_are_kept(pool: Pool) -> None:
    commit = stage_commit(examples("a"))
    assert commit.snapshot is not None
    lacking = [{"domain": "b", "rows": 2, "given_to": {}}]
    pool.commit(dataclasses.replace(commit, snapshot=dataclasses.replace(commit.snapshot, deficits=lacking)))
    assert pool.snapshot("run-s1").deficits == lacking
    assert pool.snapshot("run-s1").recipe_yaml == "name: r\n"
    assert pool.snapshots().select("snapshot_id", "rows", "version").rows() == [("run-s1", 1, 1)]


def test_a_stage_that_adds_no_row_still_has_a_snapshot(pool: Pool) -> None:
    pool.commit(stage_commit(examples("a")))
    empty = SnapshotDraft("run", 2, "name: r\n", "run-s1", frames.SNAPSHOT_ROWS.empty(), [])
    pool.commit(Commit("stage 2", key=("run", 2, "data"), snapshot=empty))
    assert pool.snapshot("run-s2").digest == pool.snapshot("run-s1").digest
    assert pool.check() == []


def test_an_eval_example_never_reaches_a_snapshot(pool: Pool) -> None:
    mine = examples("a", split="eval")
    pool.commit(Commit("m", examples=mine))
    with pytest.raises(PoolError, match=r"row 0.*stands in the eval split: 'a'"):
        pool.commit(stage_commit(mine))
    assert pool.version == 1
    assert pool.rationales().height == 0


def test_a_prompt_that_normalised_stands_in_eval_never_reaches_a_snapshot(pool: Pool) -> None:
    add(pool, "What is  a tin?", split="eval")
    with pytest.raises(PoolError, match="1 rows may not train") as caught:
        pool.commit(stage_commit(examples("fine", "what is a TIN")))
    assert "row 1" in str(caught.value)
    assert "what is a TIN" in str(caught.value)


def test_a_parents_row_that_came_to_stand_in_eval_stops_the_next_stage(pool: Pool) -> None:
    pool.commit(stage_commit(examples("a")))
    add(pool, "A!", split="eval")
    with pytest.raises(PoolError, match="stands in the eval split"):
        pool.commit(stage_commit(examples("b"), stage=2, parent="run-s1"))
    assert pool.snapshot("run-s1").rows.height == 1


def test_a_retired_eval_example_defends_nothing_any_more(pool: Pool) -> None:
    ids = add(pool, "A!", split="eval")
    pool.retire(ids, reason="not ours")
    pool.commit(stage_commit(examples("a")))
    assert pool.snapshot("run-s1").rows.height == 1


def test_a_retired_example_never_reaches_a_snapshot(pool: Pool) -> None:
    pool.retire(add(pool, "a"), reason="wrong")
    with pytest.raises(PoolError, match="its example is retired"):
        pool.commit(stage_commit(examples("a")))


def test_a_rejected_rationale_never_reaches_a_snapshot(pool: Pool) -> None:
    mine = examples("a")
    worked = rationales(mine, accepted=False)
    draft = SnapshotDraft("run", 1, "name: r\n", None, snapshot_rows(mine, worked), [])
    with pytest.raises(PoolError, match="its rationale was rejected"):
        pool.commit(Commit("m", examples=mine, rationales=worked, snapshot=draft))


def test_a_snapshot_row_without_its_rationale_is_refused(pool: Pool) -> None:
    commit = dataclasses.replace(stage_commit(examples("a")), rationales=None)
    with pytest.raises(PoolError, match="its rationale is not in the pool"):
        pool.commit(commit)


def test_a_draft_whose_text_is_not_the_stored_one_is_refused(pool: Pool) -> None:
    commit = stage_commit(examples("a"))
    assert commit.snapshot is not None
    other = commit.snapshot.rows.with_columns(rationale=pl.lit("something else"))
    with pytest.raises(PoolError, match="rationale of row 0 is 'something else' in the draft"):
        pool.commit(dataclasses.replace(commit, snapshot=dataclasses.replace(commit.snapshot, rows=other)))


def test_the_file_of_a_snapshot_holds_its_rows(pool: Pool) -> None:
    two_stages(pool)
    path = pool.snapshot_file("run-s2")
    assert path == pool.path / "snapshots" / "run-s2" / "rows.parquet"
    assert pl.read_parquet(path).equals(pool.snapshot("run-s2").rows)
    manifest = json.loads((path.parent / "manifest.json").read_text())
    assert manifest["digest"] == pool.snapshot("run-s2").digest
    assert (manifest["rows"], manifest["version"]) == (5, 2)


def test_a_whole_file_is_not_written_again(pool: Pool) -> None:
    two_stages(pool)
    before = pool.snapshot_file("run-s1").stat()
    after = pool.snapshot_file("run-s1").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@pytest.mark.parametrize("harm", ["cut", "gone", "no manifest", "manifest of another", "manifest not JSON"])
def test_a_harmed_file_is_found_and_made_again(pool: Pool, harm: str) -> None:
    two_stages(pool)
    path = pool.snapshot_file("run-s1")
    manifest = path.parent / "manifest.json"
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-7])
    elif harm == "gone":
        path.unlink()
    elif harm == "no manifest":
        manifest.unlink()
    elif harm == "manifest of another":
        manifest.write_text(manifest.read_text().replace(pool.snapshot("run-s1").digest, "0" * 64))
    else:
        manifest.write_text("[1,")
    assert len(pool.check()) == 1
    assert pl.read_parquet(pool.snapshot_file("run-s1")).equals(pool.snapshot("run-s1").rows)
    assert pool.check() == []
    assert {file.name for file in path.parent.iterdir()} == {"rows.parquet", "manifest.json"}


def test_lineage_leads_from_a_row_to_the_price_of_its_call(pool: Pool) -> None:
    commit = stage_commit(examples("a"))
    pool.commit(dataclasses.replace(commit, calls=frames.CALLS.of([call("key"), call("unrelated")])))
    row_id = pool.snapshot("run-s1").rows["row_id"][0]
    found = pool.sql("SELECT * FROM lineage WHERE row_id = ?", [row_id])
    assert found.select("call_key", "paid_by", "input_tokens", "cost_usd", "model").rows() == [
        ("key", "run", 10, 50e-6, "big")
    ]


def test_lineage_has_one_line_a_row_also_when_runs_share_a_call(pool: Pool) -> None:
    pool.commit(dataclasses.replace(stage_commit(examples("a")), calls=frames.CALLS.of([call("key")])))
    reused = call("key", run="other", status="cached", attempts=0, input_tokens=0, output_tokens=0, cost_microusd=0)
    later = stage_commit(examples("a"), run="other")
    pool.commit(dataclasses.replace(later, calls=frames.CALLS.of([reused])))
    found = pool.sql("SELECT run_id, paid_by, cost_usd FROM lineage").rows()
    assert found == [("other", "run", 50e-6), ("run", "run", 50e-6)]
