"""Counting tokens without a tokenizer."""

from hypothesis import given
from hypothesis import strategies as st

from balkit import tokens


@given(st.text())
def test_an_estimate_never_passes_the_worst_case(text: str) -> None:
    assert tokens.estimate().count(text) <= tokens.worst_case(text)


def test_an_estimate_says_that_it_is_one() -> None:
    counter = tokens.estimate()
    assert not counter.exact
    assert "estimate" in counter.name


def test_text_costs_tokens_and_no_text_costs_none() -> None:
    assert tokens.estimate().count("") == 0
    assert tokens.estimate().count("a") == 1
    assert tokens.worst_case("é") == 2
