"""The pool: versions, commits, reads, retirement."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from once import copied
from pool_rows import add, call, examples, rationales, scores, stage_commit

from balkit import frames
from balkit.errors import FrameError, PoolError
from balkit.pool import Commit, Pool, tables, writing
from balkit.pool.tables import frame_digest


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return copied(Pool.create, tmp_path / "pool")


def test_importing_the_pool_does_not_load_duckdb() -> None:
    code = "import balkit.pool, sys; sys.exit('duckdb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_new_pool_is_at_version_0_and_whole(pool: Pool) -> None:
    assert pool.version == 0
    assert pool.check() == []
    assert pool.examples().equals(frames.EXAMPLES.empty())


def test_every_read_of_a_blank_pool_gives_its_frame(pool: Pool) -> None:
    for kind, frame in (
        (frames.EXAMPLES, pool.examples()),
        (frames.RATIONALES, pool.rationales()),
        (frames.SCORES, pool.scores()),
        (frames.EVALUATIONS, pool.evaluations()),
        (frames.CALLS, pool.calls()),
    ):
        assert frame.equals(kind.empty())
    assert pool.decisions().columns == [*frames.DECISIONS.columns, "run_id", "stage", "version"]
    assert pool.decisions().schema["run_id"] == pl.String()
    assert pool.snapshots().height == pool.log().height == pool.coverage().height == 0


def test_creating_a_pool_where_one_is_says_so(pool: Pool) -> None:
    with pytest.raises(PoolError, match="a pool is here already"):
        Pool.create(pool.path)


def test_opening_a_folder_without_a_pool_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match="no pool here"):
        Pool.open(tmp_path)
    with pytest.raises(PoolError, match="no pool here"):
        Pool.open(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(PoolError, match="no pool here"):
        Pool.open(tmp_path / "file")


def test_a_pool_cannot_be_made_where_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(PoolError, match="is a file"):
        Pool.create(tmp_path / "file")


def test_what_is_committed_is_read_back(pool: Pool) -> None:
    mine = examples("one", "two")
    version = pool.commit(Commit("m", examples=mine, rationales=rationales(mine), scores=scores(mine)))
    assert version == pool.version == 1
    assert set(pool.examples()["prompt"]) == {"one", "two"}
    assert set(pool.examples()["added_in"]) == {1}
    assert pool.rationales().sort("rationale_id").equals(rationales(mine).sort("rationale_id"))
    assert pool.scores(checkpoint="c1").height == 2
    assert pool.scores(checkpoint="other").height == 0


def test_reads_come_in_order_of_id(pool: Pool) -> None:
    add(pool, *[f"prompt {i}" for i in range(50)])
    found = pool.examples()["example_id"].to_list()
    assert found == sorted(found)


def test_examples_are_filtered_by_split_domain_and_origin(pool: Pool) -> None:
    add(pool, "one", domain="a")
    add(pool, "two", domain="b", split="dev")
    pool.commit(Commit("m", examples=examples("three", domain="b", origin="synthetic")))
    assert pool.examples(split="dev")["prompt"].to_list() == ["two"]
    assert pool.examples(domain="a")["prompt"].to_list() == ["one"]
    assert pool.examples(origin="synthetic")["prompt"].to_list() == ["three"]
    assert pool.examples(domain="b", origin="source")["prompt"].to_list() == ["two"]


def test_an_old_version_stays_readable(pool: Pool) -> None:
    add(pool, "one")
    ids = add(pool, "two")
    pool.retire(ids, reason="wrong")
    assert pool.at(0).examples().height == 0
    assert pool.at(1).examples()["prompt"].to_list() == ["one"]
    assert pool.at(2).examples().height == 2
    assert pool.at(3).examples()["prompt"].to_list() == ["one"]
    assert pool.at(2).coverage()["train"].to_list() == [2]
    assert pool.at(1).log()["version"].to_list() == [1]


def test_a_version_that_is_not_there_is_refused(pool: Pool) -> None:
    with pytest.raises(PoolError, match="no version 1; there are 0 to 0"):
        pool.at(1)


def test_the_same_key_commits_once(pool: Pool) -> None:
    key = ("run", 1, "scores")
    mine = examples("one")
    assert pool.committed(key) is None
    assert pool.commit(Commit("m", key=key, examples=mine)) == 1
    assert pool.commit(Commit("other", key=key, examples=examples("two"))) == 1
    assert pool.committed(key) == 1
    assert pool.examples().height == 1


def test_a_commit_with_a_key_and_no_rows_marks_its_step(pool: Pool) -> None:
    assert pool.commit(Commit("nothing to do", key=("run", 1, "scores"))) == 1
    assert pool.check() == []


def test_a_commit_of_stored_rows_without_a_key_makes_no_version(pool: Pool) -> None:
    mine = examples("one")
    commit = Commit("m", examples=mine, rationales=rationales(mine), scores=scores(mine))
    assert pool.commit(commit) == pool.commit(commit) == 1
    assert pool.scores().height == pool.rationales().height == 1


def test_decisions_carry_the_run_and_stage_of_their_commit(pool: Pool) -> None:
    row: dict[str, object] = {
        "example_id": "x", "domain": "a", "step": "select", "method": "random", "kept": True, "reason": "chosen",
        "gain": 0.5, "rank": 0,
    }  # fmt: skip
    other = row | {"example_id": "y", "kept": False, "reason": "below quota", "gain": None, "rank": None}
    pool.commit(Commit("m", key=("run", 2, "data"), decisions=frames.DECISIONS.of([other, row])))
    found = pool.decisions(run_id="run", stage=2)
    assert found["example_id"].to_list() == ["x", "y"]
    assert found.select("run_id", "stage", "version").row(0) == ("run", 2, 1)
    assert frames.check(found, frames.DECISIONS).height == 2
    assert pool.decisions(stage=1).height == 0
    assert pool.check() == []


def test_a_frame_of_another_kind_is_refused_and_nothing_is_written(pool: Pool) -> None:
    mine = examples("one")
    with pytest.raises(FrameError, match="not a frame of RATIONALES"):
        pool.commit(Commit("m", examples=mine, rationales=mine))
    assert pool.version == 0


def test_a_rationale_of_no_example_is_refused_and_nothing_is_written(pool: Pool) -> None:
    with pytest.raises(PoolError, match="not in the pool"):
        pool.commit(Commit("m", examples=examples("one"), rationales=rationales(examples("two"))))
    assert pool.version == 0
    assert pool.examples().height == 0


def test_an_id_that_is_not_the_digest_of_its_row_is_refused(pool: Pool) -> None:
    forged = examples("one").with_columns(example_id=pl.lit("f" * 64))
    with pytest.raises(PoolError, match="not the digest"):
        pool.commit(Commit("m", examples=forged))


def test_a_score_that_is_not_finite_is_refused(pool: Pool) -> None:
    mine = examples("one")
    with pytest.raises(PoolError, match="not finite"):
        pool.commit(Commit("m", examples=mine, scores=scores(mine, value=float("nan"))))
    pool.commit(Commit("m", examples=mine, scores=scores(mine, value=None)))
    assert pool.scores()["reason"].to_list() == ["too_long"]


def test_an_example_with_two_labels_in_one_commit_is_refused(pool: Pool) -> None:
    both = pl.concat([examples("one"), examples("one", domain="b")])
    with pytest.raises(PoolError, match="two labels: 'a', 'b'"):
        pool.commit(Commit("m", examples=both))


def test_a_split_that_is_none_is_refused(pool: Pool) -> None:
    with pytest.raises(PoolError, match="split 'test' is not one of train, dev, eval"):
        pool.commit(Commit("m", examples=examples("one", split="test")))


def test_retired_examples_leave_the_reads_and_count_in_coverage(pool: Pool) -> None:
    ids = add(pool, "one", "two")
    assert pool.retire(ids[:1], reason="wrong answer") == 2
    assert pool.retire(ids[:1], reason="again") == 2
    assert pool.examples()["prompt"].to_list() == ["two"]
    assert pool.coverage().select("train", "retired").row(0) == (1, 1)


def test_retiring_an_unknown_id_is_refused(pool: Pool) -> None:
    with pytest.raises(PoolError, match="not in the pool, such as 'nobody'"):
        pool.retire(["nobody"], reason="x")


def test_a_new_label_holds_from_its_version_on(pool: Pool) -> None:
    ids = add(pool, "one", "two", domain="a")
    labels = pl.DataFrame({"example_id": ids, "domain": ["b", "a"], "split": ["train", "train"]})
    assert pool.relabel(labels, message="a clerk's error") == 2
    assert pool.relabel(labels, message="again") == 2
    assert dict(pool.examples().select("prompt", "domain").iter_rows()) == {"one": "b", "two": "a"}
    assert set(pool.at(1).examples()["domain"]) == {"a"}
    assert pool.check() == []


def test_a_label_with_an_unknown_split_is_refused(pool: Pool) -> None:
    (name,) = add(pool, "one")
    with pytest.raises(PoolError, match="split 'test'"):
        pool.relabel(pl.DataFrame({"example_id": [name], "domain": ["a"], "split": ["test"]}), message="m")


def test_the_log_names_every_version_the_newest_first(pool: Pool) -> None:
    add(pool, "one")
    pool.commit(stage_commit(examples("two")))
    log = pool.log()
    assert log["version"].to_list() == [2, 1]
    assert log["message"].to_list() == ["stage 1", "add 1 train examples"]
    assert log.select("run_id", "stage", "step", "examples", "rationales", "snapshot_id").row(0) == (
        "run", 1, "data", 1, 1, "run-s1",
    )  # fmt: skip


def test_coverage_counts_every_domain_the_largest_first(pool: Pool) -> None:
    add(pool, "small", domain="b")
    add(pool, "one", "two!", domain="a")
    add(pool, "Two", "asked", domain="a", split="eval")
    mine = examples("made", domain="a", origin="synthetic")
    pool.commit(Commit("m", examples=mine, rationales=rationales(mine)))
    columns = ("domain", "train", "dev", "eval", "synthetic", "retired", "rationales", "leaks")
    assert pool.coverage().select(columns).rows() == [("a", 3, 0, 2, 1, 0, 1, 1), ("b", 1, 0, 0, 0, 0, 0, 0)]
    assert pool.coverage()["mean_prompt_chars"].to_list() == [pytest.approx((3 + 4 + 3 + 5 + 4) / 5), 5.0]


def test_the_coverage_view_is_the_coverage(pool: Pool) -> None:
    add(pool, "one", "two")
    assert pool.sql("SELECT * FROM coverage").equals(pool.coverage())


def test_calls_are_mirrored_once_a_run_and_the_later_record_holds(pool: Pool) -> None:
    first = frames.CALLS.of([call("k1"), call("k2", status="failed", cost_microusd=7)])
    pool.commit(Commit("m", key=("run", 1, "data"), calls=first))
    again = frames.CALLS.of([call("k1"), call("k2", attempts=2, cost_microusd=90)])
    pool.commit(Commit("m", key=("run", 2, "data"), calls=again))
    assert pool.calls().select("key", "attempts", "cost_microusd").rows() == [("k1", 1, 50), ("k2", 2, 90)]
    assert pool.at(1).calls()["cost_microusd"].to_list() == [50, 7]


def test_spend_counts_a_call_for_the_run_that_bought_it(pool: Pool) -> None:
    bought = call("k1")
    reused = call("k1", run="other", status="cached", attempts=0, input_tokens=0, output_tokens=0, cost_microusd=0)
    pool.commit(Commit("m", key=("run", 1, "data"), calls=frames.CALLS.of([bought])))
    pool.commit(Commit("m", key=("other", 1, "data"), calls=frames.CALLS.of([reused])))
    rows = pool.sql("SELECT run_id, calls, cached, input_tokens, output_tokens, cost_usd FROM spend").rows()
    assert rows == [("other", 0, 1, 0, 0, 0.0), ("run", 1, 0, 10, 20, 50e-6)]
    assert pool.calls(run_id="other")["status"].to_list() == ["cached"]


def test_a_read_only_pool_is_not_written(pool: Pool) -> None:
    reader = Pool.open(pool.path, read_only=True)
    with pytest.raises(PoolError, match="opened read-only"):
        add(reader, "one")
    assert reader.examples().height == 0


def test_a_pool_is_a_context_manager(pool: Pool) -> None:
    with Pool.open(pool.path) as same:
        assert same.version == 0


def test_a_prompt_of_megabytes_comes_back_whole(pool: Pool) -> None:
    long = "wörd " * 250_000
    add(pool, long)
    assert pool.examples()["prompt"].to_list() == [long.strip()]
    assert pool.check() == []


def test_the_content_digest_ignores_row_order_and_how_the_rows_came(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "BLOCK", 8)
    labels = examples(*(f"prompt {i}" for i in range(30))).select(list(tables.TABLES["labels"].columns))
    ways = [labels, labels.reverse(), labels.sort("example_id").to_arrow().to_reader, labels.tail(29)]
    with writing.writing(pool.path) as con:
        for rows in ways:
            tables.append(con, rows={"labels": rows}, message="")
        found = [tables.content_digest(con, version=version) for version in (1, 2, 3, 4)]
    assert found[0] == found[1] == found[2] != found[3]
    stored = pool.sql("SELECT content FROM versions ORDER BY version")["content"].to_list()
    assert stored == found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["ab", "c"], ["a", "bc"]),
        ([None, "a"], ["", "a"]),
        ([1, None], [1, 0]),
        ([0.5, None], [0.5, 0.0]),
        ([True, None], [True, False]),
        ([["a"], []], [[], ["a"]]),
        ([["a", "b"]], [["ab"]]),
    ],
)
def test_frames_that_differ_have_different_digests(one: list[object], other: list[object]) -> None:
    assert frame_digest(pl.DataFrame({"x": one})) != frame_digest(pl.DataFrame({"x": other}))


def test_a_tag_names_a_version_and_moves_when_it_is_given_again(pool: Pool) -> None:
    add(pool, "one")
    add(pool, "two")
    assert pool.tag(1, "good") == 3
    assert pool.at("good").examples().height == 1
    assert pool.tag("good", "good") == 3, "the same again changes nothing"
    pool.tag(2, "good")
    assert pool.tags() == {"good": 2}
    assert pool.at(3).tags() == {"good": 1}, "older versions keep it where it was"
    assert dict(pool.log().select("version", "tags").drop_nulls().iter_rows()) == {2: "good"}
    assert pool.check() == []


@pytest.mark.parametrize("name", ["7", "", "a b", "-x", "v/1"])
def test_a_tag_is_a_word_that_is_no_number(pool: Pool, name: str) -> None:
    with pytest.raises(PoolError, match="names no version"):
        pool.tag(0, name)


def test_a_new_domain_is_named_as_an_added_one_is(pool: Pool) -> None:
    (one,) = add(pool, "one")
    labels = pl.DataFrame({"example_id": [one], "domain": ["caf\u0065\u0301 "], "split": ["train"]})
    pool.relabel(labels, message="composed")
    assert pool.examples()["domain"].to_list() == ["caf\u00e9"]
    for odd in ("a\nb", "x\u2028y", "\x00", ""):
        with pytest.raises(PoolError, match="relabel: domain"):
            pool.relabel(labels.with_columns(domain=pl.lit(odd)), message="odd")
