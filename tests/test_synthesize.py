"""Rationales and new examples, with a teacher that is a function in the test."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balkit import frames, recipe, synthesize, texts
from balkit.synthesize.demonstrations import Shelf
from balkit.synthesize.templates import template
from balkit.teacher.protocol import Reply, Request

pytest.importorskip("rapidfuzz")

DOMAINS = ("gold", "tin", "earn")
Rule = Callable[[Request], str | Reply]


class Teacher:
    """Answers by a rule, in the given order or backwards, and remembers what it was asked."""

    def __init__(self, rule: Rule, *, backwards: bool = False) -> None:
        self.rule, self.backwards = rule, backwards
        self.asked: list[Request] = []
        self.rounds = 0

    def __call__(self, requests: Iterable[Request]) -> Iterator[Reply]:
        batch = list(requests)
        self.rounds += 1
        self.asked.extend(batch)
        for request in reversed(batch) if self.backwards else batch:
            said = self.rule(request)
            yield said if isinstance(said, Reply) else Reply(request, "ok", said, "stop", author="test-teacher")

    def of(self, purpose: str) -> list[Request]:
        return [request for request in self.asked if request.purpose == purpose]


def example(prompt: str, reference: str | None, domain: str, **more: Any) -> dict[str, Any]:
    row = {"example_id": texts.example_id(prompt, reference), "prompt": prompt, "reference": reference}
    return row | {"domain": domain, "split": "train", "origin": "source", "parents": [], "added_in": 1} | more


def real(per_domain: int = 6, domains: Iterable[str] = DOMAINS) -> pl.DataFrame:
    return frames.EXAMPLES.of(
        [example(f"Story {n}: {'word ' * n}about {name}", name, name) for name in domains for n in range(per_domain)]
    )


def explain(
    teacher: Teacher, examples: pl.DataFrame, *, kind: recipe.Kind = "label", tries: int = 2, hint: bool = True
) -> pl.DataFrame:
    section = recipe.Rationale(tries=tries, hint=hint)
    return synthesize.rationales(examples, channel=channel(teacher, kind=kind, section=section))


def channel(
    teacher: Teacher, *, kind: recipe.Kind, section: recipe.Rationale | None = None, stage: int = 1
) -> synthesize.Channel:
    return synthesize.Channel(
        ask=teacher,
        endpoint="test",
        model="m",
        stage=stage,
        section=section or recipe.Rationale(),
        expected=recipe.Answers(kind=kind),
        labels=DOMAINS,
    )


def write(
    teacher: Teacher, missing: dict[str, int], *, demonstrations: pl.DataFrame | None = None, **more: Any
) -> synthesize.Written:
    kind = more.pop("kind", "label")
    section = recipe.Synthesis(**{name: more.pop(name) for name in list(more) if name in recipe.Synthesis.model_fields})
    sources = {
        name: more.pop(name)
        for name in ("known", "evaluation", "encode", "pool", "waiting", "written", "earlier")
        if name in more
    }
    return synthesize.write_examples(
        missing,
        channel=channel(teacher, kind=kind, stage=2),
        section=section,
        sources=synthesize.Sources(
            demonstrations=real() if demonstrations is None else demonstrations,
            **{"known": [], "evaluation": []} | sources,
        ),
        **{"seed": 0} | more,
    )


def judged(done: synthesize.Written) -> pl.DataFrame:
    """The decisions without those on why a domain ended."""
    return done.decisions.filter(pl.col("method") != "budget")


def new_texts(request: Request) -> str:
    """As many different examples as asked for, each a function of the call's domain and ordinal."""
    rows = []
    for number in range(request.sample * request.count, (request.sample + 1) * request.count):
        words = texts.digest([request.domain, number])[:36]
        prompt = f"{request.domain} {number} " + " ".join(words[at : at + 6] for at in range(0, 36, 6))
        rows.append({"prompt": prompt, "answer": request.domain})
    return json.dumps({"examples": rows})


def honest(request: Request) -> str:
    return new_texts(request) if request.purpose == "synthesis" else f"It is so.\nAnswer: {request.domain}"


# -- rationales ---------------------------------------------------------------------------------------------------


