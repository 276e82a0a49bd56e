"""The ledger's cost: `Ledger.door` around the remote teacher against bare `litellm.acompletion` (the peer).

    python tests/benchmarks/bench_teacher.py [rounds] [calls]

A server in another process answers after 20 ms. Each round runs both at concurrency 32 and 128, in turn, the full
ledger on (`synchronous = FULL`). Then memory over 50,000 calls and the time of 100,000 cached requests. 0 rounds leave
out the first part.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import psutil
from loopback import serving

from balkit.recipe import Caps, Price, Teacher
from balkit.teacher import Ledger, Reply, Request, make_teacher
from balkit.teacher import Teacher as Transport

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
LATENCY_S = 0.02
PRICE = Price(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)
CACHED = 100_000
MEMORY_CALLS = 50_000


def question(i: int) -> Request:
    return Request("rationale", "t", "m", (("user", f"question {i}: " + "x" * 200),), "t", 0, 200, 0.5, domain="d")


def ask(ledger: Ledger, teacher: Transport, numbers: range) -> None:
    """Buy or find replies, and read each."""
    door = ledger.door(teacher, run_id="r", price=PRICE, model="m", caps=Caps(calls=10**9), tries=3)
    for reply in door.ask(question(i) for i in numbers):
        assert reply.outcome == "ok", reply.error


def bare(url: str, numbers: range, *, concurrency: int) -> None:
    """What a careful user would write: so many tasks over `litellm.acompletion`."""
    import litellm

    left = iter(numbers)

    async def work() -> None:
        for i in left:
            await litellm.acompletion(
                model="openai/m",
                messages=[{"role": "user", "content": question(i).messages[0][1]}],
                max_tokens=200,
                temperature=0.5,
                timeout=60.0,
                api_base=url,
                api_key="unused",
                max_retries=0,
            )

    async def main() -> None:
        await asyncio.gather(*(work() for _ in range(concurrency)))

    asyncio.run(main())


def compare(url: str, ledger: Ledger, *, concurrency: int, rounds: int, calls: int) -> None:
    """Print the median calls a second of both. A round before the first warms both up."""
    teacher = make_teacher(Teacher(model="openai/m", base_url=url, concurrency=concurrency, timeout_s=60.0))
    rates, cpu = [], []
    for _ in range(rounds + 1):
        numbers = range(ledger.spent("r").calls, ledger.spent("r").calls + calls)
        times = [(time.perf_counter(), time.process_time())]
        for way in (lambda: bare(url, numbers, concurrency=concurrency), lambda: ask(ledger, teacher, numbers)):  # noqa: B023
            way()
            times.append((time.perf_counter(), time.process_time()))
        walls, cpus = ([b - a for a, b in pairwise(column)] for column in zip(*times, strict=True))
        rates.append([calls / wall for wall in walls])
        cpu.append([1000 * used / calls for used in cpus])
    plain, ours = (statistics.median(column) for column in zip(*rates[1:], strict=True))
    plain_cpu, our_cpu = (statistics.median(column) for column in zip(*cpu[1:], strict=True))
    ratio = statistics.median(mine / theirs for theirs, mine in rates[1:])
    print(
        f"concurrency {concurrency}: bare litellm {plain:.0f} calls/s, with the ledger {ours:.0f}; median ratio "
        f"{ratio:.2f} over {rounds} rounds of {calls}: {' '.join(f'{b / a:.2f}' for a, b in rates[1:])}; "
        f"CPU a call {plain_cpu:.2f} and {our_cpu:.2f} ms"
    )


class Instant:
    """Answers at once, 64 in flight, without HTTP: 50,000 calls over HTTP would take minutes of LiteLLM's time."""

    room = 64

    def ask(self, requests: Iterable[Request]) -> Iterator[Reply]:
        source = iter(requests)
        while asked := [request for _, request in zip(range(self.room), source, strict=False)]:
            for left, request in zip(reversed(range(len(asked))), asked, strict=True):
                yield Reply(
                    request, "ok", text="x" * 400, input_tokens=60, output_tokens=100, raw="y" * 800,
                    more_at_hand=left > 0,
                )  # fmt: skip


def megabytes() -> float:
    """Resident memory of this process."""
    return float(psutil.Process(os.getpid()).memory_info().rss / 1e6)


def memory_and_cache(folder: Path) -> None:
    """Both through the same door and ledger, synchronous = FULL, by a teacher that answers at once."""
    with Ledger(folder / "instant.sqlite") as ledger:
        shown = []
        for first in range(0, MEMORY_CALLS, 10_000):
            started = time.perf_counter()
            ask(ledger, Instant(), range(first, first + 10_000))
            shown.append(f"{megabytes():.0f}")
        print(f"memory in MB after each 10,000 of {MEMORY_CALLS:,} calls, without HTTP: {' '.join(shown)}")
        print(f"the last 10,000: {10_000 / (time.perf_counter() - started):.0f} calls/s")
        ask(ledger, Instant(), range(MEMORY_CALLS, CACHED))
        for what in ("first", "second"):
            started = time.perf_counter()
            ask(ledger, Instant(), range(CACHED))
            print(f"{CACHED:,} cached requests, {what} time: {time.perf_counter() - started:.1f} s")
        started = time.perf_counter()
        assert ledger.check() == []
        print(f"check of {CACHED:,} attempts: {time.perf_counter() - started:.1f} s; memory {megabytes():.0f} MB")
    started = time.perf_counter()
    Ledger(folder / "instant.sqlite").close()
    print(f"opening it: {(time.perf_counter() - started) * 1000:.0f} ms")


def main(rounds: int = 5, calls: int = 1500) -> None:
    """Print everything."""
    with tempfile.TemporaryDirectory() as name:
        if rounds:
            with serving(LATENCY_S) as url, Ledger(Path(name, "calls.sqlite")) as ledger:
                for concurrency in (32, 128):
                    compare(url, ledger, concurrency=concurrency, rounds=rounds, calls=calls)
        if not os.environ.get("SKIP"):
            memory_and_cache(Path(name))


if __name__ == "__main__":
    main(*(int(value) for value in sys.argv[1:3]))
