"""What survives a kill, and that no prefix of the ledger ever passes a cap."""

from __future__ import annotations

import itertools
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from teacher_server import Say, TeacherServer

from balkit.errors import CapReached, PoolLocked, TeacherPaused, TeacherStopped
from balkit.recipe import Caps, Limits, Price
from balkit.teacher import Ledger, Pace, Reply, Request, Scripted
from balkit.teacher.caps import Amount, worst_case
from balkit.teacher.prices import price_of

PRICE = Price(input_usd_per_mtok=3.0, output_usd_per_mtok=15.0)
FAST = Pace(first_wait_s=0.0, longest_wait_s=0.0, rate_limit_deadline_s=5.0)


def request(i: int, *, domain: str = "d", stage: int = 1, max_tokens: int = 60) -> Request:
    return Request(
        "rationale", "teacher", "m", (("user", f"q{i}"),), "t", 0, max_tokens, 0.5, domain=domain, stage=stage
    )


def events(path: Path) -> list[tuple[int, str, str, int, int, int]]:
    """(attempt, state, stage/domain, calls, tokens, micro-dollars) of every event, in order."""
    columns = "attempt, state, stage || '/' || domain, calls, tokens, microusd"
    with sqlite3.connect(path) as db:
        return db.execute(f"SELECT {columns} FROM events JOIN attempts USING (attempt) ORDER BY seq").fetchall()


def states(path: Path) -> Counter[str]:
    """How many attempts ended in each state."""
    return Counter({attempt: state for attempt, state, *_ in events(path)}.values())


class Windowed:
    """Pulls `width` requests at once and answers them in reverse, by a cycle of outcomes and shares of the most."""

    is_free = True

    def __init__(self, width: int, outcomes: list[tuple[str, float]], *, bursts: bool = True) -> None:
        self._bursts = bursts
        self._width = self.room = width
        self.answered = 0
        self._outcomes = itertools.cycle(outcomes)

    def ask(self, requests: Iterable[Request]) -> Iterator[Reply]:
        source = iter(requests)
        while pulled := list(itertools.islice(source, self._width)):
            for left, asked in reversed(list(enumerate(pulled))):
                outcome, share = next(self._outcomes)
                most = worst_case(asked, price_of("m", PRICE)).tokens - asked.max_tokens
                read, written = int(most * share), int(asked.max_tokens * share)
                self.answered += 1
                yield Reply(
                    asked, outcome, text="t", input_tokens=read, output_tokens=written,  # type: ignore[arg-type]
                    more_at_hand=self._bursts and left > 0,
                )  # fmt: skip


OUTCOMES = ["ok", "ok", "ok", "transient", "unknown", "permanent", "rate_limited"]
LIMITS = st.builds(
    Limits,
    calls=st.none() | st.integers(1, 12),
    tokens=st.none() | st.integers(300, 6000),
    usd=st.none() | st.floats(0.0005, 0.03),
)


@settings(max_examples=40)
@given(
    run=LIMITS,
    stage=LIMITS,
    domain=LIMITS,
    width=st.integers(1, 5),
    outcomes=st.lists(st.tuples(st.sampled_from(OUTCOMES), st.floats(0, 1)), min_size=1, max_size=9),
    asked=st.lists(st.tuples(st.integers(0, 9), st.sampled_from("ab"), st.integers(1, 2)), max_size=15),
)
def test_no_prefix_of_the_ledger_passes_a_cap(
    run: Limits,
    stage: Limits,
    domain: Limits,
    width: int,
    outcomes: list[tuple[str, float]],
    asked: list[tuple[int, str, int]],
) -> None:
    caps = Caps(**run.model_dump(), per_stage=stage, per_domain=domain)
    requests = [request(i, domain=d, stage=s) for i, d, s in asked]
    pace = Pace(first_wait_s=0.0, longest_wait_s=0.0, rate_limit_deadline_s=0.02)
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder, "calls.sqlite")) as ledger:
        teacher = Windowed(width, outcomes)
        door = ledger.door(teacher, run_id="r", price=PRICE, model="m", caps=caps, tries=3, pace=pace)
        replies, whole = 0, False
        try:
            for _ in door.ask(requests):
                replies += 1
            whole = True
        except (CapReached, TeacherPaused, TeacherStopped):
            pass
        assert not whole or replies == len(requests)
        _assert_held(events(ledger.path), caps)
        assert ledger.check() == []