def test_an_agreeing_rationale_is_accepted_at_the_first_try() -> None:
    teacher = Teacher(honest)
    found = explain(teacher, real(2))
    frames.check(found, frames.RATIONALES)
    assert found["accepted"].to_list() == [True] * 6
    assert set(found["author"]) == {"test-teacher"}
    assert sorted(found["source"]) == sorted(request.key for request in teacher.asked)


def test_a_hinted_rationale_that_declares_another_answer_is_rejected() -> None:
    found = explain(Teacher(lambda request: "Answer: gold"), real(1, ["tin"]))
    assert found["reason"].to_list() == ["answer_contradicts_reference"] * 2


def test_only_rejected_examples_are_asked_again_and_both_texts_are_kept() -> None:
    def rule(request: Request) -> str:
        return "I think so.\nAnswer: gold" if request.sample == 0 else f"Better.\nAnswer: {request.domain}"

    teacher = Teacher(rule)
    found = explain(teacher, real(1))
    assert len(teacher.asked) == 3 + 2
    assert found.group_by("example_id").agg(pl.col("accepted").sum())["accepted"].to_list() == [1, 1, 1]
    assert found.filter(~pl.col("accepted")).height == 2


@pytest.mark.parametrize(
    ("said", "finish_reason", "reason"),
    [
        ("", "stop", "empty"),
        ("It is so.\nAnswer: tin", "length", "cut_off"),
        ("I'm sorry, but I cannot help with that.", "stop", "refusal"),
        ("Operating costs are setting records.", "stop", "no_answer"),
        ("Answer: gold", "stop", "answer_contradicts_reference"),
    ],
)
def test_a_rejected_rationale_says_why(said: str, finish_reason: str, reason: str) -> None:
    teacher = Teacher(lambda request: Reply(request, "ok", said, finish_reason))
    assert explain(teacher, real(1, ["tin"]), tries=1)["reason"].to_list() == [reason]


def test_a_call_that_can_never_work_is_not_repeated() -> None:
    teacher = Teacher(lambda request: Reply(request, "permanent", error="content policy"))
    found = explain(teacher, real(1, ["tin"]))
    assert found.select("reason", "detail").rows() == [("call_failed", "content policy")]


def test_the_reference_is_shown_only_with_a_hint() -> None:
    hinted, blind = Teacher(honest), Teacher(honest)
    row = frames.EXAMPLES.of([example("Which metal?", "tin", "tin")])
    explain(hinted, row, hint=True)
    explain(blind, row, hint=False)
    assert "The reference answer is: tin" in hinted.asked[0].messages[0][1]
    assert "reference answer is" not in blind.asked[0].messages[0][1]
    assert (hinted.asked[0].reference, blind.asked[0].reference) == ("tin", None)


def test_the_domain_is_not_given_away_to_who_has_to_find_the_label() -> None:
    teacher = Teacher(honest)
    explain(teacher, frames.EXAMPLES.of([example("Which one?", "gold", "secret-domain")]), hint=False)
    assert "secret-domain" not in teacher.asked[0].messages[0][1]


def test_an_open_text_without_a_reference_is_accepted_when_whole() -> None:
    found = explain(Teacher(lambda request: "A poem."), frames.EXAMPLES.of([example("Sing", None, "tin")]), kind="text")
    assert found.select("accepted", "answer").rows() == [(True, None)]


def test_short_free_text_is_compared_and_long_free_text_is_not() -> None:
    rows = frames.EXAMPLES.of(
        [example("Capital?", "Paris", "tin"), example("Why?", "because it is far too cold", "tin")]
    )
    found = explain(Teacher(lambda request: "Answer: London"), rows, kind="text", tries=1)
    by_id = dict(found.select("example_id", "accepted").rows())
    assert [by_id[i] for i in rows["example_id"]] == [False, True]


def test_a_choice_outside_those_of_the_prompt_is_no_answer() -> None:
    row = frames.EXAMPLES.of([example("Which?\n(A) one\n(B) two", "B", "tin")])
    assert explain(Teacher(lambda request: "Answer: F"), row, kind="choice", tries=1)["reason"].to_list() == [
        "no_answer"
    ]
    assert explain(Teacher(lambda request: "Answer: (B) two"), row, kind="choice")["accepted"].to_list() == [True]


