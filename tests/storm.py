"""A provider that fails one request in five, in a process of its own that outlives the killed; and what must hold."""

from __future__ import annotations

import multiprocessing
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from teacher_server import Say, TeacherServer

from balkit.recipe import Price

PRICE = Price(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)
TIMEOUT_S = 3.0
#: Faults after which the same request is asked again.
FAULTS = [
    *[Say(status=429, headers={"Retry-After": "0"}), Say(status=429, headers={"Retry-After": "0.1"})],
    *[Say(status=500), Say(status=503), Say(status=529), Say(cut="reset"), Say(cut="half")],
    *[Say(body="{oops"), Say(body=""), Say(body='{"choices": []}'), Say(close_after_s=0.05)],
]
LATE = Say(latency_s=TIMEOUT_S + 1)  # it is served, and charged, after our deadline


def stormy(number: int, *, share: float, latency_s: float, others: list[Say] | None = None) -> Say:
    """How request `number` is answered: a share of faults, few of them late."""
    rng = random.Random(number)
    if rng.random() >= share:
        return Say(latency_s=latency_s * rng.uniform(0.5, 1.5))
    return LATE if rng.random() < 0.005 else rng.choice(FAULTS + (others or []))


@dataclass(frozen=True)
class Counts:
    """What the server says of itself."""

    received: int
    served: int
    most_at_once: int
    cost_microusd: int  # of all whole replies, at PRICE
    keys: Counter[str]  # the last messages of the requests


@contextmanager
def storm(
    plan: Callable[[int], Say], answer: Callable[[dict[str, Any]], str]
) -> Iterator[tuple[str, Callable[[], Counts]]]:
    """The URL of the server, and a function that asks for its counts. Forks: start it before any thread."""
    context = multiprocessing.get_context("fork")
    ours, its = context.Pipe()
    process = context.Process(target=_serve, args=[plan, answer, its], daemon=True)
    process.start()
    try:
        yield ours.recv(), lambda: (ours.send("counts"), ours.recv())[1]
    finally:
        ours.send("end")
        process.join(5)
        process.kill()


def _serve(plan: Callable[[int], Say], answer: Callable[[dict[str, Any]], str], pipe: Any) -> None:
    with TeacherServer(plan, answer=answer) as server:
        pipe.send(server.url)
        while pipe.recv() == "counts":
            keys = Counter(body["messages"][-1]["content"] for body in list(server.received))
            pipe.send(Counts(len(server.received), server.served, server.most_at_once, server.cost_microusd, keys))


@dataclass(frozen=True)
class Books:
    """What a ledger says, read with plain SQL."""

    attempts: int
    ends: Counter[str]  # attempts by their end; `open`: sent without one
    never_left: int
    most_charged_microusd: int  # in any prefix of the ledger
    paid_keys: frozenset[str]  # with a committed reply

    @classmethod
    def read(cls, path: Path) -> Books:
        """A second connection reads, whatever the payer does."""
        with sqlite3.connect(path) as db:
            ends: Counter[str] = Counter(
                end
                for (end,) in db.execute(
                    "SELECT coalesce(max(CASE WHEN state IN ('succeeded', 'failed', 'unknown') THEN state END), 'open')"
                    " FROM events GROUP BY attempt"
                )
            )
            never_left = db.execute(
                "SELECT count(*) FROM events e WHERE state = 'failed' AND attempt NOT IN (SELECT attempt FROM replies)"
            ).fetchone()[0]
            charged = most = 0
            for (change,) in db.execute("SELECT microusd FROM events ORDER BY seq"):
                charged += change
                most = max(most, charged)
            paid = db.execute("SELECT key FROM attempts JOIN replies USING (attempt) WHERE outcome = 'ok'")
            return cls(ends.total(), ends, never_left, most, frozenset(key for (key,) in paid))


class Claims:
    """Prints what must hold as it is checked, and remembers whether all of it did."""

    def __init__(self) -> None:
        self.held = True

    def check(self, holds: bool, claim: str) -> None:
        """One line."""
        print(f"{'ok    ' if holds else 'BROKEN'} {claim}", flush=True)
        self.held = self.held and holds
