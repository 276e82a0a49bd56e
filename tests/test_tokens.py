"""Counting tokens without a tokenizer."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from balkit import tokens


@given(st.text())
def test_an_estimate_never_passes_the_worst_case(text: str) -> None:
    assert tokens.estimate().count(text) <= tokens.worst_case(text)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_a_column_is_estimated_as_single_texts_are(texts: list[str]) -> None:
    column = pl.DataFrame({"text": texts}, schema={"text": pl.String})
    found = column.select(tokens.estimated(pl.col("text"))).to_series()
    assert found.to_list() == [tokens.estimate().count(text) for text in texts]


def test_an_estimate_says_that_it_is_one() -> None:
    counter = tokens.estimate()
    assert not counter.exact
    assert "estimate" in counter.name


def test_text_costs_tokens_and_no_text_costs_none() -> None:
    assert tokens.estimate().count("") == 0
    assert tokens.estimate().count("a") == 1
    assert tokens.worst_case("é") == 2
