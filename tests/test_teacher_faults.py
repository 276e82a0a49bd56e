"""The fault matrix: what each fault of a provider does to the run, the ledger and the money, over real HTTP."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from teacher_server import Say, TeacherServer

from balkit import recipe
from balkit.errors import TeacherStopped
from balkit.recipe import Caps, Price
from balkit.teacher import Ledger, Pace, Reply, Request, make_teacher

PACE = Pace(first_wait_s=0.05, longest_wait_s=0.2, rate_limit_deadline_s=20.0)
PRICE = Price(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)
WHOLE = 4 + 2 * 5  # micro-dollars of one whole reply: 4 tokens read, 5 written


def question(i: int) -> Request:
    return Request("rationale", "teacher", "m", (("user", f"q{i}"),), "t", 0, 50, 0.5, domain="d", stage=1)


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """LiteLLM's import and first call take seconds, which no test here means to measure."""
    with TeacherServer() as server:
        list(make_teacher(recipe.Teacher(model="openai/m", base_url=server.url)).ask([question(0)]))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "calls.sqlite") as opened:
        yield opened
        assert opened.check() == []


@dataclass(frozen=True)
class Played:
    """How asking one question (or `n`) of a server with this plan went."""

    replies: list[Reply]
    attempts: list[str]  # the end of each, in order
    received: int
    served: int
    seconds: float
    cost_microusd: int

    @property
    def texts(self) -> list[str]:
        return sorted(reply.text for reply in self.replies)


def played(ledger: Ledger, plan: list[Say], *, n: int = 1, **changed: Any) -> Played:
    with TeacherServer(plan) as server:
        section = recipe.Teacher(model="openai/m", base_url=server.url, **({"timeout_s": 5.0} | changed))
        door = ledger.door(make_teacher(section), run_id="r", price=PRICE, model="m", caps=Caps(), tries=3, pace=PACE)
        started = time.monotonic()
        replies = list(door.ask(question(i) for i in range(n)))
        seconds = time.monotonic() - started
        received, served = len(server.received), server.served
    return Played(replies, ends(ledger), received, served, seconds, ledger.spent("r").cost_microusd)


def ends(ledger: Ledger) -> list[str]:
    with sqlite3.connect(ledger.path) as db:
        sql = "SELECT state FROM events WHERE state NOT IN ('reserved', 'sent') ORDER BY attempt"
        return [state for (state,) in db.execute(sql)]


@pytest.mark.parametrize(
    ("said", "least_s"),
    [("0", 0.0), ("1", 1.0), ("date", 0.5), (None, 0.02)],
    ids=["0", "seconds", "date", "absent"],
)
def test_a_429_waits_as_it_says_and_costs_nothing(ledger: Ledger, said: str | None, least_s: float) -> None:
    value = formatdate(time.time() + 2, usegmt=True) if said == "date" else said
    limited = Say(status=429, headers={} if value is None else {"Retry-After": value})
    result = played(ledger, [limited, Say()])
    assert result.texts == ["echo: q0"]
    assert result.attempts == ["failed", "succeeded"]
    assert result.seconds >= least_s
    assert (result.cost_microusd, ledger.spent("r").calls) == (WHOLE, 1)


@pytest.mark.parametrize("status", [500, 503])
def test_a_5xx_is_tried_again_and_costs_a_call_but_no_money(ledger: Ledger, status: int) -> None:
    result = played(ledger, [Say(status=status), Say()])
    assert (result.texts, result.attempts) == (["echo: q0"], ["failed", "succeeded"])
    assert (result.cost_microusd, ledger.spent("r").calls) == (WHOLE, 2)


@pytest.mark.parametrize(
    "fault",
    [Say(cut="reset"), Say(cut="half"), Say(body="{oops"), Say(body=""), Say(body="[]"), Say(body='{"choices": []}')],
    ids=["reset", "half a body", "invalid JSON", "empty body", "a list", "no choices"],
)
def test_an_answer_that_did_not_arrive_whole_stays_charged_and_is_asked_again(ledger: Ledger, fault: Say) -> None:
    result = played(ledger, [fault, Say()])
    assert (result.texts, result.attempts) == (["echo: q0"], ["unknown", "succeeded"])
    assert result.cost_microusd > WHOLE + 2 * 50  # the worst case of the lost one
    assert ledger.spent("r").calls == 2


