"""The pool's mirror of calls against the ledger."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from once import copied
from pool_rows import call, examples, rationales
from small import Rule, make_pool, make_recipe

from balkit import frames
from balkit.pool import Commit, Pool
from balkit.reconcile import problems_of, repair
from balkit.stages import run
from balkit.teacher import Scripted
from balkit.vectors import Vectors
from balkit.vectors.encoders import Hashing


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """A pool after a run of two stages that took, wrote and rejected."""
    return copied(two_stages, tmp_path / "pool")


def two_stages(folder: Path) -> None:
    made = make_pool(folder)
    recipe = make_recipe(select={"first": "random", "then": "random"}, balance={"policy": "uniform"})
    run(made, recipe, teacher=Scripted(Rule(wrong="apple")), train=False)


@pytest.mark.long
def test_a_pool_and_its_ledger_agree_after_runs_that_share_replies(pool: Pool) -> None:
    recipe = make_recipe(select={"first": "random", "then": "random"}, balance={"policy": "natural"})
    run(pool, recipe, teacher=Scripted(Rule()), train=False)
    assert "cached" in pool.calls()["status"]
    assert problems_of(pool) == []


@pytest.mark.long
def test_a_call_that_only_the_pool_knows_is_named(pool: Pool) -> None:
    pool.commit(Commit("forged", calls=frames.CALLS.of([call("f" * 64)])))
    (line,) = problems_of(pool)
    assert f"no reply to call {'f' * 64}, which run run paid for" in line


def test_a_cost_that_differs_is_named(pool: Pool) -> None:
    paid = pool.calls().filter(pl.col("status") == "succeeded").head(1)
    pool.commit(Commit("dearer", calls=paid.with_columns(cost_microusd=pl.lit(7_000, pl.Int64))))
    (line,) = problems_of(pool)
    assert paid["key"][0] in line
    assert "the pool says" in line
    assert "cost_microusd 7000" in line


def test_a_rationale_of_no_call_is_named_unless_its_source_is_a_word(pool: Pool) -> None:
    asked = examples("p", domain="fruit")
    worked = pl.concat([rationales(asked, source="given"), rationales(asked, source="e" * 64)])
    pool.commit(Commit("given", examples=asked, rationales=worked))
    (line,) = problems_of(pool)
    assert f"no call {'e' * 64}" in line


def test_a_ledger_that_is_gone_is_missed_and_not_made_again(pool: Pool) -> None:
    for file in pool.path.glob("calls.sqlite*"):
        file.unlink()
    (line,) = problems_of(pool)
    assert "calls.sqlite: is missing" in line
    assert not (pool.path / "calls.sqlite").exists()


def test_a_pool_that_never_asked_a_teacher_needs_no_ledger(tmp_path: Path) -> None:
    assert problems_of(make_pool(tmp_path / "pool")) == []
    assert not (tmp_path / "pool" / "calls.sqlite").exists()


def test_what_is_only_made_from_the_pool_is_mended_and_nothing_else(pool: Pool) -> None:
    file = pool.snapshot_file("latest")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    Vectors(pool.path / "vectors", Hashing()).of(["one", "two"])
    segment = max((pool.path / "vectors").glob("*/*.vectors"), key=lambda file: file.stat().st_mtime_ns)
    segment.write_bytes(segment.read_bytes()[:-1] + b"!")
    before = (pool.path / "pool.duckdb").read_bytes(), (pool.path / "HEAD").read_bytes()
    snapshot, vectors = repair(pool)
    assert (str(file) in snapshot, str(segment) in vectors, segment.exists()) == (True, True, False)
    assert file.read_bytes() == whole
    assert ((pool.path / "pool.duckdb").read_bytes(), (pool.path / "HEAD").read_bytes()) == before
    assert (repair(pool), problems_of(pool)) == ([], [])
