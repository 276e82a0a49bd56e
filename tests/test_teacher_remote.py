"""The remote teacher: real LiteLLM, real HTTP, a provider on loopback that misbehaves on demand."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from teacher_server import Say, TeacherServer

from balkit import recipe
from balkit.errors import TeacherPaused, TeacherStopped
from balkit.recipe import Caps
from balkit.teacher import Ledger, Pace, Reply, Request, make_teacher
from balkit.teacher.faults import OUTCOMES, outcome_of
from balkit.teacher.remote import Remote, Window

FAST = Pace(first_wait_s=0.01, longest_wait_s=0.05, rate_limit_deadline_s=20.0)
CANARY = "sk-canary-4f9a77d1c2"


def question(i: int, **changed: Any) -> Request:
    values: dict[str, Any] = {"schema": None, "max_tokens": 50} | changed
    return Request(
        "rationale", "teacher", "m", (("user", f"q{i}"),), "t", 0, values["max_tokens"], 0.5, values["schema"]
    )


def section(url: str | None, **changed: Any) -> recipe.Teacher:
    return recipe.Teacher(**({"model": "openai/m", "base_url": url, "timeout_s": 5.0, "concurrency": 4} | changed))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "calls.sqlite") as opened:
        yield opened


def bought(ledger: Ledger, teacher: Any, requests: list[Request], **changed: Any) -> list[Reply]:
    terms: dict[str, Any] = {"run_id": "r", "price": "free", "model": "m", "caps": Caps(), "tries": 3, "pace": FAST}
    return list(ledger.door(teacher, **(terms | changed)).ask(requests))


def once(plan: list[Say], **changed: Any) -> Reply:
    """What one attempt brings back."""
    with TeacherServer(plan) as server:
        (reply,) = make_teacher(section(server.url, **changed)).ask([question(0)])
        assert len(server.received) == 1
    return reply


def answer(text: str, *, usage: Any = None) -> str:
    """A whole answer's body, with whatever usage."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    head = {"id": "c-1", "object": "chat.completion", "created": 0, "model": "m"}
    return json.dumps(head | {"choices": [choice], "usage": usage})


def test_a_reply_comes_with_its_usage_and_author() -> None:
    reply = once([Say(text="so: 4")])
    assert (reply.outcome, reply.text, reply.finish_reason) == ("ok", "so: 4", "stop")
    assert (reply.output_tokens, reply.author, reply.provider_id) == (5, "served-model-1", "chatcmpl-1")
    assert "so: 4" in reply.raw


@pytest.mark.parametrize(
    ("say", "outcome"),
    [
        (Say(status=429), "rate_limited"),
        (Say(status=429, code="insufficient_quota", error="You exceeded your current quota"), "stop"),
        (Say(status=500), "transient"),
        (Say(status=503), "transient"),
        (Say(status=529), "transient"),
        (Say(status=408), "transient"),
        (Say(status=400), "permanent"),
        (Say(status=413), "permanent"),
        (Say(status=422), "permanent"),
        (Say(status=401), "stop"),
        (Say(status=402), "stop"),
        (Say(status=403), "stop"),
        (Say(status=404), "stop"),
        (Say(cut="reset"), "unknown"),
        (Say(cut="half"), "unknown"),
        (Say(body="{oops"), "unknown"),
        (Say(body="{}"), "unknown"),
        (Say(body='{"choices": []}'), "unknown"),
    ],
    ids=str,
)
def test_a_fault_is_one_attempt_of_the_right_class(say: Say, outcome: str) -> None:
    assert once([say]).outcome == outcome


PROVIDERS = ["hosted_vllm/m", "anthropic/claude-haiku-4-5", "gemini/gemini-2.5-flash", "ollama/m"]
FAULTS = {
    "reset": (Say(cut="reset"), "unknown"),
    "half a body": (Say(cut="half"), "unknown"),
    "bad JSON": (Say(body="{oops"), "unknown"),
    "429": (Say(status=429), "rate_limited"),
    "503": (Say(status=503), "transient"),
    "400": (Say(status=400), "permanent"),
    "401": (Say(status=401), "stop"),
}


