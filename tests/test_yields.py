"""Attributes, budgets and yields of written rows: what steers the next call, and why a domain ends."""

from __future__ import annotations

import itertools
import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_synthesize import Teacher, example, honest, new_texts, write

from balkit import frames, synthesize
from balkit import recipe as recipes
from balkit.errors import RecipeError
from balkit.synthesize.attributes import drawn, told
from balkit.synthesize.effort import BARREN_CALLS, LEAST_YIELD, Yield
from balkit.teacher.protocol import Request

pytest.importorskip("rapidfuzz")

VALUES = st.lists(st.integers(1, 4), min_size=1, max_size=3)


@given(VALUES, st.integers(0, 5), st.integers(0, 3))
def test_every_combination_has_its_turn(sizes: list[int], seed: int, block: int) -> None:
    attributes = {f"a{n}": [f"v{value}" for value in range(size)] for n, size in enumerate(sizes)}
    count = len(list(itertools.product(*attributes.values())))
    calls = range(block * count, (block + 1) * count)
    seen = [tuple(drawn(attributes, domain="tin", sample=sample, seed=seed).values()) for sample in calls]
    assert set(seen) == set(itertools.product(*attributes.values()))


def test_values_are_balanced_from_the_first_calls_on() -> None:
    attributes = {"length": ["short", "long"], "tone": ["calm", "angry", "sad"], "day": ["Mon", "Tue", "Wed", "Thu"]}
    first = [drawn(attributes, domain="tin", sample=sample, seed=1) for sample in range(12)]
    for name, values in attributes.items():
        counts = [sum(one[name] == value for one in first) for value in values]
        assert max(counts) - min(counts) <= 2
    assert first != [drawn(attributes, domain="gold", sample=sample, seed=1) for sample in range(12)]
    assert told({}) == ""


def test_attributes_stand_in_the_request_and_beside_what_was_written() -> None:
    attributes = {"length": ("one sentence", "three sentences")}
    teacher = Teacher(lambda request: new_texts(request) if request.purpose == "synthesis" else "Answer: gold")
    done = write(teacher, {"tin": 2}, per_call=1, calls_per_row=1.0, attributes=attributes)
    asked = [request.messages[0][1] for request in teacher.of("synthesis")]
    assert ["length: one sentence" in text for text in asked] != ["length: three sentences" in text for text in asked]
    refused = [json.loads(row) for row in done.decisions.filter(pl.col("reason") == "vote_disagrees")["detail"]]
    assert {row["attributes"]["length"] for row in refused} == set(attributes["length"])
    kept = write(Teacher(honest), {"tin": 2}, per_call=1, attributes=attributes).decisions.filter("kept")
    assert {json.loads(row)["attributes"]["length"] for row in kept["detail"]} == set(attributes["length"])


@pytest.mark.parametrize("values", [[], ["a", "a"], ["a", " "]])
def test_an_attribute_needs_different_values(values: list[str]) -> None:
    body = {
        "name": "x",
        "budget_rows": 9,
        "teacher": {"transport": "offline"},
        "synthesis": {"attributes": {"tone": values}},
    }
    with pytest.raises(RecipeError, match="tone"):
        recipes.load(body)


def test_keys_that_came_later_leave_the_digest_of_a_run_as_it_was() -> None:
    body = {"name": "x", "budget_rows": 9, "teacher": {"transport": "offline"}}
    plain = recipes.load(body)
    same = recipes.load(body | {"synthesis": {"attributes": {}, "rationale": False, "languages": []}})
    other = recipes.load(body | {"synthesis": {"max_calls_per_domain": 7}})
    assert plain.run_digest() == same.run_digest() != other.run_digest()
    assert "attributes" not in json.dumps(sorted(plain.model_dump(mode="json", exclude={"synthesis"})))


# -- why a domain ends --------------------------------------------------------------------------------------------


def ends(done: synthesize.Written) -> dict[str, tuple[str, dict[str, int]]]:
    rows = done.decisions.filter(pl.col("method") == "budget")
    return {row["domain"]: (row["reason"], json.loads(row["detail"])) for row in rows.iter_rows(named=True)}


def test_a_domain_of_which_nothing_passes_stops_after_ten_calls_and_says_why() -> None:
    teacher = Teacher(lambda request: '{"examples": [{"prompt": "", "answer": "tin"}]}')
    done = write(teacher, {"tin": 400}, per_call=4)
    assert len(teacher.asked) == BARREN_CALLS
    assert ends(done) == {"tin": ("no_yield", {"missing": 400, "calls": 10, "rows_asked": 40, "passed": 0})}


def test_calls_of_earlier_stages_count_for_a_domain_of_which_nothing_passes() -> None:
    teacher = Teacher(honest)
    done = write(teacher, {"tin": 4}, earlier={"tin": Yield(calls=10, written=40, kept=0)})
    assert (teacher.rounds, ends(done)["tin"][0]) == (0, "no_yield")
    again = write(teacher, {"tin": 4}, earlier={"tin": Yield(calls=10, written=40, kept=1)})
    assert again.decisions.filter("kept").height == 4


def test_a_domain_that_used_up_its_sub_budget_says_so() -> None:
    teacher = Teacher(lambda request: new_texts(request) if request.purpose == "synthesis" else "Answer: gold")
    assert ends(write(teacher, {"tin": 4}, per_call=4, calls_per_row=1.0))["tin"][0] == "calls_used_up"
    assert ends(write(Teacher(honest), {"tin": 4})) == {}


