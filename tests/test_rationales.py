"""Several worked answers an example, retries that differ, and votes where no reference is known."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from small import Rule, make_pool, make_recipe, rows
from teacher_server import TeacherServer

from balkit import answers, recipe, synthesize, texts
from balkit.basis import Basis
from balkit.errors import CapReached, RecipeError
from balkit.planning import plan
from balkit.pool import Pool
from balkit.stages import RunResult, run
from balkit.teacher import Ledger, Reply, Request, Scripted

NO_STUDENT: dict[str, Any] = {"select": {"first": "random", "then": "random"}}
LABELS = ("bird", "fruit", "tool")


class Varied(Rule):
    """Says the same in other words at every sample."""

    def __call__(self, request: Request) -> str:
        said = super().__call__(request)
        return said if request.purpose == "synthesis" else f"Way {request.key[:8]}: {said}"


class Said:
    """A teacher that answers by a function of the request, and keeps what it was asked."""

    def __init__(self, say: Callable[[Request], str | Reply]) -> None:
        self.say = say
        self.asked: list[Request] = []

    def __call__(self, requests: Iterable[Request]) -> Iterator[Reply]:
        batch = list(requests)
        self.asked += batch
        for request in reversed(batch):
            said = self.say(request)
            yield said if isinstance(said, Reply) else Reply(request, "ok", said, "stop", author="test")


def explain(said: Said, references: list[str | None], *, kind: recipe.Kind = "number", **section: Any) -> pl.DataFrame:
    """RATIONALES of one example a reference."""
    examples = [
        {"example_id": texts.example_id(f"How many {n}?", one), "prompt": f"How many {n}?", "reference": one}
        | {"domain": "d"}
        for n, one in enumerate(references)
    ]
    schema = dict.fromkeys(("example_id", "prompt", "reference", "domain"), pl.String)
    channel = synthesize.Channel(
        ask=said, endpoint="t", model="m", stage=1, section=recipe.Rationale(**section),
        expected=recipe.Answers(kind=kind), labels=LABELS,
    )  # fmt: skip
    return synthesize.rationales(pl.DataFrame(examples, schema=schema), channel=channel)


def reasons(found: pl.DataFrame) -> Counter[str | None]:
    return Counter(found["reason"])


def by_sample(*said: str) -> Said:
    """Sample i of every example gets the i-th text."""
    return Said(lambda request: said[request.sample])


# -- several an example


def test_the_same_text_counts_once_and_is_asked_for_again() -> None:
    said = by_sample("Add.\nAnswer: 4", "ADD!\nAnswer:  4", "Count.\nAnswer: 4", "Guess.\nAnswer: 4")
    found = explain(said, ["4"], per_example=2)
    assert found.filter("accepted")["text"].to_list() == ["Add.\nAnswer: 4", "Count.\nAnswer: 4"]
    assert reasons(found) == {None: 2, "duplicate": 1}
    assert "another way" in said.asked[-1].messages[0][1]


def test_an_example_may_end_with_fewer_than_it_wants() -> None:
    found = explain(by_sample(*["Add.\nAnswer: 4"] * 4), ["4"], per_example=2)
    assert reasons(found) == {None: 1, "duplicate": 3}


def run_data(pool: Pool, rule: Rule | None = None, **changes: Any) -> RunResult:
    return run(pool, make_recipe(**(NO_STUDENT | changes)), teacher=Scripted(rule or Varied()), train=False)


@pytest.mark.parametrize("fill", [("real", "synthetic"), ("real", "repeat")])
@pytest.mark.long
def test_each_worked_answer_is_a_row_of_the_budget_and_the_plan_foresees_its_calls(
    tmp_path: Path, fill: tuple[str, ...]
) -> None:
    pool = make_pool(tmp_path / "pool", sizes={"fruit": 18, "tool": 6, "bird": 2})
    changes = {"fill": fill, "rationale": {"per_example": 3, "max_tokens": 64}, "synthesis": {"per_call": 1}}
    planned = plan(pool, make_recipe(**(NO_STUDENT | changes)))
    result = run_data(pool, **changes)
    drawn = pool.snapshot(result.snapshot_id).rows
    assert drawn.height == 30
    assert not drawn["row_id"].is_duplicated().any()
    first = drawn.filter(pl.col("copy") == 0)
    each = first.group_by("example_id").agg(rows=pl.len(), texts=pl.col("rationale").n_unique())
    assert each["rows"].max() == 3
    assert each.filter(pl.col("rows") != pl.col("texts")).is_empty()
    taken = planned.rows.filter(pl.col("stage") > 0).select("take", "make", "repeat", "short").sum().row(0)
    origins = Counter(first["origin"])
    assert taken == (origins["source"], origins["synthetic"], drawn.height - first.height, 0)
    paid = pool.calls(run_id=result.run_id)
    assert (
        paid.filter(pl.col("purpose") != "synthesis").height
        == planned.costs.filter(pl.col("purpose") != "synthesis")["calls"].sum()
    )
    assert pool.check() == []


def test_the_rows_of_an_example_stand_apart(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool")
    rationale = {"per_example": 2, "max_tokens": 64}
    drawn = pool.snapshot(run_data(pool, rationale=rationale, stages=1, fill=["real"]).snapshot_id).rows
    beside = (drawn["example_id"] == drawn["example_id"].shift(1)).sum()
    assert drawn["example_id"].is_duplicated().sum() > 20
    assert beside < 5


def test_a_domain_is_head_by_its_examples_and_not_by_their_rows(tmp_path: Path) -> None:
    pool, shared = make_pool(tmp_path / "pool"), {"budget_rows": 18, "balance": {"policy": "uniform"}}
    heads = [Basis.of(pool, make_recipe(rationale={"per_example": each}, **shared)).head for each in (1, 3)]
    assert heads == [{"fruit", "tool"}, {"fruit", "tool", "bird"}]  # bird has 3 examples, and 3 rows a stage


def test_a_stage_repeats_every_worked_answer_before_one_a_second_time(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", sizes={"bird": 2}, eval_rows=0)
    rationale = {"per_example": 2, "max_tokens": 64}
    result = run_data(pool, budget_rows=8, stages=1, fill=["real", "repeat"], rationale=rationale)
    copies = Counter(pool.snapshot(result.snapshot_id).rows["copy"])
    assert copies == {0: 4, 1: 4}


def test_a_recipe_without_the_new_keys_keeps_its_digest() -> None:
    plain = make_recipe()
    assert make_recipe(rationale={"max_tokens": 64, "per_example": 1, "votes": 0}).run_digest() == plain.run_digest()
    assert make_recipe(rationale={"max_tokens": 64, "per_example": 2}).run_digest() != plain.run_digest()


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"per_example": 2, "tries": 1, "temperature": 0}, "per_example above 1 at temperature 0"),
        ({"votes": 3, "tries": 1, "temperature": 0}, "votes above 1 at temperature 0"),
        ({"votes": 1}, "a vote that nothing agrees with"),
        ({"votes": 2, "per_example": 3}, "votes 2 cannot bring per_example 3"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused(section: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        make_recipe(rationale=section)


# -- retries


@pytest.mark.parametrize(
    ("first", "note"),
    [
        (lambda request: "I think so", "lacked the last line"),
        (lambda request: Reply(request, "ok", "long\nAnswer: 4", "length"), "Be brief"),
        (lambda request: "", "was empty"),
        (lambda request: "I'm sorry, I cannot.", "did not work on the task"),
        (lambda request: "It is so.\nAnswer: 5", "Check each step"),
    ],
)
def test_a_second_try_says_what_the_first_lacked(first: Callable[[Request], str | Reply], note: str) -> None:
    said = Said(lambda request: "Add.\nAnswer: 4" if request.sample else first(request))
    found = explain(said, ["4"], hint=False)
    asked = [request.messages[0][1] for request in said.asked]
    assert found["accepted"].to_list() == [False, True]
    assert note not in asked[0]
    assert note in asked[1]


def test_a_try_without_a_hint_never_learns_the_reference_or_that_it_was_wrong() -> None:
    said = Said(lambda request: "It is so.\nAnswer: 5")
    found = explain(said, ["417"], hint=False, tries=3)
    assert reasons(found) == {"answer_contradicts_reference": 3}
    assert not any("417" in request.messages[0][1] or "wrong" in request.messages[0][1] for request in said.asked)
    assert len({request.key for request in said.asked}) == 3


# -- votes


def test_the_answer_of_more_than_half_is_taken_for_right() -> None:
    found = explain(by_sample("A.\nAnswer: 4", "B.\nAnswer: 5", "C.\nAnswer: 4.0", "D\nAnswer: 4", ""), [None], votes=5)
    assert reasons(found) == {None: 3, "outvoted": 1, "empty": 1}
    assert set(found.filter("accepted")["answer"]) == {"4", "4.0"}


@pytest.mark.parametrize(
    ("said", "reason"),
    [(["4", "5", "4", "5"], "vote_tied"), (["4", "5", "4", "6"], "vote_thin"), (["4", "4", "5", "x"], "vote_thin")],
)
def test_ties_and_thin_majorities_accept_nothing(said: list[str], reason: str) -> None:
    found = explain(by_sample(*(f"Way {n}.\nAnswer: {one}" for n, one in enumerate(said))), [None], votes=4)
    assert not found["accepted"].any()
    assert set(found["reason"]) <= {reason, "no_answer"}
    assert reason in set(found["reason"])


def test_only_examples_without_a_reference_are_voted_on() -> None:
    said = by_sample("A.\nAnswer: 4", "B.\nAnswer: 4", "C.\nAnswer: 4")
    explain(said, ["4", None], votes=3)
    assert Counter(request.purpose for request in said.asked) == {"rationale": 1, "vote": 3}


def test_a_run_takes_winners_and_replaces_what_was_not_decided(tmp_path: Path) -> None:
    class Voter(Varied):
        """Of the prompts with a pear it cannot say what they are."""

        def __call__(self, request: Request) -> str:
            said = super().__call__(request)
            return said.replace("fruit", LABELS[request.sample % 3]) if " pear" in request.subject else said

    pool = Pool.create(tmp_path / "pool")
    asked = [row for domain in LABELS for row in rows(domain, 40, seed=1)]
    open_rows = pl.DataFrame(asked).with_columns(answer=pl.lit(None, pl.String))
    pool.add(open_rows, prompt="question", answer="answer", domain="topic")
    rationale = {"votes": 3, "per_example": 2, "max_tokens": 64}
    changes = {"rationale": rationale, "fill": ["real"], "stages": 1}
    planned = plan(pool, make_recipe(**(NO_STUDENT | changes)))
    result = run_data(pool, Voter(), **changes)
    drawn = pool.snapshot(result.snapshot_id).rows
    assert drawn.height == 30
    assert drawn["answer"].to_list() == drawn["domain"].to_list()
    fallen = pool.decisions(run_id=result.run_id).filter(pl.col("step") == "rationale")
    assert set(fallen["reason"]) == {"vote_tied", "vote_thin"} & set(fallen["reason"]) != set()
    assert planned.costs["purpose"].unique().to_list() == ["vote"]
    assert planned.costs["calls"].sum() == 3 * 15
    assert pool.calls(run_id=result.run_id).height == 3 * (15 + fallen.height)


def test_answers_are_grouped_by_what_they_mean() -> None:
    said = [["1/2", "0.5", None, "2", "$0.50"], [], ["7", "1/2"]]
    assert answers.grouped(said, kind="number") == [[0, 0, None, 1, 0], [], [0, 1]]
    assert answers.grouped([["b", "B)"]], kind="choice") == [[0, 0]]


# -- over real HTTP


def say(body: dict[str, Any]) -> str:
    """What the provider answers: by the words of the prompt; of five requests it is wrong about one."""
    asked = body["messages"][-1]["content"]
    turn = int(texts.digest(body["messages"])[:8], 16)
    right = Rule()(Request("vote", "", "", (), "", 0, 1, 1.0, subject=asked)).rpartition(" ")[2]
    return f"Way {turn}.\nAnswer: {right if turn % 5 else LABELS[turn % 3]}"


@pytest.mark.long
def test_a_run_that_is_stopped_again_and_again_asks_for_the_same_keys_and_pays_once(tmp_path: Path) -> None:
    plain = make_recipe(
        **NO_STUDENT, fill=["real"], stages=2, budget_rows=24,
        teacher={"name": "t", "model": "openai/m", "price": "free", "tries": 1},
        rationale={"per_example": 2, "tries": 3, "votes": 3, "hint": False, "max_tokens": 64},
    ).model_dump(mode="json")  # fmt: skip
    digests, asked = [], []
    for is_stopped in (False, True):
        pool = make_pool(tmp_path / f"pool {is_stopped}")
        blank = pl.DataFrame(rows("tool", 6, seed=5)).with_columns(answer=pl.lit(None, pl.String))
        pool.add(blank, prompt="question", answer="answer", domain="topic")
        with TeacherServer(answer=say) as server:
            result, caps = None, itertools.count(7, 17) if is_stopped else itertools.repeat(None)
            while result is None:
                here = {"teacher": plain["teacher"] | {"base_url": server.url}, "caps": {"calls": next(caps)}}
                with suppress(CapReached):
                    result = run(pool, recipe.load(plain | here), train=False)
            digests.append([stage.digest for stage in result.stages])
            with Ledger(pool.path / "calls.sqlite") as ledger:
                found = ledger.calls()
            asked.append(set(found["key"]))
            assert server.served == found.height == found["attempts"].sum()
    assert digests[0] == digests[1]
    assert asked[0] == asked[1]
