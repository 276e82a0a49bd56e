"""Requests and tokens a minute."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from teacher_server import TeacherServer

from balkit import recipe
from balkit.teacher import Request, make_teacher
from balkit.teacher.caps import estimated_usage
from balkit.teacher.retry import Tempo


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@settings(max_examples=60)
@given(
    rpm=st.none() | st.integers(1, 200),
    tpm=st.none() | st.integers(100, 10_000),
    sizes=st.lists(st.integers(1, 90), min_size=1, max_size=400),
    late_s=st.sampled_from([0.0, 0.01, 0.4, 3.0]),
)
def test_no_sixty_seconds_hold_more_than_the_limits(
    rpm: int | None, tpm: int | None, sizes: list[int], late_s: float
) -> None:
    clock = Clock()
    tempo, sent = Tempo(rpm, tpm, clock=clock), list[tuple[float, int]]()
    for i, size in enumerate(sizes):
        clock.now += tempo.wait_s() + (late_s if i % 7 == 0 else 0.0)
        assert tempo.wait_s() < 1e-6
        tempo.sent(size)
        sent.append((clock.now, size))
    for start, _ in sent:
        within = [size for at, size in sent if start <= at < start + 60 - 1e-6]
        assert rpm is None or len(within) <= rpm + 1  # the clocks' rounding
        assert tpm is None or sum(within) <= tpm + 90


def test_a_limit_is_used_up_almost_whole() -> None:
    clock = Clock()
    tempo = Tempo(600, None, clock=clock)
    for _ in range(6000):
        clock.now += tempo.wait_s()
        tempo.sent(1)
    assert clock.now - 1000 < 600 * 1.03


@pytest.mark.parametrize("limits", [{"rpm": 600}, {"tpm": 600 * 51}])
def test_a_remote_teacher_keeps_to_its_limits(limits: dict[str, int]) -> None:
    asked = [Request("vote", "t", "m", (("user", "q"),), "t", i, 50, 0.5) for i in range(20)]
    assert estimated_usage(asked[0]) == 51
    with TeacherServer() as server:
        section = recipe.Teacher(model="openai/m", base_url=server.url, concurrency=20, **limits)  # type: ignore[arg-type]
        started = time.monotonic()
        replies = list(make_teacher(section).ask(asked))
        elapsed = time.monotonic() - started
    assert [reply.outcome for reply in replies] == ["ok"] * 20
    assert elapsed >= 9 * 0.1  # ten at once for the second that may be caught up with, then one every 102 ms


def test_without_limits_nothing_waits() -> None:
    tempo = Tempo(None, None)
    tempo.sent(10**9)
    assert tempo.wait_s() == 0
