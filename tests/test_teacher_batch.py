"""Provider batches: real openai client, real HTTP, a provider on loopback whose batches expire and fail on demand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small import make_pool, make_recipe
from teacher_server import Say, TeacherServer

from balkit import recipe, steps
from balkit.errors import CapReached, TeacherPaused, TeacherStopped
from balkit.recipe import Caps, Price
from balkit.teacher import Batch, Ledger, Pace, Reply, Request, Scripted, make_teacher
from balkit.teacher.batch import Patience

pytest.importorskip("openai")
pytest.importorskip("litellm")

PRICE = Price(input_usd_per_mtok=3.0, output_usd_per_mtok=15.0)
FAST = Pace(first_wait_s=0.01, longest_wait_s=0.02, rate_limit_deadline_s=20.0)
SOON = Patience(first_poll_s=0.01, longest_poll_s=0.02, listed_after_s=0.0)
CANARY = "sk-canary-0b7d21a4e9"


def question(i: int, **changed: Any) -> Request:
    labels: dict[str, Any] = {"domain": "d", "stage": 1} | changed
    return Request("rationale", "teacher", "m", (("user", f"q{i}"),), "t", 0, 50, 0.5, **labels)


def questions(n: int) -> list[Request]:
    return [question(i) for i in range(n)]


def batch(server: TeacherServer, *, most_lines: int = 1000, **changed: Any) -> Batch:
    section = {"transport": "batch", "model": "openai/m", "base_url": server.url, "timeout_s": 5.0} | changed
    return Batch(recipe.Teacher(**section), patience=SOON, most_lines=most_lines)


def bought(ledger: Ledger, teacher: Any, requests: list[Request], **changed: Any) -> list[Reply]:
    terms: dict[str, Any] = {"run_id": "r", "price": PRICE, "model": "m", "caps": Caps(), "tries": 3, "pace": FAST}
    return list(ledger.door(teacher, **(terms | changed)).ask(requests))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "calls.sqlite") as opened:
        yield opened


def test_a_batch_answers_every_request_at_half_the_price(ledger: Ledger) -> None:
    with TeacherServer() as server:
        replies = bought(ledger, batch(server), questions(20))
        bought(ledger, make_teacher(recipe.Teacher(model="openai/m", base_url=server.url)), [question(99)], run_id="x")
        assert len(server.batches.batches) == 1
    assert sorted(reply.text for reply in replies) == sorted(f"echo: q{i}" for i in range(20))
    assert {reply.author for reply in replies} == {"served-model-1"}
    whole = ledger.calls("x")["cost_microusd"][0]
    assert {reply.cost_microusd for reply in replies} == {-(-whole // 2)}
    assert ledger.check() == []


def test_the_custom_id_of_a_line_is_the_requests_key(ledger: Ledger) -> None:
    with TeacherServer() as server:
        bought(ledger, batch(server), questions(3))
        assert server.batches.served == {request.key: 1 for request in questions(3)}
        assert server.received[0]["max_tokens"] == 50
        assert server.received[0]["model"] == "m"


def test_what_a_batch_bought_is_known_to_the_same_endpoint_without_batches(ledger: Ledger) -> None:
    with TeacherServer() as server:
        bought(ledger, batch(server), questions(3))
    assert all(reply.cached for reply in bought(ledger, Scripted([]), questions(3)))


def test_more_requests_than_a_batch_takes_go_into_several_at_once(ledger: Ledger) -> None:
    with TeacherServer() as server:
        assert len(bought(ledger, batch(server, most_lines=4), questions(10))) == 10
        assert len(server.batches.batches) == 3


def test_equal_requests_are_one_line(ledger: Ledger) -> None:
    with TeacherServer() as server:
        assert len(bought(ledger, batch(server), [question(1)] * 5)) == 5
        assert sum(server.batches.served.values()) == 1


def test_lines_that_an_expired_batch_finished_are_kept_and_only_the_rest_is_sent_again(ledger: Ledger) -> None:
    with TeacherServer() as server:
        server.batches.ends, server.batches.done, server.batches.good_after = "expired", 6, 1
        replies = bought(ledger, batch(server), questions(10))
        assert len({reply.text for reply in replies}) == 10
        assert sorted(server.batches.served.values()) == [1] * 10
        assert len(server.batches.batches) == 2
    assert ledger.spent("r").calls == 10
    assert ledger.calls()["status"].to_list() == ["succeeded"] * 10


def test_a_batch_that_failed_for_the_providers_limit_is_sent_again(ledger: Ledger) -> None:
    with TeacherServer() as server:
        server.batches.ends, server.batches.done, server.batches.good_after = "failed", 0, 1
        assert len(bought(ledger, batch(server), questions(3), tries=1)) == 3
        assert len(server.batches.batches) == 2
    assert ledger.spent("r").calls == 3


def test_a_failed_line_fails_its_row_alone_and_a_500_is_tried_again(ledger: Ledger) -> None:
    plan = [Say(status=400, error="too long"), Say(status=500), Say()]
    with TeacherServer(plan) as server:
        replies = bought(ledger, batch(server), questions(3))
        outcomes = {reply.request.messages[0][1]: reply.outcome for reply in replies}
        assert outcomes == {"q0": "permanent", "q1": "ok", "q2": "ok"}
        assert len(server.batches.batches) == 2
    assert ledger.spent("r").calls == 4


def test_a_complete_batch_without_a_line_leaves_that_one_unknown(ledger: Ledger) -> None:
    with TeacherServer() as server:
        server.batches.done = 2
        with pytest.raises(TeacherPaused, match="without this line"):
            bought(ledger, batch(server), questions(3), tries=1)
    assert sorted(ledger.calls()["status"]) == ["succeeded", "succeeded", "unknown"]


def test_a_file_that_stays_broken_off_is_taken_as_it_is_in_the_end(ledger: Ledger) -> None:
    with TeacherServer() as server:
        server.batches.file_faults = ["in a line"] * 4
        assert len(bought(ledger, batch(server), questions(6))) == 6
        assert len(server.batches.batches) == 2
    assert ledger.check() == []


@pytest.mark.parametrize("counts", [None, {}, {"total": 3, "completed": None, "failed": None}], ids=str)
def test_a_provider_that_counts_nothing_is_read_all_the_same(ledger: Ledger, counts: Any) -> None:
    with TeacherServer() as server:
        server.batches.counts = counts
        assert len(bought(ledger, batch(server), questions(3))) == 3


@pytest.mark.parametrize("where", ["between lines", "in a line"])
def test_a_file_that_breaks_off_is_fetched_again(ledger: Ledger, where: Any) -> None:
    with TeacherServer() as server:
        server.batches.file_faults = [where]
        assert len(bought(ledger, batch(server), questions(6))) == 6
        assert sorted(server.batches.served.values()) == [1] * 6
    assert ledger.spent("r").calls == 6


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"choices": [{"message": {"content": [{"type": "text", "text": "parts"}]}}]}, "parts"),
        ({"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": "4"}, "id": 7}, "x"),
        ({"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": -4, "completion_tokens": 9}}, "x"),
        ("no object", None),
        ({"choices": "none"}, None),
    ],
    ids=str,
)
def test_an_odd_line_does_not_stand_between_the_others_and_the_ledger(
    ledger: Ledger, said: Any, text: str | None
) -> None:
    with TeacherServer() as server:
        plain, lines = server.batches.answer, iter(range(3))
        server.batches.answer = lambda body: (200, said) if next(lines, None) == 1 else plain(body)
        replies = bought(ledger, batch(server), questions(3))
    found = {reply.request.messages[0][1]: reply.text for reply in replies}
    assert found == {"q0": "echo: q0", "q1": text or "echo: q1", "q2": "echo: q2"}
    assert ledger.spent("r").calls == (3 if text else 4)
    assert ledger.spent("r").cost_microusd > 0
    assert ledger.check() == []


def test_a_line_that_was_read_while_another_request_was_waited_for_is_not_bought_again(ledger: Ledger) -> None:
    with TeacherServer() as server:
        server.batches.polls = 10**9
        left = ledger.door(batch(server), run_id="r", price=PRICE, model="m", caps=Caps(), tries=3, pace=FAST)
        _abandon(left, server)
        server.batches.polls = 1
        first = [question(3), *questions(3)]  # the cap has no room for it while those in the batch are reserved
        assert len(bought(ledger, batch(server), first, caps=Caps(calls=4, tokens=1200))) == 4
        assert sorted(server.batches.served.values()) == [1] * 4
    assert ledger.check() == []


def test_a_batch_whose_making_was_not_answered_is_looked_for_and_not_made_again(ledger: Ledger) -> None:
    with TeacherServer() as server:
        server.batches.create_faults = ["made"]
        assert len(bought(ledger, batch(server), questions(4))) == 4
        assert len(server.batches.batches) == 1
    assert ledger.spent("r").calls == 4


def test_a_batch_that_was_made_unheard_is_found_by_the_next_process(tmp_path: Path) -> None:
    with TeacherServer() as server:
        server.batches.create_faults, server.batches.list_status = ["made"], 401
        with Ledger(tmp_path / "calls.sqlite") as ledger, pytest.raises(TeacherStopped, match="stays open"):
            bought(ledger, batch(server), questions(4))
        server.batches.list_status = 200
        with Ledger(tmp_path / "calls.sqlite") as ledger:
            assert len(bought(ledger, batch(server), questions(4))) == 4
            assert ledger.spent("r").calls == 4
        assert len(server.batches.batches) == 1


def test_a_batch_that_was_never_made_is_made_at_the_next_try(ledger: Ledger) -> None:
    with TeacherServer() as server:
        server.batches.create_faults = [503]
        assert len(bought(ledger, batch(server), questions(4))) == 4
        assert len(server.batches.batches) == 1


@pytest.mark.parametrize("status", [400, 401, 404])
def test_a_batch_that_is_refused_stops_the_run_and_costs_nothing(ledger: Ledger, status: int) -> None:
    with TeacherServer() as server:
        server.batches.create_faults = [status] * 3
        with pytest.raises(TeacherStopped, match="refused"):
            bought(ledger, batch(server), questions(4))
    assert (ledger.spent("r").calls, ledger.spent("r").cost_microusd) == (0, 0)


def test_polling_goes_on_over_faults(ledger: Ledger) -> None:
    with TeacherServer() as server:
        server.batches.poll_faults = [500, 429, 503]
        assert len(bought(ledger, batch(server), questions(2))) == 2


def test_a_cap_holds_for_what_is_gathered(ledger: Ledger) -> None:
    with TeacherServer() as server, pytest.raises(CapReached):
        bought(ledger, batch(server), questions(10), caps=Caps(calls=4))
    assert sum(server.batches.served.values()) == 4
    assert ledger.spent("r").calls == 4


_RUN = """
import sys
from balkit import recipe, steps
from balkit.recipe import Caps, Price
from balkit.teacher import Batch, Ledger, Request
from balkit.teacher.batch import Patience
requests = [Request("rationale", "teacher", "m", (("user", f"q{i}"),), "t", 0, 50, 0.5, domain="d", stage=1)
            for i in range(12)]
