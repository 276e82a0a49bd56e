"""calls.sqlite: every attempt to call the teacher, its money and its raw reply. The only SQL of this room.

An attempt goes `reserved -> sent -> succeeded | failed | unknown`, each step an appended row. `sent` is on disk before
the request leaves; the reply is on disk before anyone reads it. After a crash, `sent` without a reply is
`unknown` and stays charged; `reserved` alone never left and is released. What is in a batch of the provider's stays
`sent` over the ends of processes, until it is fetched (`batches`).
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import polars as pl

from balkit import frames, texts
from balkit.errors import PoolDamaged, PoolError
from balkit.recipe import Caps, Price
from balkit.teacher.batches import Batches, create_tables
from balkit.teacher.caps import Amount, Spent, Totals
from balkit.teacher.door import Door, Progress, Terms
from balkit.teacher.lock import Lock
from balkit.teacher.prices import Rate
from balkit.teacher.protocol import Reply, Request, Teacher
from balkit.teacher.retry import Pace

_SHAPE = 1  # PRAGMA user_version
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
        self._db = _connect(self.path)
        self.batches = Batches(self._read, self._write)
        self.closed = False

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
        rows = self._read(_sql("calls"), {"run_id": run_id})
        return frames.CALLS.of([dict(zip(frames.CALLS.columns, row, strict=True)) for row in rows])

    def check(self) -> list[str]:
        """What is wrong with the ledger, one line each; attempts that are open now are not wrong."""
        problems = [f"{self.path}: {row[0]}" for row in self._read("PRAGMA quick_check") if row[0] != "ok"]
        problems += [
            f"{self.path}: attempt {attempt} is {states} with reply {outcome}"
            for attempt, states, outcome in self._read(_sql("inconsistent"))
        ]
        with self._mutex:
            for key, body in self._db.execute("SELECT key, body FROM requests"):
                if texts.digest(json.loads(body)) != key:
                    problems.append(f"{self.path}: request {key} is not the digest of its body")
        return problems

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
                self._db.execute("PRAGMA synchronous = NORMAL")
                self._forget_if_changed()
                self._close_open()
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

    def totals(self, run_id: str) -> Totals:
        """The run's sums, kept current while paying."""
        with self._mutex:
            if run_id not in self._totals:
                self._totals[run_id] = self._read_totals(run_id)
            return self._totals[run_id]

    def send(self, request: Request, *, run_id: str, rate: Rate, reserved: Amount, leaves_now: bool = True) -> Attempt:
        """Reserve and note as sent, durably. The request may leave when this returns, unless it waits for a batch."""
        with self._write() as db:
            db.execute("INSERT OR IGNORE INTO requests VALUES (?, ?)", (request.key, _body(request)))
            values = {"run_id": run_id, "input_picousd": rate.input_picousd, "output_picousd": rate.output_picousd}
            number = db.execute(_sql("attempt"), values | _labels(request)).lastrowid
            assert number is not None
            _event(db, number, state="reserved", change=reserved)
            if leaves_now:
                _event(db, number, state="sent", change=_NOTHING)
        self._charge(run_id, reserved, request=request)
        return Attempt(number, request, run_id, rate, reserved)

    def settle(self, attempt: Attempt, reply: Reply) -> Settled:
        """Keep the reply and replace the reservation by what it cost, durably, in one transaction."""
        state, charged = _charged(attempt, reply)
        change = charged.minus(attempt.reserved)
        overrun = change.tokens > 0 or change.cost_microusd > 0
        reply = _storable(replace(reply, cost_microusd=charged.cost_microusd))
        with self._write() as db:
            db.execute(_sql("reply"), _reply_row(attempt.attempt, reply))
            _event(db, attempt.attempt, state=state, change=change, overrun=overrun)
        self.batches.ended(attempt)
        self._charge(attempt.run_id, change, request=attempt.request)
        return Settled(reply, overrun)

    def use(self, requests: Iterable[Request], *, run_id: str) -> None:
        """Note that a run was answered from the ledger."""
        rows = [{"run_id": run_id} | _labels(request) for request in requests]
        with self._write() as db:
            db.executemany(_sql("use"), rows)

    # Inside

    def _stop_paying(self) -> None:
        try:
            self._close_open()
        finally:
            self._lock.release()

    def _close_open(self) -> None:
        left = self._read(_sql("open"), (self._closed_to,))
        last = self._read("SELECT coalesce(max(attempt), 0) FROM attempts")[0][0]
        if left:
            self._totals.clear()
            with self._write() as db:
                for number, sent, calls, tokens, microusd in left:
                    release = _NOTHING if sent else Amount(-calls, -tokens, -microusd)
                    _event(db, number, state="unknown" if sent else "failed", change=release)
        self._closed_to = last
        self.batches.load()

    def _forget_if_changed(self) -> None:
        version = self._read("PRAGMA data_version")[0][0]
        if version != self._seen:
            self._totals.clear()
        self._seen = version

    def _charge(self, run_id: str, amount: Amount, *, request: Request) -> None:
        with self._mutex:
            if run_id in self._totals:
                self._totals[run_id].add(amount, stage=request.stage, domain=request.domain)

    def _read_totals(self, run_id: str) -> Totals:
        totals = Totals()
        for stage, domain, *sums in self._read(_sql("spent"), (run_id,)):
            totals.add(Amount(*sums), stage=stage, domain=domain)
        return totals

    def _answers(self, keys: Iterable[str]) -> dict[str, tuple[Any, ...]]:
        return {row[0]: row for row in self._read(_sql("answered"), (json.dumps(list(keys)),))}

    def _read(self, query: str, values: Any = ()) -> list[tuple[Any, ...]]:
        with self._mutex, _translated(self.path):
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is on disk when it ends. If it fails, the sums in memory are dropped with it."""
        with self._mutex, _translated(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                self._totals.clear()
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise


def _connect(path: Path) -> sqlite3.Connection:
    with _translated(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("BEGIN IMMEDIATE")  # two processes may make the file at the same time
        shape = db.execute("PRAGMA user_version").fetchone()[0]
        if shape == 0:
            for statement in _sql("schema").split(";\n"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {_SHAPE}")
        create_tables(db)
        db.execute("COMMIT")
    if shape > _SHAPE:
        raise PoolError(f"{path}: written by a newer balkit (shape {shape}, known here: {_SHAPE}); upgrade balkit")
    return db


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.ProgrammingError) as error:  # the disk is full; the ledger was closed
        raise PoolError(f"{path}: the ledger cannot be read or written: {error}") from error
    except sqlite3.DatabaseError as error:
        raise PoolDamaged(f"{path}: not a sound ledger: {error}") from error


@cache
def _queries() -> dict[str, str]:
    body = files("balkit.teacher").joinpath("calls.sql").read_text(encoding="utf-8")
    return dict(part.split("\n", 1) for part in body.split("-- name: ")[1:])


def _sql(name: str) -> str:
    return _queries()[name].strip().removesuffix(";")


def _event(db: sqlite3.Connection, attempt: int, *, state: str, change: Amount, overrun: bool = False) -> None:
    values = {"attempt": attempt, "state": state, "overrun": int(overrun), "at": time.time()}
    change_by = {"calls": change.calls, "tokens": change.tokens, "microusd": change.cost_microusd}
    db.execute(_sql("event"), values | change_by)


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


def _reply_row(attempt: int, reply: Reply) -> dict[str, Any]:
    names = "outcome text finish_reason input_tokens output_tokens cost_microusd author provider_id error raw"
    return {"attempt": attempt} | {name: getattr(reply, name) for name in names.split()}


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
    names = "key purpose endpoint model domain stage example_id"
    return {name: getattr(request, name) for name in names.split()}


def _body(request: Request) -> str:
    return json.dumps(request.body(), ensure_ascii=True, separators=(",", ":"))
