"""The hash chain over the ledger: each commit adds a link, the digest of its events and of the link before.

An event stands for its own row, the first of an attempt for the attempt's row too, the last for the reply's. Requests
prove themselves: their key is the digest of their body, and the attempts name their keys.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

from balkit import texts
from balkit.teacher.ledger_file import Row, insert, sql

_BLANK = ""
_ATTEMPT = 1  # column of the query `linked`
_NAMED = 5  # attempts that a problem names


class Chain:
    """The end of a ledger's chain."""

    def __init__(self) -> None:
        self._tip: tuple[int, str] | None = None

    def forget(self) -> None:
        """Read the end from the file next time: another process may have added, or a commit failed."""
        self._tip = None

    def last(self, db: sqlite3.Connection) -> int:
        """The newest event that is linked; 0 in a blank ledger."""
        return self._end(db)[0]

    def _end(self, db: sqlite3.Connection) -> tuple[int, str]:
        self._tip = self._tip or db.execute(sql("tip")).fetchone() or (0, _BLANK)
        return self._tip

    def extend(self, db: sqlite3.Connection) -> None:
        """Link the events that this transaction added."""
        last, digest = self._end(db)
        rows = db.execute(sql("linked"), (last,)).fetchall()
        if rows:
            self._tip = (rows[-1][0], _digest(digest, rows))
            insert(db, "INTO links", [self._tip])


def problems_of(path: Path) -> list[str]:
    """What is wrong with a ledger, one line each. Reads every row, over a connection of its own."""
    found: list[str] = []
    with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, timeout=30)) as db:
        db.text_factory = lambda value: value.decode("utf-8", "backslashreplace")
        try:
            db.execute("BEGIN")  # one state of the file for all that follows
            for problems in (_pages, _links, _states, _requests):
                found += problems(db)
        except sqlite3.DatabaseError as error:
            found.append(f"it cannot be read whole: {error}")
    return [f"{path}: {line}" for line in found]


def _pages(db: sqlite3.Connection) -> Iterator[str]:
    yield from (row[0] for row in db.execute("PRAGMA integrity_check") if row[0] != "ok")


def _links(db: sqlite3.Connection) -> Iterator[str]:
    """Each link is compared with its rows and the stored link before, so that one fault is named once or twice."""
    rows = groupby(_with_link(db), key=lambda item: item[0])
    found, group = next(rows, (None, iter(())))
    before = _BLANK
    for last, digest in db.execute("SELECT last_seq, digest FROM links ORDER BY last_seq"):
        events = [row for _, row in group] if found == last else []
        if _digest(before, events) != digest:
            yield f"{_attempts(events)} not as they were committed (link {last})"
        before = digest
        if found == last:
            found, group = next(rows, (None, iter(())))
    events = [row for _, row in group]
    if events:
        yield f"{_attempts(events)} in no link of the chain"


def _with_link(db: sqlite3.Connection) -> Iterator[tuple[int | None, Row]]:
    """Every event in order, with the link that it belongs to."""
    ends = [row[0] for row in db.execute("SELECT last_seq FROM links ORDER BY last_seq")]
    at = 0
    for row in db.execute(sql("linked"), (-1,)):
        while at < len(ends) and ends[at] < row[0]:
            at += 1
        yield (ends[at] if at < len(ends) else None), row


def _attempts(rows: Iterable[Row]) -> str:
    numbers = sorted({str(row[_ATTEMPT]) for row in rows})
    named = ", ".join(numbers[:_NAMED]) + (f" and {len(numbers) - _NAMED} more" if len(numbers) > _NAMED else "")
    return f"the rows of attempt {named or '(none left)'} are"


def _states(db: sqlite3.Connection) -> Iterator[str]:
    for attempt, states, outcome in db.execute(sql("inconsistent")):
        yield f"attempt {attempt} is {states} with reply {outcome}"
    for (key,) in db.execute(sql("unasked")):
        yield f"an attempt or a use names request {key}, which is not there"


def _requests(db: sqlite3.Connection) -> Iterator[str]:
    for key, body in db.execute("SELECT key, body FROM requests"):
        if not _proves(key, body):
            yield f"request {key} is not the digest of its body"


def _proves(key: str, body: str) -> bool:
    try:
        return texts.digest(json.loads(body)) == key
    except (TypeError, ValueError):
        return False


def _digest(before: str, rows: Iterable[Row]) -> str:
    body: list[Any] = [before, *(list(row) for row in rows)]
    return hashlib.sha256(json.dumps(body, default=repr, separators=(",", ":")).encode()).hexdigest()
