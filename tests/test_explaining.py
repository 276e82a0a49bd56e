"""Why an example was chosen, or not."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from small import Rule, make_pool, make_recipe, rows

from balkit import recipe as recipes
from balkit.cli import main
from balkit.errors import PoolError, RunError
from balkit.explaining import Choice
from balkit.pool import Pool
from balkit.recipe import Recipe
from balkit.stages import run
from balkit.teacher import Scripted

SELECT = {"first": "facility_location", "then": "k_center"}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pool, Recipe]:
    """A pool with a run of two stages in which some worked answers were refused."""
    pool, recipe = make_pool(tmp_path_factory.mktemp("explained") / "pool"), make_recipe(select=SELECT)
    run(pool, recipe, teacher=Scripted(Rule(wrong="melon")), train=False)
    return pool, recipe


def test_what_stage_one_would_take_is_what_a_run_then_takes_first(ran: tuple[Pool, Recipe]) -> None:
    pool, recipe = ran
    planned, chosen = Choice.planned(pool, recipe), Choice.of_run(pool)
    first = chosen.decisions.filter((pl.col("stage") == 1) & (pl.col("step") == "select"))
    columns = ["example_id", "rank", "gain", "method"]
    stored = first.select(columns).sort("example_id")
    assert stored.height > 20
    assert planned.decisions.select(columns).sort("example_id").equals(stored)


def test_a_plan_asks_no_teacher_and_leaves_no_trace(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool")
    choice = Choice.planned(pool, make_recipe(select=SELECT))
    assert choice.by_domain()["chosen"].sum() == choice.taken.height > 0
    assert pool.version == Pool.open(pool.path).version
    assert not (pool.path / "calls.sqlite").exists()
    assert not (pool.path / "runs").exists()


def test_domains_say_how_well_what_was_taken_stands_for_them(ran: tuple[Pool, Recipe]) -> None:
    pool, _ = ran
    domains = Choice.of_run(pool).by_domain()
    assert domains["domain"].to_list() == ["bird", "fruit", "tool"]
    assert domains["quota"].sum() == 30
    assert domains["candidates"].to_list() == [3, 40, 12]
    np.testing.assert_allclose(domains["pool_share"], domains["chosen"] / domains["candidates"], atol=1e-6)
    assert all(0 <= radius <= 1 for radius in domains["radius"])


@pytest.mark.long
def test_every_chosen_example_says_so_and_they_stand_for_all(ran: tuple[Pool, Recipe]) -> None:
    choice = Choice.of_run(ran[0])
    stood_for = dict.fromkeys(("bird", "fruit", "tool"), 0)
    written = 0
    for row in choice.taken.unique("example_id").iter_rows(named=True):
        found = choice.explain(row["example_id"][:16])
        assert found.chosen
        stood_for[row["domain"]] += found.stands_for
        written += row["origin"] == "synthetic"
        (placed,) = [placed for placed in found.stages if placed.kept]
        assert placed == found.stages[-1]
        assert placed.stage == row["stage"]
        assert (placed.rank is None) == (row["origin"] == "synthetic") == (placed.reason == "written by the teacher")
    assert stood_for == {"bird": 3, "fruit": 40, "tool": 12}
    assert written


@pytest.mark.long
def test_what_was_not_chosen_says_why_and_what_represents_it(ran: tuple[Pool, Recipe]) -> None:
    choice = Choice.of_run(ran[0])
    left = choice.basis.real.join(choice.taken, on="example_id", how="anti")
    encode = choice.encode
    reasons = set()
    for row in left.iter_rows(named=True):
        found = choice.explain(row["example_id"])
        assert not found.chosen
        reasons |= {placed.reason for placed in found.stages}
        near = found.represented_by
        assert near is not None
        others = choice.taken.filter(pl.col("domain") == row["domain"])["prompt"].to_list()
        best = (encode(others) @ encode([row["prompt"]])[0]).max()
        assert near.distance == pytest.approx(1 - best, abs=1e-5)
    assert "below quota" in reasons
    assert any(reason.startswith("its worked answer was refused in stage 1") for reason in reasons)
    assert "rationale rejected" in reasons


def test_an_example_that_is_no_candidate_says_what_it_is(ran: tuple[Pool, Recipe]) -> None:
    pool, _ = ran
    held_out = pool.examples(split="eval")["example_id"][0]
    found = Choice.of_run(pool).explain(held_out)
    assert (found.chosen, found.stages) == (False, ())
    assert "eval split" in str(found.never)


def test_an_id_that_is_unknown_or_of_several_says_so(ran: tuple[Pool, Recipe]) -> None:
    choice = Choice.of_run(ran[0])
    with pytest.raises(PoolError, match="no example has an id that begins with 'xyz'"):
        choice.explain("xyz")
    with pytest.raises(PoolError, match=r"examples have ids that begin with ''; give more of it:\n  \w+ \(\w+\) 'Box "):
        choice.explain("")


@pytest.mark.long
def test_a_written_example_of_a_domain_without_real_ones_stands_for_none(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", sizes={"fruit": 12, "tool": 6})  # birds are in eval alone
    plan = make_recipe(select=SELECT, stages=1, balance={"policy": "uniform"})
    run(pool, plan, teacher=Scripted(Rule()), train=False)
    choice = Choice.of_run(pool)
    birds = choice.taken.filter(pl.col("domain") == "bird")["example_id"].unique()
    assert len(birds)
    for example in birds:
        found = choice.explain(example)
        assert (found.chosen, found.stands_for) == (True, 0)


@pytest.mark.long
def test_a_pool_that_has_changed_since_does_not_change_what_a_run_did(ran: tuple[Pool, Recipe], tmp_path: Path) -> None:
    pool = Pool.open(shutil.copytree(ran[0].path, tmp_path / "pool"))
    before = Choice.of_run(pool)
    chosen = before.taken.filter((pl.col("origin") == "source") & (pl.col("domain") == "fruit"))["example_id"].unique()
    left = before.basis.real.filter((pl.col("domain") == "fruit") & ~pl.col("example_id").is_in(chosen.implode()))
    relabelled, retired, moved, kept_out = chosen.sort()[0], chosen.sort()[1], chosen.sort()[2], left["example_id"][0]
    told = {example: before.explain(example) for example in (relabelled, retired, moved, kept_out)}
    labels = [(relabelled, "gadget", "train"), (moved, "fruit", "eval"), (kept_out, "gadget", "train")]
    pool.relabel(pl.DataFrame(labels, ["example_id", "domain", "split"], orient="row"), message="changed")
    pool.retire([retired], reason="wrong answer")
    columns = {"prompt": "question", "answer": "answer", "domain": "topic"}
    pool.add(pl.DataFrame(rows("fruit", 1, seed=9)), **columns)
    after = Choice.of_run(pool)
    for example, since in (
        (relabelled, "labelled gadget"),
        (retired, "retired (wrong answer)"),
        (moved, "moved to the eval split"),
        (kept_out, "labelled gadget"),
    ):
        assert after.explain(example) == replace(told[example], since=(since,))
    new = pool.examples().filter(pl.col("added_in") == pool.version)["example_id"][0]
    assert "after the run began" in str(after.explain(new).never)
    planned = Choice.planned(pool, ran[1])
    assert "retired (wrong answer)" in str(planned.explain(retired).never)
    assert planned.explain(new).never is None


def test_a_plan_for_one_example_ranks_its_domain_alone_and_says_the_same(ran: tuple[Pool, Recipe]) -> None:
    pool, recipe = ran
    every = Choice.planned(pool, recipe)
    example = every.basis.real.filter(pl.col("domain") == "tool")["example_id"][0]
    alone = Choice.planned(pool, recipe, example=example[:16])
    assert alone.decisions["domain"].unique().to_list() == ["tool"]
    assert alone.explain(example) == every.explain(example)


def test_what_was_no_candidate_for_a_score_says_what_bounded_them(ran: tuple[Pool, Recipe]) -> None:
    choice = Choice.of_run(ran[0])
    limit, reason = choice.basis.recipe.select.candidates, "unscored: not among the candidates"
    choice = replace(choice, decisions=choice.decisions.with_columns(reason=pl.lit(reason)))
    (placed, *_) = choice.explain(choice.basis.real["example_id"][0]).stages
    assert placed.reason == f"{reason} (select.candidates: {limit} times the quota were scored)"


def test_a_pool_without_runs_and_an_unknown_run_say_so(ran: tuple[Pool, Recipe], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run has chosen anything yet"):
        Choice.of_run(make_pool(tmp_path / "pool"))
    with pytest.raises(RunError, match=r"0 runs .* begin with 'zzz'; there are: "):
        Choice.of_run(ran[0], "zzz")


@pytest.mark.long
def test_the_command_shows_domains_and_explains_one(
    ran: tuple[Pool, Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pool, recipe = ran
    file = tmp_path / "recipe.yaml"
    file.write_text(recipes.dump(recipe))

    def balkit(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["balkit", "select", str(pool.path), *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    code, out, _ = balkit()
    assert (code, "radius" in out, "fruit" in out) == (0, True, True)
    code, out, _ = balkit("--recipe", str(file), "--domain", "fruit", "--json")
    (row,) = json.loads(out)["domains"]
    assert (code, row["domain"], row["candidates"]) == (0, "fruit", 40)
    example = Choice.of_run(pool).taken.filter(pl.col("origin") == "source").row(0, named=True)
    code, out, _ = balkit("--explain", example["example_id"][:12])
    assert (code, example["prompt"] in out, "quota" in out, "1 - cosine" in out) == (0, True, True, True)
    assert example["example_id"] in out
    code, pasted, _ = balkit("--explain", f" {example['example_id'].upper()}\n")
    assert (code, pasted) == (0, out)
    written = Choice.of_run(pool).taken.filter(pl.col("origin") == "synthetic").row(0, named=True)
    code, out, _ = balkit("--explain", written["example_id"])
    assert (code, f"stage {written['stage']}: in, written by the teacher" in out) == (0, True)
    code, out, _ = balkit("--recipe", str(file), "--explain", example["example_id"], "--json")
    assert json.loads(out)["example_id"] == example["example_id"]
    code, _, err = balkit("--explain", "xyz")
    assert (code, "no example has an id" in err) == (1, True)
    code, _, err = balkit("--domain", "fish")
    assert (code, "no domain is called 'fish'" in err) == (1, True)
    code, _, err = balkit("--domain", "fruit", "--explain", example["example_id"])
    assert (code, "give one of them" in err) == (1, True)
    code, _, err = balkit("--run", "")
    assert (code, "no run has an empty id" in err) == (1, True)
    code, _, err = balkit("--recipe", str(file), "--run", "latest")
    assert (code, "give one of them" in err) == (1, True)