def test_a_cap_for_a_domain_counts_the_calls_of_the_whole_run() -> None:
    teacher = Teacher(lambda request: honest(request) if request.domain == "gold" else '{"examples": []}')
    done = write(
        teacher,
        {"tin": 40, "gold": 4},
        max_calls_per_domain=5,
        earlier={"tin": Yield(3, 12, 2), "gold": Yield(1, 4, 4)},
    )
    assert done.calls_made["tin"] == 2
    assert set(ends(done)) == {"tin"}
    assert ends(done)["tin"] == ("calls_capped", {"missing": 40, "calls": 5, "rows_asked": 20, "passed": 2})


def test_a_domain_that_wastes_rows_is_asked_for_more_than_one_that_does_not() -> None:
    def rule(request: Request) -> str:
        if request.purpose != "synthesis":
            return honest(request)
        rows = json.loads(new_texts(request))["examples"]
        return json.dumps(
            {"examples": rows if request.domain == "gold" else [rows[0], *[{"prompt": "", "answer": "tin"}] * 3]}
        )

    teacher = Teacher(rule)
    write(teacher, {"tin": 8, "gold": 8}, calls_per_row=4.0)
    tin = [request.sample for request in teacher.of("synthesis") if request.domain == "tin"]
    assert (
        len(tin) == 8
    )  # two calls for eight rows; six are lacking, at a quarter of a row's worth each: five; then one
    assert sum(request.domain == "gold" for request in teacher.of("synthesis")) == 2


@given(*[st.integers(0, 50)] * 4)
def test_a_yield_lies_between_its_bounds_and_grows_with_what_is_kept(
    kept: int, lost: int, others: int, waste: int
) -> None:
    own, every = Yield(1, kept + lost, kept), Yield(2, kept + lost + others + waste, kept + others)
    found = own.kept_fraction(every)
    assert LEAST_YIELD <= found <= 1
    assert found <= Yield(1, kept + lost + 1, kept + 1).kept_fraction(every + Yield(0, 1, 1))
    assert Yield().kept_fraction(Yield(), expected=1.0) == 1.0


# -- the table ----------------------------------------------------------------------------------------------------


def test_yields_count_every_written_row_once() -> None:
    def row(example: str, step: str, method: str, reason: str, *, kept: bool = False) -> dict[str, object]:
        return {"example_id": example, "domain": "tin", "step": step, "method": method, "kept": kept, "reason": reason}

    decisions = frames.DECISIONS.of(
        [
            row("a", "synthesis", "quota", "surplus"),
            row("a", "synthesis", "quota", "written", kept=True),  # in the next stage
            row("b", "synthesis", "quota", "surplus"),
            row("b", "vote", "votes", "vote_disagrees"),
            row("c", "synthesis", "quota", "surplus"),
            row("a", "verify", "checks", "exact_duplicate"),
            row("key", "synthesis", "reply", "unparsable"),
            row("key", "synthesis", "budget", "calls_used_up"),
            row("real", "select", "random", "chosen", kept=True),
        ]
    )
    call = {
        "run_id": "r",
        "purpose": "synthesis",
        "endpoint": "e",
        "model": "m",
        "domain": "tin",
        "stage": 1,
        "attempts": 1,
    }
    call |= {"input_tokens": 1, "output_tokens": 1, "cost_microusd": 5, "example_id": None}
    calls = frames.CALLS.of([call | {"key": "1", "status": "succeeded"}, call | {"key": "2", "status": "cached"}])
    found = synthesize.yields(decisions, calls)
    assert found.to_dicts() == [
        {
            "domain": "tin", "calls": 2, "paid": 1, "written": 4, "kept": 1, "waiting": 1, "refused": 2,
            "kept_fraction": 0.5,
        }
    ]  # fmt: skip
    assert synthesize.by_domain(found) == {"tin": Yield(2, 4, 2)}
    assert synthesize.yields(decisions.clear(), calls.clear()).is_empty()


def test_what_runs_read_out_of_the_same_cached_replies_counts_once() -> None:
    row = {"domain": "tin", "method": "checks", "step": "verify", "kept": False, "reason": "exact_duplicate"}
    kept = row | {"method": "quota", "step": "synthesis", "kept": True, "reason": "written"}
    one = [row | {"example_id": name} for name in "aab"] + [kept | {"example_id": name} for name in "cde"]
    once = frames.DECISIONS.of(one)
    runs = [once.with_columns(run_id=pl.lit(run)) for run in ("first", "second", "third")]
    for found in (synthesize.yields(part, frames.CALLS.empty()).to_dicts()[0] for part in (once, pl.concat(runs))):
        assert (found["refused"], found["kept"], found["kept_fraction"]) == (3, 3, 0.5)


@pytest.mark.parametrize(("vote", "good"), [("tin", 0), ("gold", -2)])
def test_rows_that_waited_were_counted_when_they_were_written(vote: str, good: int) -> None:
    waiting = frames.EXAMPLES.of(
        [example(f"A story number {n} that waited", "tin", "tin", origin="synthetic") for n in range(2)]
    )
    teacher = Teacher(lambda request: f"Because.\nAnswer: {vote}" if request.purpose == "vote" else "none")
    done = write(teacher, {"tin": 2}, waiting=waiting, earlier={"tin": Yield(1, 4, 2)}, calls_per_row=1.0)
    assert (done.tally["tin"].written, done.tally["tin"].kept) == (0, good)
