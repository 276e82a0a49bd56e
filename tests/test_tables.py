"""Tables of plain text fit the terminal, and keep what is in them."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from balkit.report import drawn, table

NAMES = st.text("abc_xyz", min_size=1, max_size=20)
NUMBERS = st.lists(st.none() | st.integers(-(10**9), 10**9), min_size=3, max_size=3)
TEXTS = st.lists(st.none() | st.text(max_size=60), min_size=3, max_size=3)


def test_a_narrow_table_is_one_line_a_row() -> None:
    shown = table(
        pl.DataFrame({"domain": ["hacked account", None], "rows": [1200, 3], "share": [0.25, None]}), title="t"
    )
    assert shown.splitlines() == [
        "t",
        "domain           rows  share",
        "hacked account  1,200   0.25",
        "-                   3      -",
    ]


def test_small_sums_of_money_are_written_out() -> None:
    shown = table(pl.DataFrame({"usd": [0.000071, 0.0000012345, 0.0001234, 12.5, 1e-12, 0.0]}))
    assert shown.split() == ["usd", "0.000071", "0.000001234", "0.0001234", "12.5", "1e-12", "0"]


@settings(max_examples=60)
@given(
    st.dictionaries(NAMES, NUMBERS, min_size=1, max_size=12),
    st.dictionaries(NAMES, TEXTS, max_size=4),
    st.integers(40, 120),
)
def test_no_line_is_too_long_and_no_number_is_broken(
    numbers: dict[str, list[int | None]], texts: dict[str, list[str | None]], width: int
) -> None:
    frame = pl.DataFrame(texts | numbers)
    lines = table(frame, width=width).splitlines()
    assert max(map(cell_len, lines)) <= width
    words = {word for line in lines for word in line.split()}
    assert {f"{value:,}" for values in numbers.values() for value in values if value is not None} <= words


def test_what_does_not_fit_stands_below_with_the_first_column() -> None:
    frame = pl.DataFrame({"domain": ["fruit", "bird"], **{f"number_{n}": [10**9 + n, n] for n in range(8)}})
    shown = table(frame, width=80)
    first, second = shown.split("\n\n")
    assert [line.split()[0] for line in first.splitlines()[-2:]] == ["fruit", "bird"]
    assert [line.split()[0] for line in second.splitlines()[-2:]] == ["fruit", "bird"]
    assert shown.count("1,000,000,00") == 8


def test_digests_and_moments_are_shortened_and_blank_columns_left_out_only_where_there_is_no_room() -> None:
    frame = pl.DataFrame(
        {"at": ["2026-11-28 20:25:51.889511"], "digest": ["a1" * 32], "tags": [None], "more": ["x" * 30]}
    )
    assert "a1" * 32 in table(frame)
    narrow = table(frame, width=70)
    assert "2026-11-28 20:25:51 " in narrow
    assert f" {'a1' * 6} " in narrow
    assert "tags" not in narrow


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_letters_that_the_encoding_lacks_are_spelled_out_and_columns_stay_even(encoding: str) -> None:
    frame = pl.DataFrame({"domain": ["日本語", "große", "x" * 30, "\x1b[31m"], "rows": [1, 22, 333, 4]})
    shown = table(frame, encoding=encoding)
    shown.encode(encoding)
    assert len({cell_len(line) for line in shown.splitlines()}) == 1
    assert "\\x1b[31m" in shown


def test_the_long_tail_is_drawn_narrower_in_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"train": [100], "dev": [0], "eval": [0], "real": [100]}
    for columns, bar in (("80", 16), ("120", 30)):
        monkeypatch.setenv("COLUMNS", columns)
        assert drawn(pl.DataFrame({"domain": ["a"], **counts}))["train rows"][0] == "#" * bar