def _assert_held(rows: list[tuple[int, str, str, int, int, int]], caps: Caps) -> None:
    charged: dict[str, Amount] = {}
    for _, _, where, *change in rows:
        stage, domain = where.split("/")
        for scope, limits in (("run", caps), (f"s{stage}", caps.per_stage), (f"d{domain}", caps.per_domain)):
            sums = charged[scope] = charged.get(scope, Amount()).plus(Amount(*change))
            assert sums.calls <= (limits.calls or sums.calls)
            assert sums.tokens <= (limits.tokens or sums.tokens)
            assert sums.cost_microusd <= (limits.usd * 1e6 if limits.usd else sums.cost_microusd)


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    head = """
    import sys
    from balkit.recipe import Caps, Price, Teacher
    from balkit.teacher import Ledger, Request, Scripted, make_teacher
    def request(i):
        return Request("rationale", "teacher", "m", (("user", f"q{i}"),), "t", 0, 60, 0.5, domain="d", stage=1)
    price = Price(input_usd_per_mtok=3.0, output_usd_per_mtok=15.0)
    """
    code = textwrap.dedent(head) + textwrap.dedent(script)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, env=environment
    )


def kill(process: subprocess.Popen[str]) -> list[str]:
    """End it as a power cut would, and give back the whole lines that it had printed."""
    os.kill(process.pid, signal.SIGKILL)
    assert process.stdout is not None
    printed = process.stdout.read()
    process.wait()
    return printed.split("\n")[:-1]


@pytest.mark.parametrize("delay_s", [0.0, 0.05, 0.15])
def test_what_was_handed_out_before_a_kill_is_kept(tmp_path: Path, delay_s: float) -> None:
    path = tmp_path / "calls.sqlite"
    process = start(
        """
        door = Ledger(sys.argv[1]).door(
            Scripted(lambda r: "x" * 50), run_id="r", price=price, model="m", caps=Caps(calls=100000), tries=3)
        for reply in door.ask(request(i) for i in range(100000)):
            print(reply.request.key, flush=True)
        """,
        str(path),
    )
    assert process.stdout is not None
    first = process.stdout.readline().strip()
    time.sleep(delay_s)
    keys = [first, *kill(process)]
    with Ledger(path) as ledger:
        with ledger.paying():
            pass
        assert ledger.cached(keys) == set(keys)
        assert ledger.check() == []
        assert states(path)["unknown"] <= 1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.long
