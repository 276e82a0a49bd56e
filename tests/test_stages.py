"""The loop: resumable at every step, exact in its rows, fair to every domain, closed to the eval split."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from small import SIZES, Rule, make_pool, make_recipe, rows

from balkit import frames, texts
from balkit import recipe as recipes
from balkit.basis import Basis
from balkit.errors import BudgetError, CapReached, PoolDamaged, PoolLocked, RunError, StudentError, TeacherPaused
from balkit.events import Event
from balkit.pool import Commit, Pool
from balkit.recipe import Recipe
from balkit.results import RunResult
from balkit.stages import run
from balkit.teacher import Ledger, Reply, Request, Scripted

SETTINGS = "response=student max_new_tokens=8"
NO_STUDENT = {"select": {"first": "facility_location", "then": "k_center"}}


def run_data(pool: Pool, recipe: Recipe, rule: Rule | None = None, **options: object) -> RunResult:
    """A run without training, which is what most claims about rows need."""
    return run(pool, recipe, teacher=Scripted(rule or Rule()), train=False, **options)  # type: ignore[arg-type]


def domains(pool: Pool, result: RunResult) -> dict[str, int]:
    return dict(pool.snapshot(result.snapshot_id).rows.group_by("domain").len().iter_rows())


class Killed(BaseException):
    """Stands in for the end of the process, at a chosen event."""


def kill_at(number: int) -> Iterator[object]:
    seen = 0

    def notify(event: Event) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            raise Killed(event.step)

    return notify  # type: ignore[return-value]


@pytest.mark.long
def test_a_retired_written_row_is_not_written_again(tmp_path: Path) -> None:
    pool, recipe = make_pool(tmp_path / "pool"), make_recipe(**NO_STUDENT)
    first = run_data(pool, recipe)
    written = pool.snapshot(first.snapshot_id).rows.filter(origin="synthetic")
    pool.retire([written["example_id"][0]], reason="not like a question")
    second = run_data(pool, recipe, new=True)
    rows = pool.snapshot(second.snapshot_id).rows
    assert rows.height == 30
    assert texts.normalised(written["prompt"][0]) not in {texts.normalised(prompt) for prompt in rows["prompt"]}


def test_eval_rows_without_an_answer_are_not_measured_and_stop_nothing(tmp_path: Path) -> None:
    pool, tiny = make_pool(tmp_path / "pool", eval_rows=0), {"train": {"max_steps": 1, "max_length": 160}}
    held_out = pl.DataFrame(rows("bird", 3, seed=2)).with_columns(answer=pl.Series(["bird", None, None]))
    pool.add(held_out, prompt="question", answer="answer", domain="topic", split="eval")
    result = run(pool, make_recipe(budget_rows=6, stages=1, **NO_STUDENT, **tiny), teacher=Scripted(Rule()))
    assert result.stages[0].summary["per_domain"]["bird"]["rows"] == 1


def test_references_of_another_kind_stop_the_run_before_any_call(tmp_path: Path) -> None:
    rule = Rule()
    with pytest.raises(RunError, match="55 of 55 reference answers are no number"):
        run_data(make_pool(tmp_path / "pool"), make_recipe(**NO_STUDENT, answers={"kind": "number"}), rule)
    assert rule.keys == []


def test_references_in_another_case_are_choices_too(tmp_path: Path) -> None:
    pool = Pool.create(tmp_path / "pool")
    asked = [f"Which is {n}? (A) one (B) {n} (C) none" for n in range(9)]
    pool.add(pl.DataFrame({"q": asked, "a": ["b", "B", "b)"] * 3, "d": "sums"}), prompt="q", answer="a", domain="d")
    basis = Basis(pool.examples(origin="source"), make_recipe(answers={"kind": "choice"}))
    assert basis.unreadable.is_empty()


@pytest.mark.long
def test_a_run_that_goes_on_says_that_newer_examples_are_not_in_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pool, recipe = make_pool(tmp_path / "pool"), make_recipe(**NO_STUDENT)
    run_data(pool, recipe)
    assert caplog.text == ""
    pool.add(pl.DataFrame(rows("bird", 2, seed=9)), prompt="question", answer="answer", domain="topic")
    run_data(pool, recipe)
    assert "2 examples were added since and are not in it: `balkit run --new`" in caplog.text


def test_a_lost_ledger_is_not_replaced_by_a_blank_one(tmp_path: Path) -> None:
    pool, recipe = make_pool(tmp_path / "pool"), make_recipe(**NO_STUDENT)
    run_data(pool, recipe)
    (pool.path / "calls.sqlite").unlink()
    with pytest.raises(PoolDamaged, match=r"is missing, and \d+ calls of the pool were paid through it"):
        run_data(pool, recipe, new=True)
    assert not (pool.path / "calls.sqlite").exists()


@pytest.mark.long
def test_a_run_killed_at_any_step_ends_like_an_uninterrupted_one_and_buys_nothing_twice(tmp_path: Path) -> None:
    # A copy of the folder, taken while the run goes on, is what a kill would leave: what is on disk, nothing closed.
    tiny = {
        "train": {"max_steps": 1, "batch_size": 4, "max_length": 160, "threads": 1},
        "evaluate": {"max_new_tokens": 2},
    }
    recipe, whole, left = make_recipe(budget_rows=12, **tiny), Rule(), dict[tuple[int, str], list[str]]()
    pool = make_pool(tmp_path / "whole", sizes={"fruit": 12, "tool": 5, "bird": 2}, eval_rows=1)
    pool.add(pl.DataFrame(rows("bird", 1, seed=3)), prompt="question", answer="answer", domain="topic", split="dev")

    kills = {(0, "dev"), (1, "data"), (1, "train"), (1, "score"), (1, "evaluate"), (2, "data"), (2, "done")}

    def copy(event: Event) -> None:
        step = (event.stage, event.step)
        if step not in left and step in kills and (event.step != "dev" or event.done):  # before it nothing is there
            left[step] = list(whole.keys)
            shutil.copytree(pool.path, tmp_path / f"killed at {step}", ignore=shutil.ignore_patterns("*-shm"))

    expected = run(pool, recipe, teacher=Scripted(whole), notify=copy)
    assert set(left) == kills
    for step, bought in left.items():
        rule, killed = Rule(), Pool.open(tmp_path / f"killed at {step}")
        again = run(killed, recipe, teacher=Scripted(rule))
        assert [stage.digest for stage in again.stages] == [stage.digest for stage in expected.stages], step
        assert [stage.summary for stage in again.stages] == [stage.summary for stage in expected.stages], step
        assert sorted(bought + rule.keys) == sorted(whole.keys), step
        assert again.spent == expected.spent, step
        assert killed.check() == []


@pytest.mark.long
def test_a_run_killed_again_and_again_between_calls_buys_every_request_once(tmp_path: Path) -> None:
    recipe, whole = make_recipe(**NO_STUDENT), Rule()
    expected = run_data(make_pool(tmp_path / "whole"), recipe, whole)
    rule, pool = Rule(), make_pool(tmp_path / "killed")
    for number in range(2, 40, 5):
        try:
            result = run_data(pool, recipe, rule, notify=kill_at(number))
            break
        except Killed:
            continue
    else:
        result = run_data(pool, recipe, rule)
    assert [stage.digest for stage in result.stages] == [stage.digest for stage in expected.stages]
    assert sorted(rule.keys) == sorted(set(whole.keys))


def test_running_again_does_nothing_and_new_starts_another_run(tmp_path: Path) -> None:
    pool, recipe, rule = make_pool(tmp_path / "pool"), make_recipe(**NO_STUDENT), Rule()
    first = run_data(pool, recipe, rule)
    version, calls = pool.version, len(rule.keys)
    assert run_data(pool, recipe, rule).run_id == first.run_id
    assert (pool.version, len(rule.keys)) == (version, calls)
    assert run_data(pool, recipe, rule, new=True).run_id != first.run_id
    assert len(rule.keys) == calls, "the second run asks the same and pays for nothing"


def test_every_stage_adds_exactly_its_rows_and_keeps_the_earlier_ones(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool")
    result = run_data(pool, make_recipe(budget_rows=31, stages=3, **NO_STUDENT))
    assert [stage.rows for stage in result.stages] == [10, 20, 31]
    snapshots = [pool.snapshot(stage.snapshot_id).rows for stage in result.stages]
    for earlier, later in itertools.pairwise(snapshots):
        assert later.head(earlier.height).equals(earlier)


def test_tail_domains_are_filled_by_written_examples(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool")
    result = run_data(pool, make_recipe(balance={"policy": "uniform"}, **NO_STUDENT))
    assert domains(pool, result) == {"fruit": 10, "tool": 10, "bird": 10}
    origins = pool.snapshot(result.snapshot_id).rows.filter(pl.col("domain") == "bird").group_by("origin").len()
    assert dict(origins.iter_rows()) == {"source": SIZES["bird"], "synthetic": 10 - SIZES["bird"]}
    assert result.head == {"fruit", "tool"}


@pytest.mark.long
def test_a_domain_without_real_examples_is_written_whole(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", sizes={"fruit": 30, "tool": 20})
    result = run_data(pool, make_recipe(balance={"policy": "uniform"}, **NO_STUDENT))
    assert domains(pool, result)["bird"] == 10


def test_fill_with_repeats_takes_every_real_row_first(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool")
    recipe = make_recipe(balance={"policy": "uniform"}, fill=["real", "repeat"], **NO_STUDENT)
    birds = pool.snapshot(run_data(pool, recipe).snapshot_id).rows.filter(pl.col("domain") == "bird")
    assert (birds.height, birds["example_id"].n_unique()) == (10, SIZES["bird"])
    copies = birds.group_by("example_id").len()["len"]
    assert copies.max() - copies.min() <= 1  # type: ignore[operator]
    assert birds["row_id"].n_unique() == birds.height


def test_what_a_domain_lacks_goes_to_others_and_is_recorded(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool")
    recipe = make_recipe(balance={"policy": "uniform"}, fill=["real"], **NO_STUDENT)
    result = run_data(pool, recipe)
    assert result.stages[-1].rows == 30
    assert domains(pool, result)["bird"] == SIZES["bird"]
    lacking = [deficit for stage in result.stages for deficit in stage.deficits]
    assert {deficit["domain"] for deficit in lacking} == {"bird"}
    assert all(sum(deficit["given_to"].values()) == deficit["rows"] for deficit in lacking)


@pytest.mark.long
def test_a_deficit_names_only_the_rows_that_its_own_domain_lacked(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", sizes={"fruit": 40, "tool": 2, "bird": 3})
    result = run_data(pool, make_recipe(balance={"policy": "uniform"}, fill=["real"], **NO_STUDENT))
    lacking = [deficit for stage in result.stages for deficit in stage.deficits]
    assert {deficit["domain"] for deficit in lacking} == {"bird", "tool"}
    assert all(sum(deficit["given_to"].values()) == deficit["rows"] for deficit in lacking)


def test_a_snapshot_is_short_only_when_every_way_is_used_up(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", sizes={"fruit": 5, "tool": 5, "bird": 5})
    result = run_data(pool, make_recipe(fill=["real"], **NO_STUDENT))
    assert result.stages[-1].rows == 15
    assert any(not deficit["given_to"] for stage in result.stages for deficit in stage.deficits)


def test_a_rejected_row_is_replaced_by_the_next_of_its_domain(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool")
    result = run_data(pool, make_recipe(balance={"policy": "natural"}, **NO_STUDENT), Rule(wrong="apple"))
    taken = pool.snapshot(result.snapshot_id).rows
    assert taken.height == 30
    assert not taken["prompt"].str.contains("apple").any()
    decisions = pool.decisions(run_id=result.run_id)
    assert decisions.filter(pl.col("reason") == "refill").height > 0
    assert set(decisions.filter((pl.col("step") == "rationale") & ~pl.col("kept"))["reason"]) == {
        "answer_contradicts_reference"
    }
    assert not pool.rationales().filter(~pl.col("accepted")).is_empty(), "rejected rationales are kept"


@pytest.mark.long
def test_a_prompt_of_the_eval_split_never_enters_a_snapshot(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", sizes={"fruit": 20, "tool": 20, "bird": 3})
    leaked = [row | {"question": row["question"].upper() + "  "} for row in rows("bird", 2, seed=2)]
    pool.add(pl.DataFrame(leaked), prompt="question", answer="answer", domain="topic")
    held_out = {texts.normalised(text) for text in pool.examples(split="eval")["prompt"]}
    assert held_out & {texts.normalised(text) for text in pool.examples(split="train")["prompt"]}
    result = run_data(pool, make_recipe(balance={"policy": "uniform"}, fill=["real", "repeat"], **NO_STUDENT))
    taken = {texts.normalised(text) for text in pool.snapshot(result.snapshot_id).rows["prompt"]}
    assert not taken & held_out


@pytest.mark.long
def test_a_run_draws_nothing_that_another_run_had_written(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool")
    recipe = make_recipe(balance={"policy": "uniform"}, **NO_STUDENT)
    run_data(pool, recipe)
    other = run_data(pool, make_recipe(balance={"policy": "uniform"}, fill=["real", "repeat"], **NO_STUDENT))
    assert set(pool.snapshot(other.snapshot_id).rows["origin"]) == {"source"}


def test_a_cap_stops_the_run_cleanly_and_a_higher_one_goes_on(tmp_path: Path) -> None:
    recipe, whole, rule = make_recipe(**NO_STUDENT), Rule(), Rule()
    expected = run_data(make_pool(tmp_path / "whole"), recipe, whole)
    pool = make_pool(tmp_path / "capped")
    with pytest.raises(CapReached, match=r"caps\.calls") as caught:
        run_data(pool, make_recipe(caps={"calls": 12}, **NO_STUDENT), rule)
    assert caught.value.limit == 12
    assert len(rule.keys) == 12
    with Ledger(pool.path / "calls.sqlite") as ledger:
        assert ledger.calls()["status"].to_list().count("succeeded") == 12
    again = run_data(pool, recipe, rule)
    assert [stage.digest for stage in again.stages] == [stage.digest for stage in expected.stages]
    assert sorted(rule.keys) == sorted(whole.keys)


def test_a_teacher_that_is_down_pauses_the_run_and_rejects_no_row(tmp_path: Path) -> None:
    def down(request: Request) -> Reply:
        return Reply(request, "transient", error="connection refused")

    pool, recipe = make_pool(tmp_path / "pool"), make_recipe(**NO_STUDENT)
    hurried = recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update={"tries": 1})})
    with pytest.raises(TeacherPaused):
        run(pool, hurried, teacher=Scripted(down), train=False)
    assert pool.rationales().is_empty()
    assert run_data(pool, recipe).stages[-1].rows == 30


def test_a_second_paying_process_is_told_who_holds_the_pool(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool")
    code = (
        f"import sys; from balkit import Pool; pool = Pool.open({str(pool.path)!r})\n"
        "with pool.lock(): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(PoolLocked, match=str(holder.pid)):
            run_data(pool, make_recipe(**NO_STUDENT))
        holder.stdin.close()


@pytest.mark.parametrize("method", recipes.SCORES_OF)
def test_choosing_by_scores_without_training_is_refused(tmp_path: Path, method: str) -> None:
    with pytest.raises(RunError, match=rf"select\.then: {method} needs a trained student"):
        run_data(make_pool(tmp_path / "pool"), make_recipe(select={"then": method}))


@pytest.mark.parametrize("method", ["loss", "uncertainty", "ifd_coverage"])
@pytest.mark.long
def test_later_stages_choose_by_the_score_that_their_method_reads(tmp_path: Path, method: str) -> None:
    select = {"first": "medoids", "then": method, "response": "reference", "candidates": "all", "max_ifd": 1e6}
    pool = make_pool(tmp_path / "pool")
    result = run(pool, make_recipe(select=select), teacher=Scripted(Rule()))
    assert result.stages[-1].rows == 30
    chosen = pool.decisions(run_id=result.run_id).filter(pl.col("step") == "select").sort("rank")
    assert set(chosen.filter(pl.col("stage") == 1)["method"]) == {"medoids"}
    later = chosen.filter((pl.col("stage") == 2) & (pl.col("method") == method) & (pl.col("domain") == "fruit"))
    scored = pool.scores().filter(pl.col("name") == recipes.SCORES_OF[method]).select("example_id", "value")
    told = later.join(scored, on="example_id", maintain_order="left")
    assert told.height > 8
    if method == "ifd_coverage":
        assert told["detail"].to_list() == [f"ifd {value:.4g}" for value in told["value"]]
    else:
        assert told["gain"].to_list() == told["value"].to_list() == sorted(told["value"], reverse=True)


@pytest.mark.long
def test_a_row_retired_in_the_middle_stops_the_run_before_it_pays(tmp_path: Path) -> None:
    pool, recipe, rule = make_pool(tmp_path / "pool"), make_recipe(**NO_STUDENT), Rule()
    with pytest.raises(CapReached):
        run_data(pool, make_recipe(caps={"calls": 3}, **NO_STUDENT), rule)
    pool.retire([pool.examples(split="train")["example_id"][0]], reason="a typo in it")
    with pytest.raises(RunError, match="--new"):
        run_data(pool, recipe, rule)
    assert len(rule.keys) == 3
    assert run_data(pool, recipe, rule, new=True).stages[-1].rows == 30


@pytest.mark.long
def test_scores_that_others_gave_change_nothing(tmp_path: Path) -> None:
    recipe, alone, beside = make_recipe(), make_pool(tmp_path / "alone"), make_pool(tmp_path / "beside")
    expected = run(alone, recipe, teacher=Scripted(Rule()))

    def score_all(event: Event) -> None:
        if event.step == "evaluate" and event.stage == 1 and beside.committed(("others", 1, "scores")) is None:
            (checkpoint,) = beside.scores()["checkpoint"].unique()
            ids = beside.examples(split="train")["example_id"]
            made = [
                {"example_id": i, "checkpoint": checkpoint, "name": "ifd", "settings": SETTINGS, "value": 0.99}
                for i in ids
            ]
            beside.commit(Commit("scored by hand", key=("others", 1, "scores"), scores=frames.SCORES.of(made)))

    assert (
        run(beside, recipe, teacher=Scripted(Rule()), notify=score_all).stages[-1].digest == expected.stages[-1].digest
    )


@pytest.mark.long
def test_arms_that_share_a_student_keep_their_own_scores_and_accuracies(tmp_path: Path) -> None:
    arms = [
        make_recipe(name="own", evaluate={"max_new_tokens": 8, "limit_per_domain": 2}),
        make_recipe(name="given", select={"then": "ifd", "response": "reference", "candidates": 2}),
    ]
    together = make_pool(tmp_path / "together")
    beside = [run(together, arm, teacher=Scripted(Rule())) for arm in arms]
    alone = [run(make_pool(tmp_path / arm.name), arm, teacher=Scripted(Rule())) for arm in arms]
    for one, other in zip(beside, alone, strict=True):
        assert [stage.digest for stage in one.stages] == [stage.digest for stage in other.stages]
        assert [stage.summary for stage in one.stages] == [stage.summary for stage in other.stages]


@pytest.mark.parametrize("change", ["retire a written row", "put a used prompt into eval"])
def test_a_change_under_a_run_stops_it_before_it_pays(tmp_path: Path, change: str) -> None:
    pool, rule = make_pool(tmp_path / "pool"), Rule()
    recipe = make_recipe(balance={"policy": "uniform"}, **NO_STUDENT)
    with pytest.raises(Killed):
        run_data(pool, recipe, rule, notify=at_stage_two)
    taken = pool.snapshot("latest").rows
    paid = len(rule.keys)
    if change == "retire a written row":
        pool.retire(taken.filter(pl.col("origin") == "synthetic")["example_id"].head(1).to_list(), reason="wrong")
    else:
        row = {"question": taken["prompt"][0].upper(), "answer": "other", "topic": "bird"}
        pool.add(pl.DataFrame([row]), prompt="question", answer="answer", domain="topic", split="eval")
    with pytest.raises(RunError, match="--new"):
        run_data(pool, recipe, rule)
    assert len(rule.keys) == paid


def at_stage_two(event: Event) -> None:
    if event.stage == 2:
        raise Killed(event.step)


def test_a_budget_below_one_row_a_domain_is_refused_before_anything_is_paid(tmp_path: Path) -> None:
    pool, rule = make_pool(tmp_path / "pool"), Rule()
    pool.add(pl.DataFrame(rows("bird", 2, seed=3)), split="dev", prompt="question", answer="answer", domain="topic")
    with pytest.raises(BudgetError):
        run_data(pool, make_recipe(budget_rows=2, **NO_STUDENT), rule)
    assert rule.keys == []
    assert not (pool.path / "runs").exists()


def test_prompts_that_no_student_could_read_are_refused_before_anything_is_paid(tmp_path: Path) -> None:
    pool, rule = make_pool(tmp_path / "pool"), Rule()
    long = [{"question": "apple " * 400, "answer": "fruit", "topic": "fruit"}]
    pool.add(pl.DataFrame(long), prompt="question", answer="answer", domain="topic")
    with pytest.raises(StudentError, match=r"1 of 56 .*over_length: drop"):
        run(pool, make_recipe(), teacher=Scripted(rule))
    assert rule.keys == []


def test_a_record_of_a_run_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    pool, recipe = make_pool(tmp_path / "pool"), make_recipe(**NO_STUDENT)
    result = run_data(pool, recipe)
    record = pool.path / "runs" / result.run_id[:12] / "run.json"
    record.write_text("{")
    with pytest.raises(PoolDamaged, match=r"run\.json"):
        run_data(pool, recipe)
