"""The ledger and the door around teachers that need no network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from balkit.errors import CapReached, PoolDamaged, PriceUnknown, TeacherPaused, TeacherStopped
from balkit.recipe import Caps, Limits, Price
from balkit.teacher import Ledger, Pace, Progress, Reply, Request, Scripted
from balkit.teacher.caps import worst_case
from balkit.teacher.door import Door
from balkit.teacher.offline import Offline
from balkit.teacher.prices import price_of
from balkit.teacher.protocol import Outcome, Teacher

PRICE = Price(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)
FAST = Pace(first_wait_s=0.001, longest_wait_s=0.01, rate_limit_deadline_s=5.0)


def ask_for(text: str, **changed: Any) -> Request:
    labels: dict[str, Any] = {"domain": "d", "stage": 1, "example_id": text, "subject": text}
    body = {"max_tokens": 100, "temperature": 0.7, "sample": 0} | changed
    return Request(
        "rationale", "teacher", "big", (("user", text),), "t", body.pop("sample"), body.pop("max_tokens"),
        body.pop("temperature"), **(labels | body),
    )  # fmt: skip


def through(ledger: Ledger, teacher: Teacher, **changed: Any) -> Door:
    terms: dict[str, Any] = {"run_id": "r1", "price": PRICE, "model": "big", "caps": Caps(), "tries": 3, "pace": FAST}
    return ledger.door(teacher, **(terms | changed))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "calls.sqlite") as opened:
        yield opened


def echo(request: Request) -> str:
    return f"worked {request.subject}"


def many(n: int) -> list[Request]:
    return [ask_for(f"question {i}") for i in range(n)]


def drain(door: Door, requests: Iterable[Request]) -> tuple[list[Reply], Exception | None]:
    """What was yielded, and what ended it."""
    replies: list[Reply] = []
    try:
        for reply in door.ask(requests):
            replies.append(reply)
    except Exception as error:
        return replies, error
    return replies, None


class Counting:
    """Counts what reaches the teacher behind it."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        self.asked: list[Request] = []

    def ask(self, requests: Iterable[Request]) -> Iterator[Reply]:
        def seen() -> Iterator[Request]:
            for request in requests:
                self.asked.append(request)
                yield request

        return self.teacher.ask(seen())


def test_every_request_gets_one_reply(ledger: Ledger) -> None:
    replies = list(through(ledger, Scripted(echo)).ask(many(7)))
    assert sorted(r.text for r in replies) == sorted(f"worked question {i}" for i in range(7))
    assert not any(r.cached for r in replies)


def test_same_request_is_paid_once(ledger: Ledger) -> None:
    teacher = Counting(Scripted(echo))
    first = list(through(ledger, teacher).ask(many(3)))
    again = list(through(ledger, teacher).ask(many(3)))
    assert len(teacher.asked) == 3
    assert [r.text for r in again] == [r.text for r in first]
    assert all(r.cached and r.cost_microusd == 0 for r in again)
    assert ledger.spent("r1").calls == 3


def test_equal_requests_within_one_ask_are_sent_once(ledger: Ledger) -> None:
    teacher = Counting(Scripted(echo))
    replies = list(through(ledger, teacher).ask(many(2) + many(2)))
    assert len(teacher.asked) == 2
    assert len(replies) == 4
    assert sum(r.cost_microusd > 0 for r in replies) == 2


def test_samples_never_collapse(ledger: Ledger) -> None:
    teacher = Counting(Scripted(echo))
    list(through(ledger, teacher).ask([ask_for("q", sample=0), ask_for("q", sample=1)]))
    assert len(teacher.asked) == 2


def test_labels_do_not_change_what_is_bought(ledger: Ledger) -> None:
    teacher = Counting(Scripted(echo))
    list(through(ledger, teacher).ask([ask_for("q", stage=1, domain="a"), ask_for("q", stage=2, domain="b")]))
    assert len(teacher.asked) == 1


def test_cost_is_settled_on_the_reported_usage(ledger: Ledger) -> None:
    def say(request: Request) -> Reply:
        return Reply(request, "ok", text="t", input_tokens=10, output_tokens=20)

    (reply,) = through(ledger, Scripted(say)).ask(many(1))
    assert reply.cost_microusd == 10 * 1 + 20 * 2
    assert (ledger.spent("r1").tokens, ledger.spent("r1").cost_microusd) == (30, 50)


def test_unreported_usage_is_charged_as_reserved(ledger: Ledger) -> None:
    (reply,) = through(ledger, Scripted(lambda request: Reply(request, "ok", text="t"))).ask(many(1))
    assert reply.cost_microusd == ledger.spent("r1").cost_microusd > 100 * 2


