"""Batches in the ledger: their intent, their names at the provider, and attempts that stay `sent` between processes.

A request for a batch is `reserved` when it is pulled. Its `sent` is written for the whole batch in one transaction with
the batch's intent, after the upload of the input file (which buys nothing) and before the batch is made. From then on
the attempt stays `sent`, its reservation charged, until its line is fetched: the end of a process says nothing
about it. A process that ends earlier leaves `reserved` alone, which is released.
"""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from balkit.teacher.caps import Amount
from balkit.teacher.prices import Rate
from balkit.teacher.protocol import Reply, Request

if TYPE_CHECKING:
    from balkit.teacher.calls import Attempt, Ledger


@dataclass(frozen=True)
class OpenBatch:
    """A batch with members whose lines were not fetched. `provider_id` None: it may or may not have been made."""

    token: str
    file_id: str
    provider_id: str | None
    intended_at: float  # seconds since 1970
    requests: Mapping[str, Request]  # by key


class Batches:
    """The ledger's part for batches. `read` and `write` are the ledger's own, and so are locking and errors."""

    def __init__(
        self,
        read: Callable[..., list[tuple[Any, ...]]],
        write: Callable[[], AbstractContextManager[sqlite3.Connection]],
    ) -> None:
        self._read = read
        self._write = write
        self._held: dict[str, tuple[str, Attempt]] = {}  # key -> token, attempt

    def load(self) -> None:
        """Read what is open; called when paying begins."""
        self._held = {}
        for token, number, key, run_id, body, domain, stage, example_id, *money in self._read(_sql("open")):
            request = Request.of_body(json.loads(body), domain=domain, stage=stage, example_id=example_id)
            self._held[key] = (token, _attempt(number, request, run_id, money))

    def held(self, key: str) -> Attempt | None:
        """The attempt at this key that is in a batch."""
        found = self._held.get(key)
        return found[1] if found else None

    def ended(self, attempt: Attempt) -> None:
        """An attempt has got its end."""
        found = self._held.get(attempt.request.key)
        if found is not None and found[1].attempt == attempt.attempt:
            del self._held[attempt.request.key]

    def intend(self, attempts: Sequence[Attempt], *, file_id: str) -> str:
        """Note durably that these attempts are about to leave as one batch; its token."""
        token, now = uuid.uuid4().hex, time.time()
        with self._write() as db:
            db.execute(_sql("step"), (token, "intended", file_id, now))
            for one in attempts:
                db.execute(_sql("member"), (one.attempt, token))
                db.execute(_sql("sent"), (one.attempt, now))
        self._held |= {one.request.key: (token, one) for one in attempts}
        return token

    def submitted(self, token: str, provider_id: str) -> None:
        """Note what the provider calls the batch."""
        with self._write() as db:
            db.execute(_sql("step"), (token, "submitted", provider_id, time.time()))

    def open(self, endpoint: str) -> list[OpenBatch]:
        """The open batches of an endpoint, by its name in the recipe; the oldest first."""
        members: dict[str, dict[str, Request]] = {}
        for key, (token, attempt) in self._held.items():
            if attempt.request.endpoint == endpoint:
                members.setdefault(token, {})[key] = attempt.request
        names: dict[str, dict[str, tuple[str, float]]] = {}
        for token, step, provider_id, at in self._read(_sql("steps")):
            names.setdefault(token, {})[step] = (provider_id, at)
        return [
            OpenBatch(token, *_names(names[token]), requests=requests)
            for token, requests in sorted(members.items(), key=lambda item: names[item[0]]["intended"][1])
        ]


class Journal:
    """What a batch teacher notes in the ledger while one door asks it."""

    def __init__(self, ledger: Ledger, in_flight: Mapping[str, Attempt]) -> None:
        self._ledger = ledger
        self._in_flight = in_flight
        self.kept: set[str] = set()  # keys whose lines were kept while others were waited for

    def intend(self, requests: Iterable[Request], *, file_id: str) -> str:
        """Before a batch is made, and after its input file was uploaded. Returns the batch's token."""
        return self._ledger.batches.intend([self._in_flight[one.key] for one in requests], file_id=file_id)

    def submitted(self, token: str, provider_id: str) -> None:
        """After it was made, or was found again."""
        self._ledger.batches.submitted(token, provider_id)

    def open(self, endpoint: str) -> list[OpenBatch]:
        """Batches of this or an earlier process that were not fetched."""
        return self._ledger.batches.open(endpoint)

    def keep(self, reply: Reply) -> None:
        """Settle a line of an earlier batch that nobody asks for now: it was paid for."""
        attempt = self._ledger.batches.held(reply.request.key)
        if attempt is not None:
            self._ledger.settle(attempt, reply)
            self.kept.add(reply.request.key)


def create_tables(db: sqlite3.Connection) -> None:
    """The tables of this module, where they are missing."""
    for statement in _sql("schema").split(";\n"):
        db.execute(statement)


def _names(steps: Mapping[str, tuple[str, float]]) -> tuple[str, str | None, float]:
    file_id, at = steps["intended"]
    return file_id, steps["submitted"][0] if "submitted" in steps else None, at


def _attempt(number: int, request: Request, run_id: str, money: Sequence[int]) -> Attempt:
    from balkit.teacher.calls import Attempt

    return Attempt(number, request, run_id, Rate(*money[:2]), Amount(*money[2:]))


@cache
def _queries() -> dict[str, str]:
    body = files("balkit.teacher").joinpath("batches.sql").read_text(encoding="utf-8")
    return dict(part.split("\n", 1) for part in body.split("-- name: ")[1:])


def _sql(name: str) -> str:
    lines = _queries()[name].strip().split("\n")
    return "\n".join(line for line in lines if not line.startswith("--")).removesuffix(";")