def test_ctrl_c_at_any_moment_leaves_a_sound_ledger_and_the_cap_holds_over_the_runs(tmp_path: Path, seed: int) -> None:
    path, served, rng = tmp_path / "calls.sqlite", 0, random.Random(seed)
    for last in (False, False, False, True):
        process = start(
            """
            import os
            from balkit.errors import CapReached
            from test_teacher_crash import Windowed
            import signal
            teacher = Windowed(100, [("ok", 0.5)])
            try:
                print("ready", flush=True)
                door = Ledger(sys.argv[1]).door(
                    teacher, run_id="r", price=price, model="m", caps=Caps(calls=4000), tries=3)
                for reply in door.ask(request(i) for i in range(100000)):
                    pass
            except (KeyboardInterrupt, CapReached):
                pass
            finally:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                print(teacher.answered, flush=True)
                os._exit(0)
            """,
            str(path),
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if not last:
            time.sleep(rng.uniform(0.02, 0.3))
            process.send_signal(signal.SIGINT)
        served += int(process.communicate()[0])
        with Ledger(path) as ledger:
            assert ledger.check() == []
    assert 0 < served <= 4000
    with Ledger(path) as ledger:
        assert ledger.spent("r").calls == 4000


@pytest.mark.long
def test_a_killed_remote_run_keeps_its_cap_and_leaves_only_its_window_unknown(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    with TeacherServer(lambda i: Say(latency_s=0.05)) as server:
        process = start(
            """
            teacher = make_teacher(Teacher(model="openai/m", base_url=sys.argv[2], concurrency=4))
            door = Ledger(sys.argv[1]).door(teacher, run_id="r", price=price, model="m", caps=Caps(calls=60), tries=3)
            for reply in door.ask(request(i) for i in range(1000)):
                print(reply.request.key, flush=True)
            """,
            str(path),
            server.url,
        )
        assert process.stdout is not None
        first = [process.stdout.readline().strip() for _ in range(10)]
        keys = first + kill(process)
        with Ledger(path) as ledger:
            door = ledger.door(
                Scripted(lambda r: "again"), run_id="r", price=PRICE, model="m", caps=Caps(calls=60), tries=3, pace=FAST
            )
            with pytest.raises(CapReached):
                list(door.ask(request(i) for i in range(1000)))
            assert ledger.cached(keys) == set(keys)
            assert ledger.spent("r").calls == 60
            assert ledger.check() == []
        ended = states(path)
        assert ended["unknown"] <= 4
        assert len(server.received) <= 60


def test_what_a_crash_left_reserved_is_released_and_what_it_left_sent_stays_charged(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    worst = Amount(1, 500, 700)
    with Ledger(path) as ledger:
        first = ledger.send(request(1), run_id="r", rate=price_of("m", PRICE), reserved=worst)
        ledger.send(request(2), run_id="r", rate=price_of("m", PRICE), reserved=worst)
        ledger.flush()
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM events WHERE attempt = ? AND state = 'sent'", (first.attempt,))
    with Ledger(path) as ledger:
        assert ledger.spent("r").calls == 2
        with ledger.paying():
            pass
        assert (ledger.spent("r").calls, ledger.spent("r").cost_microusd) == (1, 700)
        assert sorted(ledger.calls()["status"]) == ["failed", "unknown"]


def test_a_ledger_has_one_payer_and_any_number_of_readers(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    with Ledger(path) as payer, Ledger(path) as other, payer.paying():
        assert other.spent("r").calls == 0
        with pytest.raises(PoolLocked) as caught, other.paying():
            pass
        assert caught.value.pid == os.getpid()
    with Ledger(path) as later, later.paying():
        pass


def test_a_closed_ledger_can_be_paid_from_again_though_an_ask_was_left_half_read(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    terms = {"run_id": "r", "price": PRICE, "model": "m", "caps": Caps(), "tries": 1}
    ledger = Ledger(path)
    left_open = ledger.door(Windowed(3, [("ok", 0.5)], bursts=False), **terms).ask(request(i) for i in range(9))  # type: ignore[arg-type]
    next(left_open)
    ledger.close()
    with Ledger(path) as again:
        door = again.door(Scripted(lambda r: "t"), **terms)  # type: ignore[arg-type]
        assert len(list(door.ask(request(i) for i in range(9)))) == 9
        assert states(path) == {"succeeded": 9, "unknown": 2}
        left_open.close()  # type: ignore[attr-defined]


def test_a_reader_sees_what_another_connection_spent(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    with Ledger(path) as one, Ledger(path) as two:
        for ledger, i in ((one, 1), (two, 2), (one, 3)):
            door = ledger.door(Scripted(["t"]), run_id="r", price=PRICE, model="m", caps=Caps(calls=3), tries=1)
            list(door.ask([request(i)]))
        door = two.door(Scripted(["t"]), run_id="r", price=PRICE, model="m", caps=Caps(calls=3), tries=1)
        with pytest.raises(CapReached):
            list(door.ask([request(4)]))
