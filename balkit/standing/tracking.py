"""Where a run stands, from what it says of itself: what a panel shows and what status.json keeps."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from balkit.events import Calls, Event, Fill

_RATE_OVER_S = 60.0  # the rate is that of the last minute, so that a pause is seen and forgotten
_LOWEST = 5  # tail domains that are named

Key = tuple[int, str]  # stage, step


@dataclass(frozen=True)
class Part:
    """Rows of some domains: checked and in, answered and not checked yet, due; no domain counts beyond its quota."""

    rows: int
    answered: int
    due: int


@dataclass(frozen=True)
class Filled:
    """How full head and tail are. `lowest` are the least filled tail domains, as (domain, rows, due)."""

    head: Part
    tail: Part
    lowest: tuple[tuple[str, int, int], ...]

    @classmethod
    def of(cls, fill: Fill) -> Filled:
        """Summed over domains."""
        due = [domain for domain, rows in fill.due.items() if rows]
        tail = [domain for domain in due if domain in fill.tail]
        lacking = [domain for domain in tail if fill.rows.get(domain, 0) < fill.due[domain]]
        lacking.sort(key=lambda domain: (fill.rows.get(domain, 0) / fill.due[domain], domain))
        return cls(
            _part(fill, [domain for domain in due if domain not in fill.tail]),
            _part(fill, tail),
            tuple((domain, fill.rows.get(domain, 0), fill.due[domain]) for domain in lacking[:_LOWEST]),
        )


def _part(fill: Fill, domains: Collection[str]) -> Part:
    rows = {domain: min(fill.rows.get(domain, 0), fill.due[domain]) for domain in domains}
    answered = sum(min(fill.answered.get(domain, 0), fill.due[domain] - rows[domain]) for domain in domains)
    return Part(sum(rows.values()), answered, sum(fill.due[domain] for domain in domains))


@dataclass(frozen=True)
class Ended:
    """A step that is over."""

    stage: int
    step: str
    seconds: float
    done: int


@dataclass(frozen=True)
class Standing:
    """Where a run stands. See `events.Event`; the rate is a second, `left_s` of the step at that rate.

    `calls` are the last that were told of, `is_calling` whether they are of this step.
    """

    run_id: str
    name: str
    part: str
    stage: int
    stages: int
    step: str
    text: str
    done: int
    total: int
    calls: Calls | None
    is_calling: bool
    filled: Filled | None
    rate: float | None
    left_s: float | None
    elapsed_s: float
    ended: tuple[Ended, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Standing:
        """What `as_dict` gave. Raises KeyError or TypeError for anything else."""
        filled = body["filled"] and Filled(
            Part(**body["filled"]["head"]),
            Part(**body["filled"]["tail"]),
            tuple((str(domain), int(rows), int(due)) for domain, rows, due in body["filled"]["lowest"]),
        )
        calls = body["calls"] and Calls(**body["calls"])
        ended = tuple(Ended(**one) for one in body["ended"])
        return cls(**{**body, "filled": filled, "calls": calls, "ended": ended})


class Meter:
    """How fast a step goes, from what was said of it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[Key, deque[tuple[float, int]]] = {}

    def note(self, event: Event) -> None:
        """Remember how far it is now."""
        seen = self._seen.setdefault((event.stage, event.step), deque())
        if seen and event.done < seen[-1][1]:  # another count began: vectors, then calls
            seen.clear()
        seen.append((self._clock(), event.done))
        while seen[-1][0] - seen[0][0] > _RATE_OVER_S and len(seen) > 2:
            seen.popleft()

    def rate(self, event: Event) -> float | None:
        """Of the last minute, a second; None before there are two points in time."""
        (start, first), (now, last) = (self._seen[event.stage, event.step][at] for at in (0, -1))
        return (last - first) / (now - start) if now > start and last > first else None

    def left_s(self, event: Event) -> float | None:
        """Until a step's end at that rate."""
        rate = self.rate(event)
        return None if rate is None or event.total <= event.done else (event.total - event.done) / rate


class Tracker:
    """Follows a run's events; another run, or one that begins anew, starts it over."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._restart()

    def _restart(self) -> None:
        self._meter = Meter(self._clock)
        self._start = self._step_start = self._clock()
        self._last: Event | None = None
        self._calls: Calls | None = None
        self._fill: Fill | None = None
        self._ended: list[Ended] = []

    @property
    def key(self) -> Key | None:
        """The stage and step that it is in."""
        return None if self._last is None else (self._last.stage, self._last.step)

    def note(self, event: Event) -> None:
        """Take it up."""
        last = self._last
        if last is not None and (event.part != last.part or event.run_id not in ("", last.run_id)):
            self._restart()
        elif last is not None and self.key != (event.stage, event.step):
            seconds = self._clock() - self._step_start
            self._ended.append(Ended(last.stage, last.step, round(seconds, 1), last.done))
            self._step_start = self._clock()
        self._meter.note(event)
        self._last = event
        self._calls, self._fill = event.calls or self._calls, event.fill or self._fill

    def now(self) -> Standing:
        """After at least one event."""
        event = self._last
        assert event is not None
        return Standing(
            event.run_id,
            event.name,
            event.part,
            event.stage,
            event.stages,
            event.step,
            event.text,
            event.done,
            event.total,
            self._paused(event),
            event.calls is not None,
            None if self._fill is None else Filled.of(self._fill),
            self._meter.rate(event),
            self._meter.left_s(event),
            round(self._clock() - self._start, 1),
            tuple(self._ended),
        )

    def _paused(self, event: Event) -> Calls | None:
        """The last calls; a rate limit that was told of in an earlier step is over."""
        return self._calls if event.calls is not None or self._calls is None else replace(self._calls, paused_s=0.0)