def test_rationales_do_not_depend_on_the_order_of_rows_or_replies() -> None:
    forwards = explain(Teacher(honest), real(3))
    backwards = explain(Teacher(honest, backwards=True), real(3).reverse())
    assert forwards.equals(backwards)


def test_no_examples_cost_no_call() -> None:
    teacher = Teacher(honest)
    assert explain(teacher, real(0)).is_empty()
    assert teacher.rounds == 0


# -- new examples -------------------------------------------------------------------------------------------------


def test_a_domain_gets_the_rows_it_lacks_with_their_rationales() -> None:
    done = write(Teacher(honest), {"tin": 5, "gold": 3})
    kept = done.decisions.filter("kept")
    assert dict(kept.group_by("domain").len().rows()) == {"tin": 5, "gold": 3}
    rows = done.examples.join(kept.select("example_id"), on="example_id", how="semi")
    frames.check(done.examples, frames.EXAMPLES)
    assert set(done.rationales.filter("accepted")["example_id"]) == set(rows["example_id"])
    assert set(rows["origin"]) == {"synthetic"}
    assert all(len(parents) == 5 for parents in rows["parents"])


def test_rows_beyond_the_quota_are_surplus_and_cost_no_second_answer() -> None:
    teacher = Teacher(honest)
    done = write(teacher, {"tin": 5}, per_call=4)
    assert done.decisions["reason"].value_counts().sort("reason").rows() == [("surplus", 3), ("written", 5)]
    assert done.examples.height == 8
    assert len(teacher.of("vote")) == 5


def test_a_domain_stops_at_its_sub_budget() -> None:
    teacher = Teacher(lambda request: '{"examples": []}')
    done = write(teacher, {"tin": 10}, per_call=4, calls_per_row=2.0)
    assert len(teacher.asked) == 5 == done.calls_made["tin"]
    assert done.examples.is_empty()


@given(missing=st.integers(0, 200), per_call=st.integers(1, 20), calls_per_row=st.floats(0.1, 5))
def test_the_plan_never_expects_more_calls_than_the_sub_budget(
    missing: int, per_call: int, calls_per_row: float
) -> None:
    section = recipe.Synthesis(per_call=per_call, calls_per_row=calls_per_row)
    calls = synthesize.expected_calls(missing, section=section)
    assert calls.low <= calls.expected <= calls.high == synthesize.sub_budget(missing, section=section)
    assert (calls.high > 0) == (missing > 0)


@settings(max_examples=25)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 3), st.integers(0, 6))
def test_never_more_rows_or_calls_than_allowed_whatever_is_refused(
    lack: int, per_call: int, votes: int, bad: int
) -> None:
    def rule(request: Request) -> str:
        wrong = int(request.key[:8], 16) % 7 < bad
        return honest(request) if not wrong else "{]" if request.purpose == "synthesis" else "Answer: gold"

    teacher = Teacher(rule)
    done = write(teacher, {"tin": lack}, per_call=per_call, votes=votes)
    section = recipe.Synthesis(per_call=per_call)
    assert done.decisions.filter("kept").height <= lack
    assert len(teacher.of("synthesis")) <= synthesize.sub_budget(lack, section=section)
    assert len({request.key for request in teacher.asked}) == len(teacher.asked)


def test_an_answer_that_votes_contradict_is_refused_with_both_answers() -> None:
    def rule(request: Request) -> str:
        return new_texts(request) if request.purpose == "synthesis" else "Answer: gold"

    done = write(Teacher(rule), {"tin": 2}, per_call=2, calls_per_row=1.0)
    assert judged(done)["reason"].to_list() == ["vote_disagrees"] * 2
    detail = json.loads(judged(done)["detail"][0])
    assert (detail["answer"], detail["votes"][0]["answer"]) == ("tin", "gold")
    assert detail["prompt"].startswith("tin ")
    assert done.examples.is_empty()


def test_all_votes_must_agree_and_their_samples_differ() -> None:
    def rule(request: Request) -> str:
        if request.purpose == "synthesis":
            return new_texts(request)
        return "Answer: tin" if request.sample < 2 else "Answer: gold"

    teacher = Teacher(rule)
    done = write(teacher, {"tin": 1}, per_call=1, votes=3, calls_per_row=1.0)
    assert sorted(request.sample for request in teacher.of("vote")) == [0, 1, 2]
    assert judged(done)["reason"].to_list() == ["vote_disagrees"]
    assert write(Teacher(honest), {"tin": 1}, per_call=1, votes=3).rationales.height == 1


