"""Commits in groups: what is on disk at which moment, as another connection sees it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from teacher_server import Say, TeacherServer

from balkit import recipe
from balkit.errors import TeacherStopped
from balkit.recipe import Caps, Price
from balkit.teacher import Ledger, Reply, Request, make_teacher

PRICE = Price(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)


def question(i: int) -> Request:
    return Request("rationale", "teacher", "m", (("user", f"q{i}"),), "t", 0, 50, 0.5, domain="d", stage=1)


def bought(ledger: Ledger, teacher: Any, *, n: int) -> Iterator[Reply]:
    door = ledger.door(teacher, run_id="r", price=PRICE, model="m", caps=Caps(), tries=3)
    return door.ask(question(i) for i in range(n))


def states(path: Path, key: str) -> list[str]:
    """The states of a request's attempts, as a second connection sees them now."""
    with sqlite3.connect(path) as db:
        sql = "SELECT state FROM events JOIN attempts USING (attempt) WHERE key = ? ORDER BY seq"
        return [state for (state,) in db.execute(sql, (key,))]


def commits(path: Path) -> int:
    with sqlite3.connect(path) as db:
        return int(db.execute("SELECT count(*) FROM links").fetchone()[0])


class InBursts:
    """Pulls `width` requests, then answers all of them; `seen` is called with each request when it is pulled."""

    def __init__(self, width: int, seen: Callable[[Request], None] = lambda request: None) -> None:
        self.room = width
        self._seen = seen

    def ask(self, requests: Iterable[Request]) -> Iterator[Reply]:
        source = iter(requests)
        while pulled := [self._pulled(request) for request in islice(source, self.room)]:
            for left, request in zip(reversed(range(len(pulled))), pulled, strict=True):
                yield Reply(request, "ok", text="t", input_tokens=1, output_tokens=1, more_at_hand=left > 0)

    def _pulled(self, request: Request) -> Request:
        self._seen(request)
        return request


@pytest.mark.parametrize("width", [1, 4])
def test_sent_is_on_disk_before_the_request_leaves(tmp_path: Path, width: int) -> None:
    path, seen = tmp_path / "calls.sqlite", []
    teacher = InBursts(width, lambda request: seen.append(states(path, request.key)))
    with Ledger(path) as ledger:
        list(bought(ledger, teacher, n=10))
    assert seen == [["reserved", "sent"]] * 10


@pytest.mark.parametrize("width", [1, 4])
def test_a_reply_is_on_disk_before_it_is_read(tmp_path: Path, width: int) -> None:
    path = tmp_path / "calls.sqlite"
    with Ledger(path) as ledger:
        for reply in bought(ledger, InBursts(width), n=10):
            assert states(path, reply.request.key) == ["reserved", "sent", "succeeded"]


def test_what_leaves_together_and_what_comes_together_is_committed_together(tmp_path: Path) -> None:
    with Ledger(tmp_path / "calls.sqlite") as ledger:
        list(bought(ledger, InBursts(5), n=20))
    assert commits(tmp_path / "calls.sqlite") == 2 * 4


def test_what_was_noted_but_never_pulled_is_not_charged(tmp_path: Path) -> None:
    class StopsAtTheSecond:
        room = 5

        def ask(self, requests: Iterable[Request]) -> Iterator[Reply]:
            first, second = islice(requests, 2)
            yield Reply(first, "ok", text="t", input_tokens=1, output_tokens=1)
            yield Reply(second, "stop", error="401")

    with Ledger(tmp_path / "calls.sqlite") as ledger:
        with pytest.raises(TeacherStopped):
            list(bought(ledger, StopsAtTheSecond(), n=9))
        assert (ledger.spent("r").calls, ledger.spent("r").tokens) == (1, 2)
        assert sorted(ledger.calls()["status"]) == ["failed"] * 4 + ["succeeded"]
        assert ledger.check() == []
        assert len(list(bought(ledger, InBursts(5), n=9))) == 9


def test_no_more_is_noted_as_sent_than_the_window_holds(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    sql = "SELECT sum(state = 'sent') - sum(state IN ('succeeded', 'failed', 'unknown')) FROM events"
    with TeacherServer(lambda i: Say(latency_s=0.01 * (i % 3), status=429 if i == 9 else 200)) as server:
        section = recipe.Teacher(model="openai/m", base_url=server.url, concurrency=6)
        with Ledger(path) as ledger, sqlite3.connect(path) as db:
            open_at_each_reply = [db.execute(sql).fetchone()[0] for _ in bought(ledger, make_teacher(section), n=40)]
    assert 2 <= max(open_at_each_reply) <= 6