section = recipe.Teacher(transport="batch", model="openai/m", base_url=sys.argv[2])
teacher = Batch(section, patience=Patience(0.01, 0.02, 0.0), most_lines=5)
with Ledger(sys.argv[1]) as ledger:
    price = Price(input_usd_per_mtok=3.0, output_usd_per_mtok=15.0)
    for reply in ledger.door(teacher, run_id="r", price=price, model="m", caps=Caps(), tries=3).ask(requests):
        print(reply.text, flush=True)
"""


def _started(path: Path, server: TeacherServer) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _RUN, str(path), server.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _wait_until(condition: Any) -> None:
    import time

    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.long
def test_batches_of_a_killed_process_are_fetched_by_the_next_and_paid_once(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    with TeacherServer() as server:
        server.batches.polls = 10**9
        process = _started(path, server)
        _wait_until(lambda: len(server.batches.batches) == 3)
        process.kill()
        process.wait()
        with Ledger(path) as ledger, ledger.paying():  # another payer in between makes nothing unknown
            assert ledger.spent("r").calls == 12
        server.batches.polls = 1
        with Ledger(path) as ledger:
            replies = bought(ledger, batch(server), questions(12))
            assert len(replies) == 12
            assert ledger.calls()["status"].to_list() == ["succeeded"] * 12
            assert ledger.spent("r").calls == 12
            assert ledger.check() == []
        assert len(server.batches.batches) == 3
        assert sorted(server.batches.served.values()) == [1] * 12


def test_of_a_process_killed_before_it_submitted_nothing_stays_charged(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    with Ledger(path) as ledger, ledger.paying():
        from balkit.teacher.caps import Amount
        from balkit.teacher.prices import price_of

        ledger.send(question(1), run_id="r", rate=price_of("m", PRICE), reserved=Amount(1, 9, 9), leaves_now=False)
    with Ledger(path) as ledger, ledger.paying():
        assert ledger.spent("r").calls == 0


def test_a_batch_of_another_run_answers_this_one_and_is_charged_there(ledger: Ledger) -> None:
    with TeacherServer() as server:
        server.batches.polls = 10**9
        left = ledger.door(batch(server), run_id="one", price=PRICE, model="m", caps=Caps(), tries=3, pace=FAST)
        _abandon(left, server)
        server.batches.polls = 1
        replies = bought(ledger, batch(server), questions(3), run_id="two")
        assert len(server.batches.batches) == 1
    assert len(replies) == 3
    assert (ledger.spent("one").calls, ledger.spent("two").calls) == (3, 0)
    assert ledger.calls("two")["status"].to_list() == ["cached"] * 3


def test_lines_that_nobody_asks_for_any_more_are_kept_all_the_same(ledger: Ledger) -> None:
    with TeacherServer() as server:
        server.batches.polls = 10**9
        left = ledger.door(batch(server), run_id="r", price=PRICE, model="m", caps=Caps(), tries=3, pace=FAST)
        _abandon(left, server)
        server.batches.polls = 1
        assert len(bought(ledger, batch(server), [question(77)])) == 1
    assert ledger.cached([request.key for request in questions(3)]) == {request.key for request in questions(3)}


def test_a_teacher_without_batches_does_not_buy_again_what_is_in_a_batch(ledger: Ledger) -> None:
    with TeacherServer() as server:
        server.batches.polls = 10**9
        left = ledger.door(batch(server), run_id="r", price=PRICE, model="m", caps=Caps(), tries=3, pace=FAST)
        _abandon(left, server)
        with pytest.raises(TeacherStopped, match="transport: batch"):
            bought(ledger, Scripted(lambda request: "again"), questions(3))
        assert ledger.spent("r").calls == 3


def _abandon(door: Any, server: TeacherServer) -> None:
    """Ask for three, and go away while the batch runs, as Ctrl-C does."""
    server.batches.poll_faults = [401]
    with pytest.raises(TeacherStopped, match="stays open"):
        list(door.ask(questions(3)))


def test_keys_appear_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_API_KEY", CANARY)
    plan = [Say(text=f"your key is {CANARY}"), Say(status=400, error=f"bad {CANARY}")]
    with TeacherServer(plan) as server, Ledger(tmp_path / "calls.sqlite") as ledger:
        bought(ledger, batch(server, api_key_env="CANARY_API_KEY"), questions(2))
    assert not [path for path in tmp_path.iterdir() if CANARY.encode() in path.read_bytes()]


def test_headers_are_sent_and_their_values_appear_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_PASS", CANARY)
    with TeacherServer([Say(text=f"it was {CANARY}")]) as server, Ledger(tmp_path / "calls.sqlite") as ledger:
        bought(ledger, batch(server, headers={"X-Pass": "$GATEWAY_PASS"}), questions(2))
        assert {got["x-pass"] for got in server.headers} == {CANARY}
    assert not [path for path in tmp_path.iterdir() if CANARY.encode() in path.read_bytes()]


def test_a_recipe_with_batches_is_run_as_any_other(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", sizes={"fruit": 6, "tool": 4}, eval_rows=0)
    with TeacherServer(lambda i: Say(text="So it is.\nAnswer: fruit")) as server:
        teacher = {"name": "t", "transport": "batch", "model": "openai/m", "base_url": server.url, "price": "free"}
        written = steps.annotate(pool, make_recipe(teacher=teacher), split="train")
        assert len(server.batches.batches) == 2  # one a round: the wrong ones are asked again
    assert (written["accepted"].sum(), written.height) == (6, 6 + 2 * 4)


def test_batch_and_single_calls_are_the_same_run() -> None:
    def digest(transport: str) -> str:
        teacher = {"transport": transport, "model": "openai/m"}
        return recipe.load({"name": "x", "budget_rows": 9, "teacher": teacher}).run_digest()

    assert digest("batch") == digest("litellm")