def test_a_refused_row_is_replaced_by_the_next_one_written() -> None:
    def rule(request: Request) -> str:
        first = request.subject.startswith("tin 0 ")
        return new_texts(request) if request.purpose == "synthesis" else f"Answer: {'gold' if first else 'tin'}"

    teacher = Teacher(rule)
    done = write(teacher, {"tin": 4}, per_call=4)
    assert done.decisions.filter("kept").height == 4
    assert len(teacher.of("synthesis")) == 2


def test_votes_get_no_hint_and_without_votes_a_hinted_rationale_is_asked_for() -> None:
    voting, trusting = Teacher(honest), Teacher(honest)
    write(voting, {"tin": 2}, votes=1)
    write(trusting, {"tin": 2}, votes=0)
    assert {request.reference for request in voting.of("vote")} == {None}
    assert not trusting.of("vote")
    assert {request.reference for request in trusting.of("rationale")} == {"tin"}


def test_duplicates_of_known_texts_and_of_one_another_are_refused() -> None:
    def rule(request: Request) -> str:
        same = [{"prompt": "tin 0 the marble jar again and again", "answer": "tin"}] * request.count
        return json.dumps({"examples": same}) if request.purpose == "synthesis" else "Answer: tin"

    fresh = write(Teacher(rule), {"tin": 3}, per_call=2)
    assert fresh.decisions.filter("kept").height == 1
    assert set(judged(fresh)["reason"]) == {"written", "exact_duplicate"}
    stale = write(Teacher(rule), {"tin": 3}, per_call=2, known=["Tin 0: the marble jar again and again"])
    assert set(judged(stale)["reason"]) <= {"exact_duplicate", "near_duplicate"}


def test_a_text_of_the_eval_split_never_comes_in() -> None:
    first = json.loads(new_texts(Request("synthesis", "", "", (), "", 0, 1, 1.0, domain="tin", count=1)))["examples"][0]
    done = write(Teacher(honest), {"tin": 3}, evaluation=[first["prompt"].upper()])
    refused = done.decisions.filter(pl.col("reason") == "stands_in_eval")
    assert refused.height == 1
    assert first["prompt"] not in done.examples["prompt"].to_list()


def test_the_written_answer_must_be_the_domain_where_labels_are_domains() -> None:
    def rule(request: Request) -> str:
        return json.dumps({"examples": [{"prompt": f"Gold rose {request.sample}", "answer": "gold"}]})

    done = write(Teacher(rule), {"tin": 1}, per_call=1, calls_per_row=1.0)
    assert judged(done)["reason"].to_list() == ["label_contradicts_domain"]


def test_close_vectors_among_written_rows_are_a_semantic_duplicate() -> None:
    def encode(prompts: Any) -> Any:
        return np.array([[1.0, 0.0] if "amber" in text else [0.0, 1.0] for text in prompts], np.float32)

    def rule(request: Request) -> str:
        rows = [{"prompt": p, "answer": "tin"} for p in ("amber mines", "rivers of amber resin", "deep shafts")]
        return json.dumps({"examples": rows}) if request.purpose == "synthesis" else "Answer: tin"

    done = write(Teacher(rule), {"tin": 3}, per_call=3, calls_per_row=1.0, encode=encode)
    assert sorted(judged(done)["reason"]) == ["semantic_duplicate", "written", "written"]


def test_an_unparsable_reply_is_kept_under_its_call_with_its_raw_text() -> None:
    teacher = Teacher(lambda request: "no JSON here")
    done = write(teacher, {"tin": 1}, per_call=2)
    row = judged(done).row(0, named=True)
    assert (row["reason"], row["detail"], row["example_id"]) == ("unparsable", "no JSON here", teacher.asked[0].key)


