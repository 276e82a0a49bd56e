"""A flipped byte anywhere in what is settled is found by `Ledger.check`, and the attempt is named."""

from __future__ import annotations

import re
import shutil
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balkit.recipe import Caps, Price
from balkit.teacher import Ledger, Reply, Request, Scripted

TEXT = "a worked answer that was paid for"
COLUMNS = {
    "attempts": "key run_id purpose endpoint model domain stage example_id input_picousd output_picousd",
    "events": "attempt state calls tokens microusd overrun at",
    "replies": "outcome text finish_reason input_tokens output_tokens cost_microusd author provider_id error raw",
    "requests": "key body",
    "links": "digest",
}


def filled(path: Path, n: int = 6) -> Path:
    """A ledger of n attempts with all they can say."""

    def say(request: Request) -> Reply:
        return Reply(
            request, "ok", text=TEXT, finish_reason="stop", input_tokens=7, output_tokens=9, raw=f'{{"raw": "{TEXT}"}}',
            author="big-1", provider_id="id-1", error="-",
        )  # fmt: skip

    price = Price(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)
    asked = [
        Request("rationale", "t", "m", (("user", f"q{i}"),), "t", 0, 50, 0.5, domain="d", stage=1, example_id=f"e{i}")
        for i in range(n)
    ]
    with Ledger(path) as ledger:
        list(ledger.door(Scripted(say), run_id="r", price=price, model="m", caps=Caps(), tries=1).ask(asked))
    return path


def problems(path: Path) -> list[str]:
    with Ledger(path) as ledger:
        return ledger.check()


def change(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA ignore_check_constraints = ON")
        assert db.execute(statement).rowcount == 1
    db.close()


@pytest.mark.parametrize(("table", "column"), [(t, c) for t, cs in COLUMNS.items() for c in cs.split()])
def test_a_changed_value_is_found(tmp_path: Path, table: str, column: str) -> None:
    path = filled(tmp_path / "calls.sqlite")
    row = {"attempts": "attempt = 3", "replies": "attempt = 3", "events": "seq = 8", "links": "last_seq = 8"}
    where = row.get(table, "key = (SELECT key FROM attempts WHERE attempt = 3)")
    flipped = f"CASE typeof({column}) WHEN 'text' THEN 'x' || substr({column}, 2) ELSE {column} + 64 END"
    change(path, f"UPDATE {table} SET {column} = {flipped} WHERE {where}")
    found = problems(path)
    assert found
    assert table == "requests" or any("attempt 3" in line for line in found)


def test_a_whole_ledger_has_no_problems(tmp_path: Path) -> None:
    assert problems(filled(tmp_path / "calls.sqlite")) == []


@pytest.mark.parametrize("table", ["attempts", "events", "replies", "requests", "links"])
def test_a_missing_row_is_found(tmp_path: Path, table: str) -> None:
    path = filled(tmp_path / "calls.sqlite")
    order = "key" if table == "requests" else "1"
    rows = "key" if table == "requests" else "rowid"
    change(path, f"DELETE FROM {table} WHERE {rows} = (SELECT {rows} FROM {table} ORDER BY {order} LIMIT 1)")
    assert problems(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("whole") / "calls.sqlite")


@settings(max_examples=40)
@given(data=st.data())
def test_a_flipped_byte_of_a_reply_in_the_file_is_found(whole: Path, data: st.DataObject) -> None:
    body = whole.read_bytes()
    start = data.draw(st.sampled_from([found.start() for found in re.finditer(TEXT.encode(), body)]))
    at, bit = start + data.draw(st.integers(0, len(TEXT) - 1)), data.draw(st.integers(0, 7))
    path = whole.with_name("flipped.sqlite")
    shutil.copy(whole, path)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([body[at] ^ 1 << bit]))
    assert any("attempt" in line for line in problems(path))


def test_a_ledger_from_before_the_chain_gets_it_when_it_is_opened(tmp_path: Path) -> None:
    path = filled(tmp_path / "calls.sqlite")
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE links")
    db.close()
    assert problems(path) == []
    change(path, "UPDATE replies SET text = 'other' WHERE attempt = 3")
    assert problems(path)


def test_a_check_while_a_run_pays_finds_nothing(tmp_path: Path) -> None:
    path = filled(tmp_path / "calls.sqlite")
    request = Request("rationale", "t", "m", (("user", "one more"),), "t", 0, 50, 0.5)
    with Ledger(path) as ledger:
        door = ledger.door(Scripted(lambda r: "a"), run_id="r2", price="free", model="m", caps=Caps(), tries=1)
        for _ in door.ask([request]):
            assert problems(path) == []
