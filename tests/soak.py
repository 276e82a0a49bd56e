"""Many calls against a provider that fails one in five, and what must hold all the same: `make soak`.

python tests/soak.py [calls] [concurrency]
"""

from __future__ import annotations

import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import psutil
from storm import PRICE, TIMEOUT_S, Books, Claims, storm, stormy
from teacher_server import Say

from balkit.recipe import Caps, Teacher
from balkit.teacher import Ledger, Pace, Request, make_teacher

PACE = Pace(first_wait_s=0.02, longest_wait_s=0.5, rate_limit_deadline_s=120.0)
CONTENT = [Say(text="cut of", finish_reason="length"), Say(refusal="no", finish_reason="content_filter"), Say(text="7")]


def question(i: int) -> Request:
    return Request("rationale", "t", "m", (("user", f"question {i}"),), "t", 0, 64, 0.5, domain=f"d{i % 7}", stage=1)


def megabytes() -> float:
    return float(psutil.Process().memory_info().rss / 1e6)


def main(calls: int = 20_000, concurrency: int = 32) -> int:
    """0 if everything held."""
    plan = partial(stormy, share=0.2, latency_s=0.02, others=CONTENT)
    with tempfile.TemporaryDirectory() as folder, storm(plan, lambda body: "echo") as (url, counts):
        path, caps = Path(folder, "calls.sqlite"), Caps(usd=calls * 150e-6)
        section = Teacher(model="openai/m", base_url=url, concurrency=concurrency, timeout_s=TIMEOUT_S)
        with Ledger(path) as ledger:
            door = ledger.door(
                make_teacher(section), run_id="r", price=PRICE, model="m", caps=caps, tries=20, pace=PACE
            )
            started, memory, keys = time.perf_counter(), list[str](), set[str]()
            for number, reply in enumerate(door.ask(question(i) for i in range(calls))):
                keys.add(reply.request.key)
                if number % max(1, calls // 5) == 0:
                    memory.append(f"{megabytes():.0f}")
            seconds = time.perf_counter() - started
            spent, problems, kept = ledger.spent("r"), ledger.check(), ledger.cached(keys)
        server, books = counts(), Books.read(path)
    print(f"{calls:,} calls in {seconds:.0f} s, {calls / seconds:.0f} calls/s; memory in MB {' '.join(memory)}")
    print(f"the server received {server.received:,} and served {server.served:,}; the ledger: {dict(books.ends)}")
    late = server.served - books.ends["succeeded"]
    claims, cap = Claims(), int(caps.usd * 1e6) if caps.usd else 0
    claims.check(len(keys) == calls, f"every request has a reply: {len(keys):,} of {calls:,}")
    claims.check(kept == keys, f"every reply that was handed out is kept; lost: {len(keys - kept)}")
    sent = books.attempts - books.never_left
    claims.check(sent == server.received, f"the server's count is the ledger's: {server.received:,} and {sent:,}")
    claims.check(0 <= late <= books.ends["unknown"], f"served {late} more than kept, all of them unknown, so charged")
    claims.check(
        books.most_charged_microusd <= cap, f"at most {books.most_charged_microusd:,} of {cap:,} micro-dollars"
    )
    claims.check(
        server.cost_microusd <= spent.cost_microusd, f"the server counts {server.cost_microusd:,} micro-dollars"
    )
    claims.check(server.most_at_once <= concurrency, f"at most {server.most_at_once} requests at once")
    claims.check(problems == [], f"check finds {problems[:3] or 'nothing'}")
    return 0 if claims.held else 1


if __name__ == "__main__":
    sys.exit(main(*(int(value) for value in sys.argv[1:3])))