def test_a_failed_call_ends_its_domain_and_not_the_others() -> None:
    def rule(request: Request) -> str | Reply:
        return Reply(request, "permanent", error="unknown") if request.domain == "tin" else honest(request)

    done = write(Teacher(rule), {"tin": 9, "gold": 2})
    failed = done.decisions.filter(pl.col("domain") == "tin")
    assert set(failed["reason"]) == {"call_failed"}
    assert done.calls_made["tin"] == 3
    assert done.decisions.filter("kept").height == 2


def test_ordinals_go_on_where_an_earlier_stage_stopped() -> None:
    teacher = Teacher(honest)
    write(teacher, {"tin": 6}, per_call=2, start_sample={"tin": 7})
    assert [request.sample for request in teacher.of("synthesis")] == [7, 8, 9]


def test_the_result_does_not_depend_on_the_order_of_replies() -> None:
    def rule(request: Request) -> str:
        wrong = int(request.key[:8], 16) % 3 == 0 and request.purpose == "vote"
        return "Answer: gold" if wrong else honest(request)

    first, second = Teacher(rule), Teacher(rule, backwards=True)
    one, two = write(first, {"tin": 7, "earn": 4}), write(second, {"earn": 4, "tin": 7})
    assert one.decisions.equals(two.decisions)
    assert one.examples.equals(two.examples)
    assert one.rationales.equals(two.rationales)
    assert [request.key for request in first.asked] == [request.key for request in second.asked]


def test_all_domains_are_asked_in_one_round() -> None:
    teacher = Teacher(honest)
    write(teacher, {"tin": 4, "gold": 4, "earn": 4}, per_call=4)
    assert teacher.rounds == 2


def test_later_calls_show_what_was_written_so_far() -> None:
    def rule(request: Request) -> str:
        return new_texts(request) if request.purpose == "synthesis" else honest(request)

    teacher = Teacher(lambda request: '{"examples": []}' if request.sample == 1 else rule(request))
    write(teacher, {"tin": 8}, per_call=4)
    calls = teacher.of("synthesis")
    assert "Written so far" not in calls[0].messages[0][1]
    assert "- tin 0 " in calls[-1].messages[0][1]


def test_a_domain_without_examples_borrows_the_form_from_others() -> None:
    teacher = Teacher(honest)
    done = write(teacher, {"earn": 1}, demonstrations=real(4, ["gold", "tin"]))
    shown = teacher.asked[0].messages[0][1]
    assert 'the domain "earn"' in shown
    assert '[domain "gold"]' in shown
    assert done.decisions.filter("kept").height == 1


def test_written_rows_far_longer_than_any_real_one_are_refused() -> None:
    def rule(request: Request) -> str:
        return json.dumps({"examples": [{"prompt": "word " * 500, "answer": "tin"}]})

    done = write(Teacher(rule), {"tin": 1}, per_call=1, calls_per_row=1.0)
    assert judged(done)["reason"].to_list() == ["too_long"]


def test_nothing_missing_costs_no_call() -> None:
    teacher = Teacher(honest)
    done = write(teacher, {"tin": 0})
    assert (teacher.rounds, done.examples.height, done.decisions.height) == (0, 0, 0)


# -- demonstrations and templates ---------------------------------------------------------------------------------


def spread(prompts: Any) -> Any:
    angles = np.array([len(text) for text in prompts], np.float32)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


@pytest.mark.parametrize("encode", [None, spread])
def test_demonstrations_differ_from_call_to_call_and_within_a_call(encode: Any) -> None:
    shelf = Shelf.of(real(40), count=5, seed=0, encode=encode)
    draws = [tuple(one.example_id for one in shelf.draw("tin", sample=sample)) for sample in range(6)]
    assert all(len(set(draw)) == 5 for draw in draws)
    assert len(set(draws)) == 6
    assert draws[0] == tuple(one.example_id for one in shelf.draw("tin", sample=0))


def test_demonstrations_by_vectors_are_farther_apart_than_random_ones() -> None:
    def nearest(encode: Any) -> float:
        shelf = Shelf.of(real(60), count=5, seed=0, encode=encode)
        found = []
        for sample in range(20):
            vectors = spread([one.prompt for one in shelf.draw("tin", sample=sample)])
            found.append(float((vectors @ vectors.T - 2 * np.eye(5)).max()))
        return float(np.mean(found))

    assert nearest(spread) < nearest(None)


