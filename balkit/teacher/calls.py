"""calls.sqlite: every attempt to call the teacher, its money and its raw reply. The only SQL of this room.

An attempt goes `reserved -> sent -> succeeded | failed | unknown`, each step an appended row. What is noted together is
committed together (`flush`): `sent` before any of its requests leaves, replies before anyone reads them. After a
crash, `sent` without a reply is `unknown` and stays charged; `reserved` alone never left and is released. What is in a
batch of the provider's stays `sent` over the ends of processes, until it is fetched (`batches`).
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import polars as pl

from balkit import frames
from balkit.recipe import Caps, Price
from balkit.teacher.batches import Batches
from balkit.teacher.caps import Amount, Spent, Totals
from balkit.teacher.chain import Chain, problems_of
from balkit.teacher.door import Door, Progress, Terms
from balkit.teacher.ledger_file import Row, connect, insert, sql, translated
from balkit.teacher.lock import Lock
from balkit.teacher.prices import Rate
from balkit.teacher.protocol import Reply, Request, Teacher
from balkit.teacher.reading import ABSURD
from balkit.teacher.retry import Pace

_NOTHING = Amount()


@dataclass(frozen=True)
class Attempt:
    """A reservation whose request is on its way."""

    attempt: int
    request: Request
    run_id: str
    rate: Rate
    reserved: Amount


@dataclass(frozen=True)
class Settled:
    """A reply with its cost. `overrun`: the usage it reports is above what was reserved."""

    reply: Reply
    overrun: bool


class Ledger:
    """The ledger in one SQLite file, made where it is missing. Any number of readers; one payer (`paying`).

    Opening reads no rows; `check` reads them all.

    Raises `PoolDamaged` for a file that is no ledger, `PoolError` for one by a newer balkit or a failing disk.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = Lock(self.path.with_name(self.path.name + ".lock"))
        self._payers = 0
        self._totals: dict[str, Totals] = {}
        self._closed_to = 0  # every attempt up to this number has ended
        self._seen = -1  # changes by other connections that the totals include
        self._mutex = threading.RLock()
        self._noted: list[tuple[str, Row]] = []  # rows of the next commit, each with where it goes
        self._last_attempt: int | None = None
        self._chain = Chain()
        self._db = connect(self.path)
        self.batches = Batches(self._read, self._write)
        self.closed = False
        if not self._read(sql("tip")) and self._read("SELECT 1 FROM events LIMIT 1"):
            with self._write():  # a file from before the chain gets its first link
                pass

    def close(self) -> None:
        """Close the file and free the payer's lock, even where an `ask` was left half read (a notebook's traceback)."""
        with self._mutex:
            if not self.closed and self._payers:
                self._stop_paying()
            self.closed = True
            self._db.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def door(
        self,
        teacher: Teacher,
        *,
        run_id: str,
        price: Price | Literal["free"] | None,
        model: str,
        caps: Caps,
        tries: int,
        progress: Callable[[Progress], None] | None = None,
        pace: Pace | None = None,
    ) -> Door:
        """The one way to a teacher: `Door.ask`. Nothing is locked or looked up before the first request."""
        terms = Terms(
            run_id=run_id, price=price, model=model, caps=caps, tries=tries, progress=progress, pace=pace or Pace()
        )
        return Door(self, teacher, terms=terms)

    # Reading

    def cached(self, keys: Iterable[str]) -> set[str]:
        """Those of the keys that have a paid reply."""
        return set(self._answers(keys))

    def answers(self, requests: Sequence[Request]) -> dict[str, Reply]:
        """Paid replies by key, as `cached` replies that cost nothing now."""
        found = self._answers(request.key for request in requests)
        return {r.key: _from_row(r, found[r.key]) for r in requests if r.key in found}

    def spent(self, run_id: str) -> Spent:
        """What all attempts of a run are charged so far, over all processes. Cached replies use up nothing."""
        return self._read_totals(run_id).spent()

    def calls(self, run_id: str | None = None) -> pl.DataFrame:
        """frames.CALLS, one row per key and run, sorted by run and key.

        `status`: succeeded, failed, unknown (charged in full), cached (answered by another run's call: no tokens, no
        cost). Tokens are those reported; the cost is what the key's attempts are charged together.
        """
        rows = self._read(sql("calls"), {"run_id": run_id})
        return frames.CALLS.of([dict(zip(frames.CALLS.columns, row, strict=True)) for row in rows])

    def check(self) -> list[str]:
        """What is wrong with the ledger, one line each; attempts that are open now are not wrong."""
        return problems_of(self.path)

    # Paying

    @contextmanager
    def paying(self, *, money: bool = True) -> Iterator[None]:
        """Hold the payer's lock. What an earlier payer, or this one, left open is settled as the module says.

        Without `money` a power cut may take the last calls with it (a crash of balkit may not), which spares a disk
        flush per step. Raises `PoolLocked` while another process pays. May be entered again by the same ledger.
        """
        with self._mutex:
            if self._payers == 0:
                self._lock.acquire()
                try:
                    self._begin_paying()
                except BaseException:
                    self._lock.release()
                    raise
            if money:
                self._db.execute("PRAGMA synchronous = FULL")
            self._payers += 1
        try:
            yield
        finally:
            with self._mutex:
                self._payers -= 1
                if self._payers == 0 and not self.closed:
                    self._stop_paying()

    def free_bytes(self) -> int:
        """What the disk under the ledger still takes."""
        return shutil.disk_usage(self.path.parent).free

    def totals(self, run_id: str) -> Totals:
        """The run's sums, kept current while paying."""
        with self._mutex:
            if run_id not in self._totals:
                self.flush()  # sums are read from the file
                self._totals[run_id] = self._read_totals(run_id)
            return self._totals[run_id]

    def send(self, request: Request, *, run_id: str, rate: Rate, reserved: Amount, leaves_now: bool = True) -> Attempt:
        """Reserve and note as sent. The request may leave after the next `flush`, unless it waits for a batch."""
        with self._mutex:
            if self._last_attempt is None:
                self._last_attempt = self._read("SELECT coalesce(max(attempt), 0) FROM attempts")[0][0]
            number = self._last_attempt = self._last_attempt + 1
            labels = (request.purpose, request.endpoint, request.model, request.domain, request.stage)
            prices = (rate.input_picousd, rate.output_picousd)
            self._noted += [
                ("OR IGNORE INTO requests", (request.key, _body(request))),
                ("INTO attempts", (number, request.key, run_id, *labels, request.example_id, *prices)),
                _event(number, state="reserved", change=reserved),
            ]
            if leaves_now:
                self._noted.append(_event(number, state="sent", change=_NOTHING))
            self._charge(run_id, reserved, request=request)
        return Attempt(number, request, run_id, rate, reserved)

    def settle(self, attempt: Attempt, reply: Reply) -> Settled:
        """Note the reply, and what it cost instead of the reservation. It may be read after the next `flush`."""
        reply = _counted(reply)
        state, charged = _charged(attempt, reply)
        change = charged.minus(attempt.reserved)
        overrun = change.tokens > 0 or change.cost_microusd > 0
        reply = _storable(replace(reply, cost_microusd=charged.cost_microusd))
        with self._mutex:
            self._noted += [
                ("INTO replies", _reply_row(attempt.attempt, reply)),
                _event(attempt.attempt, state=state, change=change, overrun=overrun),
            ]
            self.batches.ended(attempt)
            self._charge(attempt.run_id, change, request=attempt.request)
        return Settled(reply, overrun)

    def take_back(self, attempt: Attempt) -> None:
        """Note that the request never left: nothing is charged."""
        with self._mutex:
            release = _NOTHING.minus(attempt.reserved)
            self._noted.append(_event(attempt.attempt, state="failed", change=release))
            self._charge(attempt.run_id, release, request=attempt.request)

    def flush(self) -> None:
        """Put on disk, in one commit, what was noted since the last one."""
        with self._mutex:
            if self._noted:
                with self._write():
                    pass

    def use(self, requests: Iterable[Request], *, run_id: str) -> None:
        """Note that a run was answered from the ledger."""
        rows = [{"run_id": run_id} | _labels(request) for request in requests]
        with self._write() as db:
            db.executemany(sql("use"), rows)

    # Inside

    def _begin_paying(self) -> None:
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._last_attempt = None
        self._chain.forget()
        if self._forget_if_changed():
            self._noted = []  # another process has paid meanwhile, and settled what a failed commit had left here
        self.flush()
        self._close_open()

    def _stop_paying(self) -> None:
        try:
            self.flush()
            self._close_open()
        finally:
            self._lock.release()

    def _close_open(self) -> None:
        left = self._read(sql("open"), (self._closed_to,))
        last = self._read("SELECT coalesce(max(attempt), 0) FROM attempts")[0][0]
        if left:
            self._totals.clear()
            for number, sent, *sums in left:
                release = _NOTHING if sent else _NOTHING.minus(Amount(*sums))
                self._noted.append(_event(number, state="unknown" if sent else "failed", change=release))
            self.flush()
        self._closed_to = last
        self.batches.load()

    def _forget_if_changed(self) -> bool:
        """Whether another connection has written since the last look; then the sums in memory say nothing."""
        before, self._seen = self._seen, self._read("PRAGMA data_version")[0][0]
        if self._seen != before:
            self._totals.clear()
        return self._seen != before

    def _charge(self, run_id: str, amount: Amount, *, request: Request) -> None:
        with self._mutex:
            if run_id in self._totals:
                self._totals[run_id].add(amount, stage=request.stage, domain=request.domain)

    def _read_totals(self, run_id: str) -> Totals:
        totals = Totals()
        for stage, domain, *sums in self._read(sql("spent"), (run_id,)):
            totals.add(Amount(*sums), stage=stage, domain=domain)
        return totals

    def _answers(self, keys: Iterable[str]) -> dict[str, tuple[Any, ...]]:
        return {row[0]: row for row in self._read(sql("answered"), (json.dumps(list(keys)),))}

    def query(self, name: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of a reading query of calls.sql."""
        return self._read(sql(name), values)

    def _read(self, query: str, values: Any = ()) -> list[tuple[Any, ...]]:
        with self._mutex, translated(self.path):
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is on disk when it ends, with what was noted before it.

        If it fails (a full disk, Ctrl-C), what was noted stays noted, for the next transaction: what follows from it,
        such as the end of an attempt, must never be stored without it.
        """
        with self._mutex, translated(self.path):
            noted, last = self._noted, None
            try:
                self._db.execute("BEGIN IMMEDIATE")
                last = self._chain.last(self._db)
                for into in dict.fromkeys(into for into, _ in noted):
                    insert(self._db, into, [row for where, row in noted if where == into])
                yield self._db
                self._chain.extend(self._db)
                self._db.execute("COMMIT")
                self._noted = []
            except BaseException:
                self._totals.clear()
                self._chain.forget()
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if last is not None and self._chain.last(self._db) != last:  # Ctrl-C came right after the commit
                    self._noted = []
                raise


def _event(attempt: int, *, state: str, change: Amount, overrun: bool = False) -> tuple[str, Row]:
    seq = None  # the next one
    sums = (change.calls, change.tokens, change.cost_microusd)
    return "INTO events", (seq, attempt, state, *sums, int(overrun), time.time())


def _counted(reply: Reply) -> Reply:
    """With tokens of which one is no count, such as a negative one, taken as not reported."""
    if all(0 <= tokens < ABSURD for tokens in (reply.input_tokens, reply.output_tokens)):
        return reply
    return replace(reply, input_tokens=0, output_tokens=0)


def _charged(attempt: Attempt, reply: Reply) -> tuple[str, Amount]:
    """The state that a reply ends in, and what its attempt costs.

    A 429 and a refusal of the key release everything; another error received whole still counts as a call. A
    success that reports no usage is charged as reserved.
    """
    if reply.outcome == "ok":
        tokens = reply.input_tokens + reply.output_tokens
        cost = attempt.rate.cost_microusd(reply.input_tokens, reply.output_tokens)
        return "succeeded", Amount(1, tokens, cost) if tokens else attempt.reserved
    if reply.outcome == "unknown":
        return "unknown", attempt.reserved
    return "failed", Amount(calls=int(reply.outcome in ("transient", "permanent")))


def _storable(reply: Reply) -> Reply:
    """Lone surrogates, which no UTF-8 file can hold, become question marks."""
    fields = ("text", "raw", "finish_reason", "author", "provider_id", "error")
    return replace(reply, **{name: getattr(reply, name).encode("utf-8", "replace").decode() for name in fields})


def _reply_row(attempt: int, reply: Reply) -> Row:
    names = "outcome text finish_reason input_tokens output_tokens cost_microusd author provider_id error raw"
    return (attempt, *(getattr(reply, name) for name in names.split()))


def _from_row(request: Request, row: tuple[Any, ...]) -> Reply:
    _, text, finish_reason, input_tokens, output_tokens, author, provider_id, raw, _ = row
    return Reply(
        request,
        "ok",
        text=text,
        finish_reason=finish_reason,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        raw=raw,
        author=author,
        provider_id=provider_id,
        cached=True,
    )


def _labels(request: Request) -> dict[str, Any]:
    names = "key domain stage example_id"
    return {name: getattr(request, name) for name in names.split()}


def _body(request: Request) -> str:
    return json.dumps(request.body(), ensure_ascii=True, separators=(",", ":"))