def test_a_transient_failure_is_tried_again(ledger: Ledger) -> None:
    failures = iter([True, True, False])

    def say(request: Request) -> str | Reply:
        return Reply(request, "transient", error="503") if next(failures) else "fine"

    (reply,) = through(ledger, Scripted(say)).ask(many(1))
    assert reply.text == "fine"
    assert ledger.spent("r1").calls == 3
    assert ledger.spent("r1").cost_microusd == reply.cost_microusd


def test_an_unknown_outcome_stays_charged(ledger: Ledger) -> None:
    outcomes = iter([True, False])

    def say(request: Request) -> str | Reply:
        return Reply(request, "unknown", error="reset") if next(outcomes) else "fine"

    (reply,) = through(ledger, Scripted(say)).ask(many(1))
    assert ledger.spent("r1").cost_microusd > reply.cost_microusd + 200


def test_out_of_tries_pauses_after_everything_else_is_done(ledger: Ledger) -> None:
    def say(request: Request) -> str | Reply:
        return Reply(request, "transient", error="503 overloaded") if request.subject == "question 0" else "fine"

    replies, error = drain(through(ledger, Scripted(say)), many(5))
    assert len(replies) == 4
    assert isinstance(error, TeacherPaused)
    assert "1 calls ran out of 3 tries" in str(error)
    assert "503 overloaded" in str(error)


def test_a_dead_server_pauses_the_run_early(ledger: Ledger) -> None:
    teacher = Counting(Scripted(lambda request: Reply(request, "transient", error="refused")))
    _, error = drain(through(ledger, teacher), many(5000))
    assert isinstance(error, TeacherPaused)
    assert len(teacher.asked) < 2000


@pytest.mark.parametrize("outcome", ["transient", "stop", "rate_limited"])
def test_what_a_teacher_said_ends_in_one_stop(ledger: Ledger, outcome: Outcome) -> None:
    teacher = Scripted(lambda request: Reply(request, outcome, error="Connection error.", retry_after_s=3600.0))
    for requests in (many(1), many(50)):
        _, error = drain(through(ledger, teacher), requests)
        assert "Connection error. " in str(error)


def test_a_permanent_failure_fails_only_its_row(ledger: Ledger) -> None:
    def say(request: Request) -> str | Reply:
        return Reply(request, "permanent", error="400") if request.subject == "question 1" else "fine"

    replies = list(through(ledger, Scripted(say)).ask(many(3) + many(3)))
    assert [r.outcome for r in replies].count("permanent") == 2
    assert len(replies) == 6


def test_a_stop_ends_at_once(ledger: Ledger) -> None:
    teacher = Counting(Scripted(lambda request: Reply(request, "stop", error="401: set OPENAI_API_KEY")))
    _, error = drain(through(ledger, teacher), many(50))
    assert isinstance(error, TeacherStopped)
    assert "OPENAI_API_KEY" in str(error)
    assert len(teacher.asked) == 1
    assert ledger.spent("r1").cost_microusd == 0


def test_a_rate_limit_uses_up_no_try_and_no_cap(ledger: Ledger) -> None:
    failures = iter([True] * 6 + [False])

    def say(request: Request) -> str | Reply:
        return Reply(request, "rate_limited", retry_after_s=0.001) if next(failures) else "fine"

    (reply,) = through(ledger, Scripted(say), caps=Caps(calls=1)).ask(many(1))
    assert reply.text == "fine"
    assert ledger.spent("r1").calls == 1


def test_a_rate_limit_ends_at_its_deadline(ledger: Ledger) -> None:
    teacher = Scripted(lambda request: Reply(request, "rate_limited", retry_after_s=3600.0, error="daily quota"))
    _, error = drain(through(ledger, teacher), many(3))
    assert isinstance(error, TeacherPaused)
    assert "daily quota" in str(error)


@pytest.mark.parametrize(
    ("caps", "name", "key"),
    [
        (Caps(calls=3), "run.calls", "caps.calls"),
        (Caps(tokens=1500), "run.tokens", "caps.tokens"),
        (Caps(usd=0.002), "run.usd", "caps.usd"),
        (Caps(per_stage=Limits(calls=3)), "stage 1.calls", "caps.per_stage.calls"),
        (Caps(per_domain=Limits(calls=3)), "domain d.calls", "caps.per_domain.calls"),
    ],
)
def test_a_cap_is_never_passed_and_says_what_to_raise(ledger: Ledger, caps: Caps, name: str, key: str) -> None:
    teacher = Scripted(lambda request: Reply(request, "ok", text="t", input_tokens=200, output_tokens=100))
    replies, error = drain(through(ledger, teacher, caps=caps), many(50))
    assert isinstance(error, CapReached)
    assert error.cap == name
    assert f"Raise {key} in" in str(error)
    assert error.spent <= error.limit
    assert 0 < len(replies) < 50


