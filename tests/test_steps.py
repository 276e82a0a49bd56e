"""Steps done alone: nothing of the eval split is answered or exported, and `latest` means the newest."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from small import Rule, make_pool, make_recipe, rows

from balkit import steps, texts
from balkit.basis import Basis
from balkit.errors import RunError
from balkit.pool import Pool
from balkit.stages import run
from balkit.teacher import Scripted

COLUMNS = {"prompt": "question", "answer": "answer", "domain": "topic"}


@pytest.fixture
def leaky(tmp_path: Path) -> Pool:
    """A pool whose dev split holds two rows of its own and one that stands in eval in capitals."""
    pool = make_pool(tmp_path / "pool")
    leak = rows("bird", 1, seed=2)[0]
    pool.add(
        pl.DataFrame([*rows("bird", 2, seed=5), leak | {"question": leak["question"].upper()}]), split="dev", **COLUMNS
    )
    return pool


def held_out(pool: Pool) -> set[str]:
    return {texts.normalised(prompt) for prompt in pool.examples(split="eval")["prompt"]}


def test_annotating_leaves_out_what_stands_in_eval(leaky: Pool) -> None:
    written = steps.annotate(leaky, make_recipe(), split="dev", teacher=Scripted(Rule()))
    assert written.filter("accepted").height == 2
    answered = leaky.examples().join(written, on="example_id", how="semi")
    assert not {texts.normalised(prompt) for prompt in answered["prompt"]} & held_out(leaky)
    assert steps.annotate(leaky, make_recipe(), split="dev", teacher=Scripted(Rule())).is_empty()


def test_validation_rows_leave_out_what_came_into_eval_later(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool")
    dev = rows("bird", 3, seed=5)
    pool.add(pl.DataFrame(dev), split="dev", **COLUMNS)
    steps.annotate(pool, make_recipe(), split="dev", teacher=Scripted(Rule()))
    assert steps.validation_rows(pool, at=pool.version).height == 3
    pool.add(pl.DataFrame([dev[0] | {"question": dev[0]["question"].upper()}]), split="eval", **COLUMNS)
    left = steps.validation_rows(pool, at=pool.version)
    assert left.height == 2
    assert not {texts.normalised(prompt) for prompt in left["prompt"]} & held_out(pool)


def test_writing_alone_keeps_checked_examples_and_writes_others_when_asked_again(tmp_path: Path) -> None:
    pool, recipe = make_pool(tmp_path / "pool"), make_recipe()
    first, second = (steps.write(pool, recipe, rows={"bird": 3}, teacher=Scripted(Rule())) for _ in range(2))
    stored = pool.examples(origin="synthetic")
    for written in (first, second):
        kept = written.decisions.filter("kept")["example_id"].unique()
        assert len(kept) == 3
        assert set(kept) <= set(stored.filter(domain="bird", split="train")["example_id"])
    assert not set(first.examples["example_id"]) & set(second.examples["example_id"])
    assert pool.calls().filter(pl.col("purpose") == "synthesis").height > 0
    assert pool.check() == []


@pytest.mark.long
def test_writing_alone_after_a_run_writes_what_the_run_did_not(tmp_path: Path) -> None:
    pool, recipe = make_pool(tmp_path / "pool"), make_recipe(select={"first": "random", "then": "random"})
    run(pool, recipe, teacher=Scripted(Rule()), train=False)
    written = steps.write(pool, recipe, rows={"bird": 3}, teacher=Scripted(Rule()))
    assert len(written.decisions.filter("kept")["example_id"].unique()) == 3


@pytest.mark.long
def test_a_run_draws_on_nothing_that_was_written_alone(tmp_path: Path) -> None:
    pool, beside = make_pool(tmp_path / "pool"), make_pool(tmp_path / "beside")
    recipe = make_recipe(select={"first": "random", "then": "random"})
    steps.write(pool, recipe, rows={"bird": 3}, teacher=Scripted(Rule()))
    digests = [run(one, recipe, teacher=Scripted(Rule()), train=False).stages[-1].digest for one in (pool, beside)]
    assert digests[0] == digests[1]


def test_writing_for_a_domain_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is called brid; there are: bird, fruit, tool"):
        steps.write(make_pool(tmp_path / "pool"), make_recipe(), rows={"brid": 3}, teacher=Scripted(Rule()))


@pytest.mark.long
def test_the_latest_snapshot_is_trained_again_after_a_newer_one_came(tmp_path: Path) -> None:
    pool, recipe = make_pool(tmp_path / "pool"), make_recipe(select={"then": "k_center"})
    run(pool, recipe, teacher=Scripted(Rule()), train=False)
    first = steps.train(pool, "latest", recipe=recipe)
    assert first.path.name.startswith(pool.snapshot("latest").snapshot_id)
    run(pool, recipe.model_copy(update={"budget_rows": 20}), teacher=Scripted(Rule()), train=False)
    second = steps.train(pool, "latest", recipe=recipe)
    assert second.path != first.path
    assert steps.train(pool, "latest", recipe=recipe).digest == second.digest


def test_what_leaks_is_read_off_the_pool_as_a_comparison_of_all_prompts_finds_it(leaky: Pool) -> None:
    leaks = [row | {"question": row["question"].replace(" ", "  ").upper()} for row in rows("bird", 2, seed=2)]
    leaky.add(pl.DataFrame(leaks), **COLUMNS)
    before, recipe = leaky.version, make_recipe()
    gone = leaky.examples(split="eval").filter(pl.col("prompt") == rows("bird", 1, seed=2)[0]["question"])
    leaky.retire(gone["example_id"].to_list(), reason="odd")
    for version, leaking in ((before, 3), (leaky.version, 1)):
        view = leaky.at(version)
        compared, read = Basis(view.examples(origin="source"), recipe), Basis.of(leaky, recipe, at=version)
        assert read.real.equals(compared.real)
        assert read.dev.equals(compared.dev)
        assert len(view.leaking()) == leaking
