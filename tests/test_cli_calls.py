"""balkit calls: a request, the parts of its key, why it was bought, its raw reply, and what may be asked anew."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from balkit.cli import main
from balkit.recipe import Caps, Price
from balkit.teacher import Ledger, Pace, Reply, Request, Scripted
from balkit.teacher.batches import Journal
from balkit.teacher.caps import Amount
from balkit.teacher.prices import price_of

PRICE = Price(input_usd_per_mtok=3.0, output_usd_per_mtok=15.0)
Balkit = Callable[..., tuple[int, Any]]


def ask_for(text: str, **changed: Any) -> Request:
    body = {"sample": 0, "temperature": 0.5, "model": "m", "domain": "d"} | changed
    messages = (("user", f"Explain.\n{text}\nThank you."),)
    return Request(
        "rationale", "teacher", body["model"], messages, "t", body["sample"], 50, body["temperature"],
        domain=body["domain"], stage=1, example_id=text,
    )  # fmt: skip


def bought(pool: Path, requests: list[Request], *, said: Any = "fine", run_id: str = "first") -> None:
    pace = Pace(first_wait_s=0.0, longest_wait_s=0.0)
    with Ledger(pool / "calls.sqlite") as ledger:
        teacher = Scripted(said if callable(said) else lambda request: said)
        door = ledger.door(teacher, run_id=run_id, price=PRICE, model="m", caps=Caps(), tries=2, pace=pace)
        list(door.ask(requests))


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    folder = tmp_path / "pool"
    folder.mkdir()
    return folder


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], pool: Path) -> Balkit:
    """Runs `balkit calls COMMAND POOL ...`; its exit code and its JSON, or its text without --json."""

    def run(command: str, *arguments: str) -> tuple[int, Any]:
        monkeypatch.setattr(sys, "argv", ["balkit", "calls", command, str(pool), *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        text = printed.out or printed.err
        return int(ended.value.code or 0), json.loads(text) if "--json" in arguments else text

    return run


def test_calls_are_listed_the_dearest_first_and_filtered(calls: Balkit, pool: Path) -> None:
    bought(pool, [ask_for("a long question " * 9), ask_for("b"), ask_for("c", domain="e")])
    code, rows = calls("list", "--json")
    assert (code, len(rows)) == (0, 3)
    assert [row["cost_microusd"] for row in rows] == sorted((row["cost_microusd"] for row in rows), reverse=True)
    assert [row["example_id"] for row in calls("list", "--domain", "e", "--json")[1]] == ["c"]
    assert calls("list", "--status", "failed", "--json")[1] == []
    assert len(calls("list", "--run", "fir", "--example", "b", "--json")[1]) == 1
    said = calls("list", "--limit", "1")[1]
    assert "1 of 3 calls; --limit shows more" in said
    assert re.search(r" 0\.000\d{3}\n", said), said


def test_a_request_is_shown_with_its_keys_parts_and_its_raw_reply(calls: Balkit, pool: Path) -> None:
    asked = ask_for("why?")
    bought(pool, [asked], said="because\x1b[31m")
    code, body = calls("show", asked.key[:10], "--json")
    assert (code, body["key"], body["parts"]["model"], body["parts"]["sample"]) == (0, asked.key, "m", 0)
    assert list(body["parts"].values()) == asked.body()
    (attempt,) = body["attempts"]
    assert [one["state"] for one in attempt["states"]] == ["reserved", "sent", "succeeded"]
    assert attempt["raw"] == "because\x1b[31m"
    text = calls("show", asked.key[:10])[1]
    assert "why?" in text
    assert "because\\x1b[31m" in text
    assert calls("show", asked.key[:10], "--raw")[1] == "because\x1b[31m\n"


def test_a_key_that_none_or_several_begin_with_is_said(calls: Balkit, pool: Path) -> None:
    bought(pool, [ask_for(str(i)) for i in range(40)])
    assert calls("show", "xyz") == (1, calls("show", "xyz")[1])
    assert "no request's key begins with 'xyz'" in calls("show", "xyz")[1]
    several = next(c for c in "0123456789abcdef" if sum(ask_for(str(i)).key[0] == c for i in range(40)) > 1)
    assert "give more of it" in calls("show", several)[1]


@pytest.mark.parametrize(
    ("changed", "part", "values"),
    [
        ({"model": "n"}, "model", ["m", "n"]),
        ({"sample": 3}, "sample", [0, 3]),
        ({"temperature": 0.9}, "temperature", [0.5, 0.9]),
    ],
)
def test_why_it_was_no_cache_hit_is_the_part_that_differs(
    calls: Balkit, pool: Path, changed: dict[str, Any], part: str, values: list[Any]
) -> None:
    bought(pool, [ask_for("another"), ask_for("why?")])
    asked = ask_for("why?", **changed)
    bought(pool, [asked], run_id="second")
    code, body = calls("explain", asked.key, "--json")
    assert code == 0
    assert body["why"] == ["run second bought it: no stored request had this key"]
    assert body["closest"] == {"key": ask_for("why?").key, "differs": {part: values}}
    assert f"it differs in {part}" in calls("explain", asked.key)[1]


def test_messages_that_differ_are_shown_by_their_lines(calls: Balkit, pool: Path) -> None:
    bought(pool, [ask_for("why?"), ask_for("why not?")])
    body = calls("explain", ask_for("why not?").key, "--json")[1]
    assert body["closest"]["differs"] == {"messages": ["-why?", "+why not?"]}
    assert calls("explain", ask_for("why?").key, "--json")[1]["closest"] is None


def test_a_cache_hit_names_the_run_that_was_spared(calls: Balkit, pool: Path) -> None:
    bought(pool, [ask_for("why?")])
    bought(pool, [ask_for("why?")], run_id="second")
    why = calls("explain", ask_for("why?").key, "--json")[1]["why"]
    assert why[1:] == ["run second was answered from the ledger: every part of the key was equal"]


def test_a_second_attempt_is_explained_by_the_first(calls: Balkit, pool: Path) -> None:
    said = iter(["busy", "fine"])

    def rule(request: Request) -> str | Reply:
        text = next(said)
        return Reply(request, "transient", error="server is busy") if text == "busy" else text

    bought(pool, [ask_for("why?")], said=rule)
    assert "(server is busy)" in calls("explain", ask_for("why?").key, "--json")[1]["why"][1]


def test_retry_leaves_paid_replies_alone_and_says_what_is_asked_again(calls: Balkit, pool: Path) -> None:
    bought(pool, [ask_for("paid")])
    bought(pool, [ask_for("bad")], said=lambda request: Reply(request, "permanent", error="too long"))
    code, done = calls("retry", ask_for("paid").key, ask_for("bad").key, "--json")
    assert code == 1
    assert done == {"given_up": [], "asked_again": [ask_for("bad").key], "kept": [ask_for("paid").key]}
    assert calls("retry")[0] == 1


def test_what_is_in_a_batch_is_open_and_can_be_given_up(calls: Balkit, pool: Path) -> None:
    asked = ask_for("why?")
    with Ledger(pool / "calls.sqlite") as ledger, ledger.paying():
        rate = price_of("m", PRICE)
        attempt = ledger.send(asked, run_id="r", rate=rate, reserved=Amount(1, 300, 900), leaves_now=False)
        Journal(ledger, {asked.key: attempt}).intend([asked], file_id="file-1")
    assert [row["status"] for row in calls("list", "--status", "open", "--json")[1]] == ["open"]
    assert "in a batch" in calls("explain", asked.key)[1]
    assert calls("retry", "--open", "--json") == (0, {"given_up": [asked.key], "asked_again": [], "kept": []})
    with Ledger(pool / "calls.sqlite") as ledger:
        assert ledger.spent("r").cost_microusd == 900
        assert ledger.check() == []
    assert calls("list", "--json")[1][0]["status"] == "unknown"
    bought(pool, [asked], run_id="r")
    assert calls("list", "--json")[1][0]["status"] == "succeeded"


def test_a_pool_without_calls_says_so(calls: Balkit) -> None:
    assert calls("list")[0] == 1
    assert "no teacher was asked here yet" in calls("list")[1]