@pytest.mark.parametrize("model", PROVIDERS)
@pytest.mark.parametrize(("say", "outcome"), FAULTS.values(), ids=FAULTS)
def test_a_fault_of_any_provider_is_one_sending_of_the_right_class(model: str, say: Say, outcome: str) -> None:
    with TeacherServer(lambda i: say) as server:
        url = server.url if model.startswith("hosted_vllm") else server.url.removesuffix("/v1")
        (reply,) = make_teacher(section(url, model=model)).ask([question(0)])
        assert (reply.outcome, len(server.received)) == (outcome, 1)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 4, "completion_tokens": 5, "total_tokens": 9}, (4, 5)),
        ({"prompt_tokens": 4, "completion_tokens": 5, "total_tokens": 50}, (4, 46)),
        ({"prompt_tokens": -4, "completion_tokens": -9, "total_tokens": -13}, (0, 0)),
        ({"prompt_tokens": 4, "completion_tokens": None, "total_tokens": 4}, (0, 0)),
        ({"prompt_tokens": 4, "completion_tokens": 10**20, "total_tokens": 10**20}, (0, 0)),
        (None, (0, 0)),
    ],
    ids=str,
)
def test_usage_that_cannot_be_true_counts_as_not_reported(usage: Any, tokens: tuple[int, int]) -> None:
    reply = once([Say(body=answer("so: 4", usage=usage))])
    assert (reply.outcome, reply.text, (reply.input_tokens, reply.output_tokens)) == ("ok", "so: 4", tokens)


def test_half_of_a_surrogate_pair_in_an_answer_does_not_lose_it(ledger: Ledger) -> None:
    with TeacherServer([Say(body=answer("a\ud800b"))]) as server:
        (reply,) = bought(ledger, make_teacher(section(server.url)), [question(0)])
    assert (reply.outcome, reply.text) == ("ok", "a?b")
    assert "a?b" in reply.raw


def test_a_text_that_cannot_be_sent_fails_its_own_row() -> None:
    with TeacherServer() as server:
        asked = Request("rationale", "teacher", "m", (("user", "a\ud800b"),), "t", 0, 50, 0.5)
        (reply,) = make_teacher(section(server.url)).ask([asked])
        assert (reply.outcome, server.received) == ("permanent", [])


def test_an_attempt_that_does_not_end_by_itself_is_given_up() -> None:
    class Deaf(Remote):
        async def _attempt(self, request: Request) -> Reply:
            for _ in range(2):  # as a client that swallows being cancelled, until the process ends
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(60)
            raise asyncio.CancelledError

    (reply,) = Deaf(section("http://127.0.0.1:9", timeout_s=0.1), grace_s=0.1).ask([question(0)])
    assert reply.outcome == "unknown"
    assert "does not let go of it" in reply.error


def test_a_model_string_without_a_provider_stops_the_run() -> None:
    (reply,) = make_teacher(section("http://127.0.0.1:9", model="gpt-of-ones-own")).ask([question(0)])
    assert reply.outcome == "stop"


def test_a_reply_cut_off_by_length_is_ok_and_says_so() -> None:
    reply = once([Say(finish_reason="length")])
    assert (reply.outcome, reply.finish_reason) == ("ok", "length")


def test_an_answer_after_our_deadline_is_unknown() -> None:
    assert once([Say(latency_s=2.0)], timeout_s=0.3).outcome == "unknown"