def test_a_cap_that_a_dead_teacher_used_up_says_what_the_calls_met(ledger: Ledger) -> None:
    dead = Scripted(lambda request: Reply(request, "transient", error="connection refused"))
    _, error = drain(through(ledger, dead, caps=Caps(calls=6)), many(10))
    assert isinstance(error, CapReached)
    assert str(error).startswith("each of the last 6 calls failed: connection refused. The cap run.calls is 6;")
    assert (error.cap, error.limit, error.spent) == ("run.calls", 6, 6)


@pytest.mark.parametrize("later", [{"outcome": "ok", "text": "t"}, {"outcome": "permanent", "error": "filtered"}])
def test_a_cap_after_an_answer_says_nothing_of_earlier_failures(ledger: Ledger, later: dict[str, Any]) -> None:
    calls = iter(range(100))
    rough = Scripted(lambda r: Reply(r, **later) if next(calls) >= 3 else Reply(r, "transient", error="busy"))
    _, error = drain(through(ledger, rough, caps=Caps(calls=6)), many(10))
    assert isinstance(error, CapReached)
    assert "busy" not in str(error)


def test_a_run_goes_on_after_its_cap_is_raised(ledger: Ledger) -> None:
    drain(through(ledger, Scripted(echo), caps=Caps(calls=4)), many(10))
    replies, error = drain(through(ledger, Scripted(echo), caps=Caps(calls=10)), many(10))
    assert error is None
    assert sum(r.cached for r in replies) == 4
    assert ledger.spent("r1").calls == 10


def test_earlier_spending_of_the_run_counts(ledger: Ledger) -> None:
    list(through(ledger, Scripted(echo)).ask(many(5)))
    replies, error = drain(through(ledger, Scripted(echo), caps=Caps(calls=6)), many(10))
    assert isinstance(error, CapReached)
    assert len(replies) == 6


def test_cached_replies_use_up_no_cap(ledger: Ledger) -> None:
    list(through(ledger, Scripted(echo)).ask(many(5)))
    replies, error = drain(through(ledger, Scripted(echo), run_id="r2", caps=Caps(calls=1)), many(6))
    assert error is None
    assert len(replies) == 6
    assert ledger.spent("r2").calls == 1


def test_usage_above_the_reservation_stops_the_teacher(ledger: Ledger) -> None:
    teacher = Scripted(lambda request: Reply(request, "ok", text="long", input_tokens=5, output_tokens=5000))
    replies, error = drain(through(ledger, teacher), many(3))
    assert [r.text for r in replies] == ["long"]
    assert isinstance(error, TeacherStopped)
    assert "overrun" in str(error)
    assert ledger.spent("r1").cost_microusd == 5 + 2 * 5000


def test_an_unknown_price_stops_before_anything_is_sent_but_cached_replies_come(ledger: Ledger) -> None:
    class Paid:
        def ask(self, requests: Iterable[Request]) -> Iterator[Reply]:
            return Scripted(echo).ask(requests)

    list(through(ledger, Paid()).ask(many(2)))
    replies, error = drain(through(ledger, Paid(), price=None, model="acme/unheard-of"), many(3))
    assert len(replies) == 2
    assert isinstance(error, PriceUnknown)
    assert "teacher.price" in str(error)


def test_a_scripted_teacher_is_free(ledger: Ledger) -> None:
    (reply,) = through(ledger, Scripted(["a"]), price=None, model="acme/unheard-of").ask(many(1))
    assert reply.cost_microusd == 0


def test_a_price_in_the_recipe_is_charged_even_by_a_free_teacher(ledger: Ledger) -> None:
    (reply,) = through(ledger, Offline(), price=PRICE).ask(many(1))
    assert reply.cost_microusd == reply.input_tokens + 2 * reply.output_tokens > 0
    assert ledger.spent("r1").cost_microusd == reply.cost_microusd


def test_the_offline_teacher_is_free_without_a_price(ledger: Ledger) -> None:
    (reply,) = through(ledger, Offline(), price=None, model="acme/unheard-of").ask(many(1))
    assert reply.cost_microusd == 0


def test_calls_links_a_call_to_every_run_that_used_it(ledger: Ledger) -> None:
    list(through(ledger, Scripted(echo)).ask(many(2)))
    list(through(ledger, Scripted(echo), run_id="r2").ask(many(3)))
    list(through(ledger, Scripted(echo)).ask(many(2)))
    calls = ledger.calls()
    assert calls.height == 5
    assert calls.filter(run_id="r2")["status"].sort().to_list() == ["cached", "cached", "succeeded"]
    assert calls.filter(status="cached")["cost_microusd"].sum() == 0
    assert ledger.calls("r1")["status"].to_list() == ["succeeded"] * 2
    assert calls["cost_microusd"].sum() == ledger.spent("r1").cost_microusd + ledger.spent("r2").cost_microusd


