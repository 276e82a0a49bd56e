"""The one door to a teacher: cache, caps, reservations, retries. The transport behind it only makes single attempts."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Literal

from balkit.errors import CapReached, TeacherError, TeacherPaused, TeacherStopped
from balkit.recipe import Caps, Price
from balkit.teacher.batch import Batch
from balkit.teacher.batches import Journal
from balkit.teacher.caps import reached, worst_case
from balkit.teacher.prices import FREE, Rate, price_of
from balkit.teacher.protocol import Reply, Request, Teacher
from balkit.teacher.retry import Pace, RateLimit, Retries

if TYPE_CHECKING:
    from balkit.teacher.calls import Attempt, Ledger

_BATCH = 500  # requests looked up in the ledger together
_WAITING = 500  # retries that may wait before no fresh requests are sent
_BATCH_AHEAD = 50_000  # replies from the ledger that may wait while a provider's batch is gathered
_DISK_BYTES = 32 * 2**20  # kept free for the replies to what is in flight, and for DuckDB's last commit
_GOES_ON = "What was paid for is kept; the same command continues"


@dataclass(frozen=True)
class Progress:
    """Where a door stands, over all its asks. `failed` counts requests; the cost is what its attempts were charged."""

    done: int = 0  # replies handed out, the cached and the failed among them
    cached: int = 0
    sent: int = 0  # attempts
    failed: int = 0
    tokens: int = 0  # read and written in replies bought now
    cost_microusd: int = 0
    paused_s: float = 0.0  # how long a rate limit lasts from now

    @classmethod
    def sum(cls, parts: Sequence[Progress]) -> Progress:
        """Of several doors together; they pause as long as the one that pauses longest."""
        *counts, paused = zip(*(astuple(part) for part in parts), strict=True)
        return replace(cls(*map(sum, counts)), paused_s=max(paused))


@dataclass(frozen=True)
class Terms:
    """Under which run, price, caps and patience a teacher is asked. `tries` counts attempts of one request."""

    run_id: str
    price: Price | Literal["free"] | None
    model: str
    caps: Caps
    tries: int
    progress: Callable[[Progress], None] | None
    pace: Pace


class Door:
    """Asks one teacher for one run. Made by `Ledger.door`."""

    def __init__(self, ledger: Ledger, teacher: Teacher, *, terms: Terms) -> None:
        self._ledger = ledger
        self._teacher = teacher
        self._terms = terms
        self._so_far = Progress()

    def ask(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """One reply (`ok` or `permanent`) for every request, in completion order; from the ledger where it can be.

        Equal requests are bought once. Requests are read up to 500 ahead. Whatever ends it, what was completed has been
        yielded before; closing the iterator waits for what is in flight and keeps it.
        Raises `CapReached`, `TeacherStopped`, `TeacherPaused`, `PriceUnknown`, `PoolLocked`.
        """
        with self._ledger.paying(money=not is_free(self._teacher)):
            asking = _Asking(self._ledger, self._teacher, terms=self._terms, requests=requests, progress=self._so_far)
            try:
                yield from asking.replies()
            finally:
                self._so_far = asking.progress


class _Asking:
    """One `ask`, in passes: a pass lets the teacher pull requests until there is a reason to pause, then drains it."""

    def __init__(
        self, ledger: Ledger, teacher: Teacher, *, terms: Terms, requests: Iterable[Request], progress: Progress
    ) -> None:
        self._ledger = ledger
        self._teacher = teacher
        self._terms = terms
        self._source = iter(requests)
        self._lock = threading.RLock()  # a teacher may pull in a thread of its own
        self._fresh: deque[Request] = deque()
        self._out: deque[Reply] = deque()
        self._asked_by: dict[str, list[Request]] = {}  # key -> equal requests that wait for its reply
        self._ready: deque[Attempt] = deque()  # noted as sent, the teacher pulls them next
        self._in_flight: dict[str, Attempt] = {}
        self._batching = isinstance(teacher, Batch)
        self._journal = Journal(ledger, self._in_flight)
        if isinstance(teacher, Batch):
            teacher.journal = self._journal
        self._retries = Retries()
        self._failures: dict[str, int] = {}  # key -> attempts that used up a try
        self._refused: dict[str, Reply] = {}  # permanent failures
        self._given_up: set[str] = set()  # keys out of tries
        self._given_up_in_a_row = 0
        self._last_error = ""
        self._failed_in_a_row, self._failed_by = 0, ""  # attempts since the teacher last answered, and the last error
        self._limit = RateLimit(terms.pace)
        self._pulls = 0  # of this pass
        self._over: CapReached | None = None  # a cap that the next request would pass, with requests in flight
        self._end: TeacherError | None = None
        self._rate: Rate | None = None
        self.progress = progress

    def replies(self) -> Iterator[Reply]:
        """Pass after pass, until everything is answered or nothing can go on."""
        while self._more():
            yield from self._take()
            if self._fresh or len(self._retries):
                self._rate = self._rate or self._price()
                self._pulls = 0
                yield from self._pass()
                if not self._pulls:
                    raise TeacherStopped(f"the teacher {type(self._teacher).__name__} ended without pulling a request")
        yield from self._take()
        if self._end is not None:
            raise self._end
        if self._given_up:
            raise TeacherPaused(
                f"{len(self._given_up)} calls ran out of {self._terms.tries} tries; the last said: "
                f"{_told(self._last_error)} No row was rejected for it. {_GOES_ON} and asks them again"
            )

    def _more(self) -> bool:
        """Whether anything is left to do; waits out a pause. Nothing is in flight here."""
        if self._end is None and self._over is not None and self._blocked_by_cap():
            self._end = self._explained(self._over)
        self._over = None
        if self._end is not None:
            return False
        if len(self._retries) < _WAITING and (self._fresh or self._load()):
            time.sleep(self._limit.wait_s())
            return True
        time.sleep(max(self._retries.wait_s(), self._limit.wait_s()))
        return len(self._retries) > 0

    def _pass(self) -> Iterator[Reply]:
        replies = iter(self._teacher.ask(_Feed(self._next, self._wait_s)))
        try:
            for reply in replies:
                self._settle(reply)
                if not reply.more_at_hand:
                    self._ledger.flush()
                    self._report()
                    yield from self._take()
        except GeneratorExit:
            self._end = self._end or TeacherPaused("nobody listens any more")
            if not self._ledger.closed and not self._batching:
                for reply in replies:
                    self._settle(reply)
            raise
        except BaseException:
            if isinstance(replies, Generator):
                replies.close()
            raise
        finally:
            self._take_back()
        for attempt in list(self._in_flight.values()):
            self._settle(Reply(attempt.request, "unknown", error="the teacher brought no reply"))
        self._ledger.flush()

    def _take(self) -> Iterator[Reply]:
        while self._out:
            yield self._out.popleft()

    # What the teacher pulls

    def _next(self) -> Request | None:
        """The next request to send, reserved and noted as sent; None ends the pass."""
        with self._lock:
            self._pulls += 1
            if not self._ready:
                self._make_ready()
            if self._end is not None or self._limit.wait_s() > 0 or not self._ready:
                return None
            attempt = self._ready.popleft()
            self._in_flight[attempt.request.key] = attempt
            return attempt.request

    def _wait_s(self) -> float:
        return 0.0 if self._end is not None else self._limit.wait_s()

    def _make_ready(self) -> None:
        """Reserve, note as sent and commit together as many requests as the teacher has room for."""
        self._ledger.flush()  # replies first: a request is looked up before it is bought
        if (free := self._ledger.free_bytes()) < _DISK_BYTES:
            self._end = self._end or TeacherPaused(
                f"{self._ledger.path}: the disk is nearly full ({free // 2**20} MiB left, {_DISK_BYTES // 2**20} are "
                f"kept for replies that are on their way); make room. {_GOES_ON}"
            )
        room = max(1, getattr(self._teacher, "room", 1))
        while len(self._ready) < room and self._end is None and self._over is None and not self._limit.wait_s() > 0:
            request = self._retries.due(all_of_them=self._batching) or self._next_fresh()
            attempt = self._attempt_for(request) if request is not None else None
            if attempt is None:
                break
            self._ready.append(attempt)
        self._ledger.flush()

    def _attempt_for(self, request: Request) -> Attempt | None:
        held = self._ledger.batches.held(request.key)
        if held is not None and not self._batching:
            self._end = TeacherStopped(_held_message(request))
            return None
        attempt = held or self._send(request)
        if attempt is None:
            self._fresh.appendleft(request)
        return attempt

    def _take_back(self) -> None:
        """What the teacher did not pull has not left."""
        while self._ready and not self._ledger.closed:
            attempt = self._ready.pop()
            if self._ledger.batches.held(attempt.request.key) is None:
                self._ledger.take_back(attempt)
                self._count(sent=-1)
            self._fresh.appendleft(attempt.request)

    def _send(self, request: Request) -> Attempt | None:
        """Reserved, and noted as sent unless it is gathered for a batch; None where a cap forbids it."""
        assert self._rate is not None
        need = worst_case(request, self._rate)
        totals = self._ledger.totals(self._terms.run_id)
        self._over = reached(self._terms.caps, totals, request=request, need=need)
        if self._over is not None:
            return None
        self._count(sent=1)
        return self._ledger.send(
            request, run_id=self._terms.run_id, rate=self._rate, reserved=need, leaves_now=not self._batching
        )

    def _blocked_by_cap(self) -> bool:
        """Whether the next request still passes a cap, now that all reservations are settled."""
        assert self._rate is not None
        request, totals = self._fresh[0], self._ledger.totals(self._terms.run_id)
        self._over = reached(self._terms.caps, totals, request=request, need=worst_case(request, self._rate))
        return self._over is not None

    def _next_fresh(self) -> Request | None:
        if len(self._retries) >= _WAITING:
            return None
        while True:
            while not self._fresh:
                if len(self._out) >= (_BATCH_AHEAD if self._batching else _BATCH) or not self._load():
                    return None
            request = self._fresh.popleft()
            if not self._answered_meanwhile(request):
                return request

    def _answered_meanwhile(self, request: Request) -> bool:
        """A request that waits here may be a line of an earlier batch, which was read while others were waited for."""
        if request.key not in self._journal.kept:
            return False
        found = self._ledger.answers([request]).get(request.key)
        if found is not None:
            self._ledger.use([request], run_id=self._terms.run_id)
            self._answer(found)
        return found is not None

    def _load(self) -> bool:
        """Read requests; answer those that the ledger knows. False when there are no more."""
        batch = list(islice(self._source, _BATCH))
        known = self._ledger.answers([request for request in batch if request.key not in self._asked_by])
        used = []
        for request in batch:
            if request.key in self._asked_by:
                self._asked_by[request.key].append(request)
            elif request.key in known:
                used.append(request)
                self._hand_out(replace(known[request.key], request=request))
            elif request.key in self._refused:
                self._hand_out(replace(self._refused[request.key], request=request))
            elif request.key not in self._given_up:
                self._asked_by[request.key] = [request]
                self._fresh.append(request)
        if used:
            self._ledger.use(used, run_id=self._terms.run_id)
            self._report()
        return bool(batch)

    # What it brings back

    def _settle(self, reply: Reply) -> None:
        """Keep a reply on disk, then decide what follows from it."""
        with self._lock:
            attempt = self._in_flight.pop(reply.request.key, None)
            if attempt is None:
                raise TeacherStopped(
                    f"the teacher {type(self._teacher).__name__} brought a second reply, or one that nobody asked for, "
                    f"to request {reply.request.key[:12]}. {_GOES_ON}"
                )
            settled = self._ledger.settle(attempt, replace(reply, request=attempt.request))
            if attempt.run_id != self._terms.run_id:  # another run had put it into a batch
                self._ledger.use([attempt.request], run_id=self._terms.run_id)
            self._count(cost_microusd=settled.reply.cost_microusd)
            if settled.overrun:
                self._end = self._end or TeacherStopped(_overrun_message(attempt, settled.reply))
            self._follow(settled.reply)

    def _follow(self, reply: Reply) -> None:
        if reply.outcome == "ok":
            self._limit.succeeded()
            self._given_up_in_a_row = self._failed_in_a_row = 0
            self._answer(reply)
        elif reply.outcome == "permanent":
            self._refused[reply.request.key] = replace(reply, raw="")
            self._failed_in_a_row = 0
            self._answer(reply)
        elif reply.outcome == "stop":
            self._end = TeacherStopped(
                f"the teacher {reply.request.endpoint!r} stopped: {_told(reply.error)} {_GOES_ON}"
            )
        elif reply.outcome == "rate_limited":
            self._wait_for_limit(reply)
        else:
            self._try_again(reply)

    def _answer(self, reply: Reply) -> None:
        key = reply.request.key
        self._failures.pop(key, None)
        first, *others = self._asked_by.pop(key)
        self._hand_out(replace(reply, request=first))
        for request in others:
            self._hand_out(replace(reply, request=request, cached=reply.outcome == "ok", cost_microusd=0))

    def _wait_for_limit(self, reply: Reply) -> None:
        self._last_error = reply.error or self._last_error
        self._retries.add(reply.request, wait_s=self._limit.hit(reply.retry_after_s))
        if self._limit.hopeless():
            self._end = self._end or TeacherPaused(
                f"the teacher {reply.request.endpoint!r} limits the rate and would not answer before "
                f"{self._limit.wait_s():,.0f} s from now: {_told(reply.error)} {_GOES_ON}"
            )

    def _try_again(self, reply: Reply) -> None:
        key = reply.request.key
        self._last_error = reply.error or self._last_error
        self._failed_in_a_row += 1
        self._failed_by = reply.error or self._failed_by
        self._failures[key] = failures = self._failures.get(key, 0) + 1
        if failures < self._terms.tries:
            self._retries.add(reply.request, wait_s=self._terms.pace.backoff_s(failures))
            return
        self._given_up.add(key)
        self._given_up_in_a_row += 1
        self._count(failed=len(self._asked_by.pop(key)))
        if self._given_up_in_a_row >= self._terms.pace.out_of_tries_in_a_row:
            self._end = self._end or TeacherPaused(
                f"{self._given_up_in_a_row} calls in a row ran out of {self._terms.tries} tries; the last said: "
                f"{_told(self._last_error)} {_GOES_ON} and asks them again"
            )

    # The rest

    def _explained(self, over: CapReached) -> CapReached:
        """A cap that calls to a dead teacher used up needs no raising: say what they met."""
        if self._failed_in_a_row <= 1:
            return over
        met, cap = f"each of the last {self._failed_in_a_row:,} calls failed: {_told(self._failed_by)}", str(over)
        return CapReached(f"{met} {cap[0].upper()}{cap[1:]}", cap=over.cap, limit=over.limit, spent=over.spent)

    def _hand_out(self, reply: Reply) -> None:
        self._out.append(reply)
        self._count(
            done=1,
            cached=int(reply.cached),
            failed=int(reply.outcome != "ok"),
            tokens=0 if reply.cached else reply.input_tokens + reply.output_tokens,
        )

    def _count(self, **more: int) -> None:
        changed = {name: getattr(self.progress, name) + n for name, n in more.items()}
        self.progress = replace(self.progress, **changed)

    def _report(self) -> None:
        if self._terms.progress is not None:
            self._terms.progress(replace(self.progress, paused_s=self._limit.wait_s()))

    def _price(self) -> Rate:
        if self._terms.price is None and is_free(self._teacher):
            return FREE
        rate = price_of(self._terms.model, self._terms.price)
        return rate.halved() if self._batching else rate


class _Feed:
    """The requests of one pass. A teacher that heeds `wait_s` before it pulls goes on after a pause."""

    def __init__(self, pull: Callable[[], Request | None], wait_s: Callable[[], float]) -> None:
        self._pull = pull
        self.wait_s = wait_s

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> Request:
        request = self._pull()
        if request is None:
            raise StopIteration
        return request


def is_free(teacher: Teacher) -> bool:
    """Whether a teacher says of itself that its answers cost nothing and can be had again (`is_free = True`)."""
    return bool(getattr(teacher, "is_free", False))


def _told(error: str) -> str:
    return f"{error.rstrip(' .')}."


def _held_message(request: Request) -> str:
    return (
        f"request {request.key[:12]} of the teacher {request.endpoint!r} is in a batch that was not fetched yet, and "
        "may be paid for. Set teacher.transport: batch to fetch it, or give it up with "
        f"`balkit calls retry POOL {request.key[:12]}`. {_GOES_ON}"
    )


def _overrun_message(attempt: Attempt, reply: Reply) -> str:
    return (
        f"the teacher {attempt.request.endpoint!r} reports {reply.input_tokens} + {reply.output_tokens} tokens for a "
        f"call whose worst case is {attempt.reserved.tokens} (max_tokens {attempt.request.max_tokens}), so a cap could "
        f"be passed unnoticed. It is stored as an overrun. {_GOES_ON}; see first whether the model ignores max_tokens"
    )
