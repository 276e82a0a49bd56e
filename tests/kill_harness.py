"""Kills runs at random moments, over a provider that fails one in five, until they end: `make kill-harness`.

    python tests/kill_harness.py [kills] [seed]

Each run makes the snapshots of a small pool (no training). Its cap is too low at first and is raised whenever it is
reached. It is killed (SIGKILL) at random moments and started again until it ends; then comes the next, until there were
enough kills. The server lives in a process of its own and counts.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from small import Rule, make_pool, make_recipe
from storm import PRICE, TIMEOUT_S, Books, Claims, Counts, storm, stormy

from balkit import stages
from balkit.errors import CapReached
from balkit.pool import Pool
from balkit.recipe import Caps, Teacher
from balkit.teacher import Ledger, Reply, Request, make_teacher
from balkit.teacher.remote import load_litellm

CONCURRENCY = 8
FORK = multiprocessing.get_context("fork")
CAP_REACHED = 3


class Told:
    """The remote teacher; the server is sent, as JSON, what `Rule` needs, so that a reply is a function of the key."""

    def __init__(self, url: str) -> None:
        section = Teacher(model="openai/m", base_url=url, concurrency=CONCURRENCY, timeout_s=TIMEOUT_S)
        self._remote: Any = make_teacher(section)

    @property
    def room(self) -> int:
        """As the remote teacher's."""
        return int(self._remote.room)

    def ask(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Replies to the requests as they were."""
        asked: dict[str, Request] = {}

        def told() -> Iterator[Request]:
            for request in requests:
                what = {"key": request.key, "purpose": request.purpose, "domain": request.domain}
                what |= {"count": request.count, "subject": request.subject}
                sent = replace(request, messages=(("user", json.dumps(what)),), schema=None)
                sent.__dict__.pop("key", None)
                asked[sent.key] = request
                yield sent

        for reply in self._remote.ask(told()):
            yield replace(reply, request=asked.pop(reply.request.key))


def by_rule(body: dict[str, Any]) -> str:
    """What the server answers."""
    what = json.loads(body["messages"][-1]["content"])
    request = Request(what["purpose"], "", "", (), "", 0, 1, 1.0, domain=what["domain"], count=what["count"])
    request = replace(request, subject=what["subject"])
    request.__dict__["key"] = what["key"]
    return Rule()(request)


def one_run(folder: Path, url: str, usd: float) -> None:
    """In a process of its own: start or resume the run; its snapshots' digests into a file when it ends."""
    teacher = {"name": "t", "model": "openai/m", "price": PRICE.model_dump(), "tries": 30}
    recipe = make_recipe(
        budget_rows=90,
        select={"first": "facility_location", "then": "k_center"},
        teacher=teacher,
        caps=Caps(usd=usd).model_dump(exclude_none=True),
    )
    try:
        result = stages.run(Pool.open(folder), recipe, teacher=Told(url), train=False)
    except CapReached:
        os._exit(CAP_REACHED)
    (folder / "ended.json").write_text(json.dumps([stage.digest for stage in result.stages]))
    os._exit(0)


def started(target: Callable[..., None], *arguments: Any) -> Any:
    process = FORK.Process(target=target, args=arguments)
    process.start()
    return process


class Harness:
    """One server, run after run; what it saw of each kill."""

    def __init__(self, url: str, counts: Callable[[], Counts], *, rng: random.Random) -> None:
        self._url, self._counts, self._rng = url, counts, rng
        self.kills = self.runs = self.caps_raised = 0
        self.lost = self.bought_again = self.beyond_cap = self.most_unknown = 0
        self._received: Counter[str] = Counter()

    def run(self, folder: Path, *, kills: int) -> list[str]:
        """One run to its end, with at most so many kills; the digests of its snapshots."""
        started(make_pool, folder).join()
        usd, before, base = 0.02, frozenset[str](), self._counts().cost_microusd
        self._received = self._counts().keys
        while True:
            process = started(one_run, folder, self._url, usd)
            self._wait(process, patient=self.kills >= kills)
            if process.exitcode is None:
                os.kill(process.pid, signal.SIGKILL)
                process.join()
                self.kills += 1
            before = self._look(folder / "calls.sqlite", before, usd=usd, base=base)
            if process.exitcode == CAP_REACHED:
                usd, self.caps_raised = usd * 2, self.caps_raised + 1
            elif process.exitcode == 0:
                self.runs += 1
                return list(json.loads((folder / "ended.json").read_text()))
            elif process.exitcode != -signal.SIGKILL:
                raise SystemExit(f"the run ended with {process.exitcode}")

    def _wait(self, process: Any, *, patient: bool) -> None:
        """Most kills come while calls are made, some at any time of a run."""
        anywhere, received = self._rng.random() < 0.2, self._counts().received
        while not patient and not anywhere and process.exitcode is None and self._counts().received == received:
            time.sleep(0.02)
        process.join(600 if patient else self._rng.uniform(0.0, 3.0 if anywhere else 0.6))

    def _look(self, path: Path, before: frozenset[str], *, usd: float, base: int) -> frozenset[str]:
        """Between two processes: what is committed, what the server served, what is open."""
        if not path.exists():
            return before
        books, counts = Books.read(path), self._counts()
        self.lost += len(before - books.paid_keys)
        again = counts.keys - self._received
        self.bought_again += sum(json.loads(asked)["key"] in before for asked in again)
        self._received = counts.keys
        self.most_unknown = max(self.most_unknown, books.ends["open"])
        cap = int(usd * 1e6)
        self.beyond_cap += max(0, counts.cost_microusd - base - cap) + max(0, books.most_charged_microusd - cap)
        return books.paid_keys


def checked(folder: Path) -> None:
    """In a process of its own: the ledger and the pool have no problems."""
    with Ledger(folder / "calls.sqlite") as ledger:
        problems = ledger.check() + Pool.open(folder).check()
    for line in problems:
        print(line)
    os._exit(1 if problems else 0)


def main(kills: int = 200, seed: int = 0) -> int:
    """0 if everything held."""
    load_litellm()  # once, before the forks
    plan = partial(stormy, share=0.2, latency_s=0.03)
    claims, sound = Claims(), True
    with tempfile.TemporaryDirectory() as name, storm(plan, by_rule) as (url, counts):
        harness = Harness(url, counts, rng=random.Random(seed))
        whole = harness.run(Path(name, "whole"), kills=0)
        unlike = 0
        while harness.kills < kills:
            folder = Path(name, f"run {harness.runs}")
            unlike += harness.run(folder, kills=kills) != whole
            check = started(checked, folder)
            check.join()
            sound = sound and check.exitcode == 0
        served = counts()
    print(f"{harness.kills} kills over {harness.runs - 1} runs; caps reached and raised {harness.caps_raised} times")
    print(f"the server received {served.received:,} requests and served {served.served:,}")
    claims.check(harness.lost == 0, f"committed replies lost: {harness.lost}")
    claims.check(harness.bought_again == 0, f"requests with a committed reply sent again: {harness.bought_again}")
    claims.check(harness.beyond_cap == 0, f"micro-dollars beyond a cap, by server or ledger: {harness.beyond_cap}")
    claims.check(harness.most_unknown <= CONCURRENCY, f"unknown after a kill: at most {harness.most_unknown}")
    claims.check(unlike == 0, f"runs whose snapshots differ from the unkilled run's: {unlike}")
    claims.check(sound, "check finds nothing in any pool or ledger")
    return 0 if claims.held else 1


if __name__ == "__main__":
    sys.exit(main(*(int(value) for value in sys.argv[1:3])))