def test_closing_the_iterator_leaves_nothing_open(ledger: Ledger) -> None:
    asked = through(ledger, Scripted(echo)).ask(many(5))
    next(asked)
    asked.close()  # type: ignore[attr-defined]
    assert ledger.check() == []
    assert set(ledger.calls()["status"]) == {"succeeded"}


def test_an_interrupt_leaves_what_was_sent_unknown(ledger: Ledger) -> None:
    def say(request: Request) -> str:
        if request.subject == "question 2":
            raise KeyboardInterrupt
        return "fine"

    with pytest.raises(KeyboardInterrupt):
        list(through(ledger, Scripted(say)).ask(many(5)))
    assert sorted(ledger.calls()["status"]) == ["succeeded", "succeeded", "unknown"]
    assert len(ledger.cached(r.key for r in many(5))) == 2
    assert ledger.check() == []


def test_a_reply_that_never_comes_is_unknown_and_asked_again(ledger: Ledger) -> None:
    class Forgetful:
        forgotten = False

        def ask(self, requests: Iterable[Request]) -> Iterator[Reply]:
            for request in requests:
                if request.subject == "question 1" and not self.forgotten:
                    self.forgotten = True
                else:
                    yield Reply(request, "ok", text="t", input_tokens=1, output_tokens=1)

    assert len(list(through(ledger, Forgetful()).ask(many(3)))) == 3
    assert ledger.spent("r1").calls == 4


def test_a_teacher_may_pull_everything_before_it_answers(ledger: Ledger) -> None:
    class Batch:
        first = True

        def ask(self, requests: Iterable[Request]) -> Iterator[Reply]:
            pulled, failing = list(requests), self.first
            self.first = False
            for i, request in enumerate(pulled):
                outcome = "transient" if failing and i % 3 == 0 else "ok"
                yield Reply(request, outcome, text="t", input_tokens=1, output_tokens=1)  # type: ignore[arg-type]

    replies, error = drain(through(ledger, Batch(), caps=Caps(tokens=100_000)), many(40))
    assert error is None
    assert len(replies) == 40


def test_progress_adds_up(ledger: Ledger) -> None:
    seen: list[Progress] = []
    list(through(ledger, Scripted(echo)).ask(many(2)))
    list(through(ledger, Scripted(echo), progress=seen.append).ask(many(5)))
    last = seen[-1]
    assert (last.done, last.cached, last.sent, last.failed) == (5, 2, 3, 0)
    assert last.cost_microusd > 0


def test_progress_goes_on_over_the_asks_of_one_door(ledger: Ledger) -> None:
    seen: list[Progress] = []
    door = through(ledger, Scripted(echo), progress=seen.append)
    list(door.ask(many(2)))
    list(door.ask(many(5)))
    assert (seen[-1].done, seen[-1].cached, seen[-1].sent) == (7, 2, 5)


@pytest.mark.parametrize("tokens", [-5, 10**20])
def test_tokens_that_are_no_count_are_charged_as_reserved(ledger: Ledger, tokens: int) -> None:
    class Odd:
        def ask(self, requests: Iterable[Request]) -> Iterator[Reply]:
            for one in requests:
                yield Reply(one, "ok", text="t", input_tokens=tokens, output_tokens=5)

    door = ledger.door(Odd(), run_id="r", price=PRICE, model="m", caps=Caps(), tries=1)
    assert len(list(door.ask([ask_for("a"), ask_for("b")]))) == 2
    most = worst_case(ask_for("a"), price_of("m", PRICE))
    assert ledger.spent("r").cost_microusd == 2 * most.cost_microusd
    assert ledger.check() == []


def test_a_teacher_that_pulls_nothing_is_an_error_and_no_endless_loop(ledger: Ledger) -> None:
    class Idle:
        def ask(self, requests: Iterable[Request]) -> Iterator[Reply]:
            return iter(())

    with pytest.raises(TeacherStopped, match="Idle ended without pulling a request"):
        list(ledger.door(Idle(), run_id="r", price=PRICE, model="m", caps=Caps(), tries=1).ask([ask_for("a")]))


def test_a_text_with_a_lone_surrogate_is_stored(ledger: Ledger) -> None:
    list(through(ledger, Scripted(["a\ud800b"])).ask([ask_for("x\udc00", example_id=None)]))
    (again,) = through(ledger, Scripted([])).ask([ask_for("x\udc00", example_id=None)])
    assert again.text == "a?b"


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(PoolDamaged, match="not a sound ledger"):
        Ledger(path)