def test_texts_with_braces_dollars_and_markers_go_into_a_template_unchanged() -> None:
    task = "Is {x} $5 or <<reference>> or \\1?"
    filled = template("rationale_hint").fill({"task": task, "reference": "<<task>>", "form": "", "instructions": ""})
    assert task in filled
    assert "The reference answer is: <<task>>" in filled


def test_an_empty_value_leaves_no_gap() -> None:
    filled = template("synthesis").fill(
        {"domain": "tin", "count": "2", "form": "", "instructions": "", "demonstrations": "", "written": ""}
    )
    assert "\n\n\n" not in filled
    assert "<<" not in filled


def test_a_domain_whose_replies_cannot_be_read_is_asked_once_more_and_then_given_up() -> None:
    teacher = Teacher(lambda request: "no JSON here" if request.purpose == "synthesis" else honest(request))
    written = write(teacher, {"tin": 8}, per_call=8, calls_per_row=9)
    first, second = teacher.of("synthesis")
    assert (first.sample, second.sample) == (0, 1)
    assert written.decisions["reason"].to_list() == ["unparsable"] * 2
    assert sorted(written.decisions["example_id"]) == sorted([first.key, second.key])
    assert written.decisions["detail"].to_list() == ["no JSON here"] * 2


def test_a_reply_that_can_be_read_after_one_that_cannot_goes_on_as_usual() -> None:
    def rule(request: Request) -> str:
        return "no JSON here" if request.purpose == "synthesis" and request.sample % 2 == 0 else honest(request)

    written = write(Teacher(rule), {"tin": 4}, per_call=2, calls_per_row=9)
    assert written.decisions.filter("kept").height == 4


def test_what_was_mended_in_a_reply_is_said_with_its_rows() -> None:
    def rule(request: Request) -> str:
        return f"Gladly:\n{new_texts(request)}" if request.purpose == "synthesis" else honest(request)

    written = write(Teacher(rule), {"tin": 2}, per_call=2)
    assert set(written.decisions.filter("kept")["detail"]) == {'{"mended": "backslashes or prose"}'}


def test_rows_that_waited_are_voted_on_before_anything_new_is_asked() -> None:
    waiting = frames.EXAMPLES.of(
        [example(f"A story number {n} that waited", DOMAINS[0], DOMAINS[0], origin="synthetic") for n in range(2)]
    )
    asked: list[Request] = []

    def teacher(requests: Iterable[Request]) -> Iterator[Reply]:
        for request in requests:
            asked.append(request)
            yield Reply(request, "ok", text=f"Because.\nAnswer: {DOMAINS[0]}", finish_reason="stop", author="t")

    done = write(teacher, {DOMAINS[0]: 2}, waiting=waiting, votes=2)
    assert {request.purpose for request in asked} == {"vote"}
    assert len(asked) == 4
    assert set(done.decisions.filter("kept")["example_id"]) == set(waiting["example_id"])
    assert done.calls_made == {}


def test_what_was_written_earlier_in_the_run_is_shown() -> None:
    shown: list[str] = []

    def teacher(requests: Iterable[Request]) -> Iterator[Reply]:
        for request in requests:
            shown.append(request.messages[-1][1])
            yield Reply(request, "permanent", error="no")

    write(teacher, {DOMAINS[0]: 1}, written={DOMAINS[0]: ["An earlier story about a zebra"]})
    assert "An earlier story about a zebra" in shown[0]


@pytest.mark.parametrize(
    ("written", "stored"),
    [("$x=1$ and $y=2$", "$x=1$ and $y=2$"), (r"$\frac{1}{2}$", r"\frac{1}{2}"), (" $$7$$ ", "7"), ("7", "7")],
)
def test_dollars_around_the_whole_answer_alone_are_taken_off(written: str, stored: str) -> None:
    def rule(request: Request) -> str:
        if request.purpose != "synthesis":
            return f"So.\nAnswer: {written}"
        return json.dumps({"examples": [{"prompt": "What came of the two equations?", "answer": written}]})

    done = write(Teacher(rule), {DOMAINS[0]: 1}, kind="math", per_call=1, calls_per_row=1.0)
    told = done.decisions.filter(pl.col("step") == "verify")["detail"]
    assert [*done.examples["reference"], *(json.loads(one)["answer"] for one in told)] == [stored]
