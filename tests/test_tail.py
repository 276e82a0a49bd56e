"""The long tail as it is drawn."""

from __future__ import annotations

import polars as pl

from balkit.report import drawn


def coverage(*rows: tuple[str, int, int]) -> pl.DataFrame:
    """domain, train rows, of these written ones."""
    frame = pl.DataFrame(rows, schema=["domain", "train", "written"], orient="row")
    return frame.select("domain", "train", real=pl.col("train") - pl.col("written"), dev=0, eval=0)


def test_bars_are_to_scale_and_no_domain_with_rows_is_without_one() -> None:
    found = drawn(coverage(("a", 1000, 0), ("b", 500, 250), ("c", 1, 0), ("d", 0, 0)), width=20)
    assert dict(found.select("domain", "train rows").iter_rows()) == {
        "a": "#" * 20,
        "b": "#####" + "+++++",
        "c": "#",
        "d": "",
    }


def test_head_has_at_least_an_even_share_of_the_real_rows() -> None:
    found = drawn(coverage(("a", 30, 0), ("b", 40, 30), ("c", 20, 0)))
    assert found["part"].to_list() == ["head", "tail", "head"]


def test_a_pool_without_rows_is_drawn_too() -> None:
    assert drawn(coverage()).height == 0
    assert drawn(coverage(("a", 0, 0)))["train rows"].to_list() == [""]