def test_a_refused_connection_was_never_sent() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        (reply,) = make_teacher(section(f"http://127.0.0.1:{held.getsockname()[1]}/v1")).ask([question(0)])
    assert reply.outcome == "transient"


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("7", 7, 7),
        ("0", 0, 0),
        ("in 40 s, as a date", 20, 41),
        (None, None, None),
        ("soon", None, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_date(said: str | None, least: float | None, most: float | None) -> None:
    if said == "in 40 s, as a date":
        said = formatdate(time.time() + 40, usegmt=True)
    wait = once([Say(status=429, headers={} if said is None else {"Retry-After": said})]).retry_after_s
    assert (wait is None) if least is None or most is None else (wait is not None and least <= wait <= most)


def test_every_exception_of_litellm_has_an_outcome() -> None:
    import litellm.exceptions

    kinds = [k for _, k in inspect.getmembers(litellm.exceptions, inspect.isclass) if issubclass(k, Exception)]
    unmapped = [k.__name__ for k in kinds if not any(base.__name__ in OUTCOMES for base in k.__mro__)]
    assert unmapped == []
    assert len(kinds) > 20


def test_an_unheard_of_exception_may_have_been_paid_for() -> None:
    assert outcome_of(RuntimeError("?")) == "unknown"


def test_many_requests_are_served_once_each_within_the_window(ledger: Ledger) -> None:
    with TeacherServer(lambda i: Say(latency_s=0.02)) as server:
        replies = bought(ledger, Remote(section(server.url)), [question(i) for i in range(30)])
        assert server.served == len(server.received) == len(replies) == 30
        assert 2 <= server.most_at_once <= 4
    assert ledger.spent("r").calls == 30


def test_storms_of_faults_end_with_every_reply_and_an_agreeing_ledger(ledger: Ledger) -> None:
    faults = [Say(status=429, headers={"Retry-After": "0"}), Say(status=500), Say(cut="reset"), Say(cut="half"), Say()]
    with TeacherServer(lambda i: faults[i % 5] if i < 40 else Say()) as server:
        replies = bought(ledger, Remote(section(server.url)), [question(i) for i in range(20)], tries=30)
        assert sorted(r.text for r in replies) == sorted(f"echo: q{i}" for i in range(20))
        assert server.served == 20
        assert ledger.calls()["attempts"].sum() == len(server.received)
    assert ledger.check() == []


def test_a_429_halves_the_window_once_a_volley_and_successes_widen_it() -> None:
    window = Window(8)
    for _ in range(9):
        window.note("ok")
    for _ in range(3):
        window.note("rate_limited")
    assert window.size == 4
    for _ in range(100):
        window.note("ok")
    assert window.size == 8


def test_a_refused_key_stops_and_appears_nowhere(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CANARY_API_KEY", CANARY)
    caplog.set_level(logging.DEBUG)
    with TeacherServer([Say(text=f"your key is {CANARY}"), Say(status=401, error=f"bad key {CANARY}")]) as server:
        teacher = Remote(section(server.url, api_key_env="CANARY_API_KEY", concurrency=1))
        with pytest.raises(TeacherStopped, match="CANARY_API_KEY") as caught:
            bought(ledger, teacher, [question(0), question(1)])
        assert server.authorizations == [f"Bearer {CANARY}"] * 2
    ledger.close()
    assert CANARY not in repr(caught.getrepr(chain=True)) + str(caught.value) + caplog.text
    assert not [path for path in tmp_path.iterdir() if CANARY.encode() in path.read_bytes()]


def test_a_key_variable_that_is_not_set_is_named(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(TeacherStopped, match="NO_SUCH_KEY"):
        bought(ledger, Remote(section(None, api_key_env="NO_SUCH_KEY")), [question(0)])
    assert ledger.spent("r").calls == 0


def test_no_key_at_all_stops_at_the_first_request(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(TeacherStopped, match="OPENAI_API_KEY"):
        bought(ledger, Remote(section(None)), [question(i) for i in range(30)])
    assert ledger.spent("r").calls == 0


def test_a_server_of_ones_own_gets_no_key_of_a_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    with TeacherServer() as server:
        list(Remote(section(server.url)).ask([question(0)]))
        assert server.authorizations == ["Bearer unused"]


def test_a_missing_model_stops_the_run_instead_of_failing_its_rows(ledger: Ledger) -> None:
    with (
        TeacherServer(lambda i: Say(status=404, error="no such model")) as server,
        pytest.raises(TeacherStopped, match="no such model"),
    ):
        bought(ledger, Remote(section(server.url)), [question(i) for i in range(20)])


def test_an_endpoint_that_is_down_pauses_the_run(ledger: Ledger) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with pytest.raises(TeacherPaused):
            bought(ledger, Remote(section(f"http://127.0.0.1:{held.getsockname()[1]}/v1")), [question(0)], tries=2)


def test_a_model_without_native_schemas_is_shown_the_schema() -> None:
    schema = '{"type":"object"}'
    with TeacherServer() as server:
        list(Remote(section(server.url)).ask([question(0, schema=schema)]))
        assert schema in server.received[0]["messages"][-1]["content"]


def test_a_model_with_native_schemas_is_asked_natively() -> None:
    with TeacherServer() as server:
        list(Remote(section(server.url, model="openai/gpt-4o-mini")).ask([question(0, schema='{"type":"object"}')]))
        assert server.received[0]["response_format"]["json_schema"]["schema"] == {"type": "object"}


def test_max_tokens_is_always_sent() -> None:
    with TeacherServer() as server:
        list(Remote(section(server.url)).ask([question(0, max_tokens=33)]))
        assert server.received[0]["max_tokens"] == 33


def test_it_works_inside_a_running_event_loop() -> None:
    import asyncio

    async def notebook() -> Reply:
        with TeacherServer() as server:
            (reply,) = Remote(section(server.url)).ask([question(0)])
            return reply

    assert asyncio.run(notebook()).outcome == "ok"


_TEACHERS_IN_A_ROW = """
import gc, itertools, sys
from balkit.recipe import Teacher
from balkit.teacher import Request
from balkit.teacher.remote import Remote, load_litellm

def ask(name, count):
    teacher = Remote(Teacher(model="openai/m", base_url=sys.argv[1]))
    asked = [Request("rationale", "t", "m", (("user", f"{name} {i}"),), "t", 0, 50, 0.5) for i in range(20)]
    return len(list(itertools.islice(teacher.ask(asked), count)))

print(ask("first", 20), ask("second", 20), ask("half read", 3))
load_litellm().in_memory_llm_clients_cache.flush_cache()
gc.collect()
"""


def test_a_process_ends_without_a_word_on_stderr() -> None:
    with TeacherServer() as server:
        command = [sys.executable, "-c", _TEACHERS_IN_A_ROW, server.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "20 20 3\n", "")


def test_headers_are_sent_and_their_values_appear_nowhere(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GATEWAY_PASS", f"{CANARY}-a\n")
    caplog.set_level(logging.DEBUG)
    headers = {"X-Pass": "$GATEWAY_PASS", "X-Written": f"{CANARY}-b", "X-Team": "red"}
    said = f"it was {CANARY}-a and {CANARY}-b, red"
    with TeacherServer([Say(text=said), Say(status=400, error=said)]) as server:
        teacher = Remote(section(server.url, headers=headers, concurrency=1))
        replies = bought(ledger, teacher, [question(0), question(1)])
        sent = [[got[name.lower()] for name in headers] for got in server.headers]
    assert sent == [[f"{CANARY}-a", f"{CANARY}-b", "red"]] * 2
    assert replies[0].text == "it was *** and ***, red"
    ledger.close()
    assert CANARY not in repr(replies) + caplog.text
    assert not [path for path in tmp_path.iterdir() if CANARY.encode() in path.read_bytes()]


def test_a_headers_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_PASS", raising=False)
    with pytest.raises(TeacherStopped, match=r"NO_SUCH_PASS \(x-pass\)"):
        list(Remote(section(None, headers={"x-pass": "$NO_SUCH_PASS"})).ask([question(0)]))


def test_a_header_that_cannot_be_sent_is_named_without_its_value() -> None:
    with pytest.raises(TeacherStopped, match="x-pass") as caught:
        list(Remote(section("http://127.0.0.1:9", headers={"x-pass": f"{CANARY}\r\nx: y"})).ask([question(0)]))
    assert CANARY not in str(caught.value)
