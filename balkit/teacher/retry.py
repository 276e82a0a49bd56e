"""When requests are sent, and failed ones again. Retries wait in `Door`; a transport makes single attempts."""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from balkit.teacher.protocol import Request


@dataclass(frozen=True)
class Pace:
    """How patient a door is; seconds."""

    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0
    rate_limit_deadline_s: float = 600.0  # rate limited for so long without a success: the run pauses
    out_of_tries_in_a_row: int = 20  # so many requests failed for good, none succeeded between: the run pauses

    def backoff_s(self, failures: int) -> float:
        """Exponential, with jitter between half and the whole of it; `failures` counts from 1."""
        longest = min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(failures - 1, 30))
        return longest * random.uniform(0.5, 1.0)


class Retries:
    """Requests waiting for their next attempt, the earliest first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Request]] = []
        self._added = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, request: Request, *, wait_s: float) -> None:
        """Make it due after the wait."""
        self._added += 1
        heapq.heappush(self._heap, (time.monotonic() + wait_s, self._added, request))

    def due(self, *, all_of_them: bool = False) -> Request | None:
        """Take out one whose time has come; any one, where they are to go together."""
        if self._heap and (all_of_them or self._heap[0][0] <= time.monotonic()):
            return heapq.heappop(self._heap)[2]
        return None

    def wait_s(self) -> float:
        """Until the first is due; 0 where none waits."""
        return max(0.0, self._heap[0][0] - time.monotonic()) if self._heap else 0.0


class RateLimit:
    """What a teacher's 429s ask for: a pause of all requests, since a limit holds for the key."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._since: float | None = None  # the first 429 after the last success
        self._until = 0.0
        self._in_a_row = 0

    def succeeded(self) -> None:
        """A reply came through."""
        self._since = None
        self._in_a_row = 0

    def hit(self, retry_after_s: float | None) -> float:
        """Note a 429; returns the wait in seconds. Replies of one volley count as one."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now >= self._until:
            self._in_a_row += 1
        wait = retry_after_s if retry_after_s else self._pace.backoff_s(max(1, self._in_a_row))
        self._until = max(self._until, now + wait)
        return wait

    def wait_s(self) -> float:
        """Until requests may be sent again."""
        return max(0.0, self._until - time.monotonic())

    def hopeless(self) -> bool:
        """Whether the pause would end after the deadline."""
        return self._since is not None and self._until - self._since > self._pace.rate_limit_deadline_s


class Tempo:
    """Spaces requests so that no 60 seconds hold more requests or tokens than their limits (None: no limit).

    What a busy process missed it may catch up with, for one second; the spaces are a little longer to make up for it.
    """

    _CATCH_UP_S = 1.0

    def __init__(self, rpm: int | None, tpm: int | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = (rpm, tpm)
        self._clock = clock
        self._free_at = [float("-inf"), float("-inf")]

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return self._limits != (None, None)

    def wait_s(self) -> float:
        """Until the next request may leave."""
        return max(0.0, *(at - self._clock() for at in self._free_at))

    def sent(self, tokens: int) -> None:
        """Note that one left."""
        earliest = self._clock() - self._CATCH_UP_S
        for i, (limit, cost) in enumerate(zip(self._limits, (1, tokens), strict=True)):
            if limit is not None:
                self._free_at[i] = max(earliest, self._free_at[i]) + cost * (60 + self._CATCH_UP_S) / limit