def test_a_reply_after_our_deadline_stays_charged_and_is_asked_again(ledger: Ledger) -> None:
    with TeacherServer([Say(latency_s=1.5)]) as server:
        section = recipe.Teacher(model="openai/m", base_url=server.url, timeout_s=0.5)
        door = ledger.door(make_teacher(section), run_id="r2", price=PRICE, model="m", caps=Caps(), tries=3, pace=PACE)
        (reply,) = door.ask([question(1)])
        assert reply.text == "echo: q1"
        assert ends(ledger) == ["unknown", "succeeded"]
        assert len(server.received) == 2  # the provider may well charge both


def test_a_slow_close_is_waited_for(ledger: Ledger) -> None:
    result = played(ledger, [Say(close_after_s=0.4)])
    assert (result.texts, result.attempts) == (["echo: q0"], ["succeeded"])
    assert result.seconds >= 0.4


def test_a_close_that_never_comes_ends_at_our_deadline(ledger: Ledger) -> None:
    result = played(ledger, [Say(close_after_s=3.0), Say()], timeout_s=1.0)
    assert (result.texts, result.attempts) == (["echo: q0"], ["unknown", "succeeded"])


def test_a_reply_cut_off_by_length_is_kept_with_its_reason_and_never_bought_again(ledger: Ledger) -> None:
    result = played(ledger, [Say(text="so 2 +", finish_reason="length")])
    assert [(reply.text, reply.finish_reason) for reply in result.replies] == [("so 2 +", "length")]
    again = played(ledger, [])
    assert (again.received, again.replies[0].cached, again.replies[0].finish_reason) == (0, True, "length")


def test_a_refusal_is_a_reply_without_text_and_its_words_are_in_the_raw_reply(ledger: Ledger) -> None:
    result = played(ledger, [Say(refusal="I would rather not.", finish_reason="content_filter")])
    (reply,) = result.replies
    assert (reply.outcome, reply.text, reply.finish_reason) == ("ok", "", "content_filter")
    assert "I would rather not." in reply.raw
    assert (result.attempts, result.cost_microusd) == (["succeeded"], WHOLE)
    assert played(ledger, []).received == 0


def test_a_second_copy_of_an_answer_on_a_closing_connection_is_not_read(ledger: Ledger) -> None:
    # On a connection that is kept open LiteLLM's transport would take the copy for the next answer.
    twice = Say(times=2, headers={"Connection": "close"})
    result = played(ledger, [twice] * 4, n=8, concurrency=1)
    assert all(reply.text == f"echo: {reply.request.messages[0][1]}" for reply in result.replies)
    assert result.attempts.count("succeeded") == 8


def test_one_text_for_two_questions_is_two_replies(ledger: Ledger) -> None:
    result = played(ledger, [Say(text="same"), Say(text="same")], n=2)
    assert (result.texts, result.cost_microusd) == (["same", "same"], 2 * WHOLE)


def test_a_bad_request_fails_its_own_row_only(ledger: Ledger) -> None:
    result = played(ledger, [Say(status=400, error="too long")], n=3, concurrency=1)
    assert sorted(reply.outcome for reply in result.replies) == ["ok", "ok", "permanent"]
    assert result.cost_microusd == 2 * WHOLE


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_stops_the_run_within_one_requests_time(ledger: Ledger, status: int) -> None:
    refused = Say(status=status, error="no such key", latency_s=0.05)
    with TeacherServer(lambda i: refused) as server:
        section = recipe.Teacher(model="openai/m", base_url=server.url, concurrency=4)
        door = ledger.door(make_teacher(section), run_id="r", price=PRICE, model="m", caps=Caps(), tries=3, pace=PACE)
        with pytest.raises(TeacherStopped, match="no such key"):
            list(door.ask(question(i) for i in range(1000)))
        assert len(server.received) <= 4 + 3  # the window, and what refilled it before the first was read
    assert ledger.spent("r").cost_microusd == 0
