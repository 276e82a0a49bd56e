"""Whole columns have the digests that `texts` gives one by one."""

from __future__ import annotations

import polars as pl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from balkit import texts
from balkit.pool import identity

#: Weighted towards what the rules speak of: signs beside words, digits and spaces, odd white space, other scripts.
SIGNS = st.text(st.sampled_from(list("abZ19 .,!?()[]${}\\:;'\"-+=_~^\n\t\r")), max_size=30)
WORDS = st.lists(
    st.sampled_from(["\\left", "\\right", "late!", "(late)", "[ab]", "3.5", ".5", "x^{2}", "..", " "])
).map("".join)
ODD = st.text(st.sampled_from(list("a1 éÉßﬁ\x00\x0b\x0c\x1c\x7f\x85\u00a0\u2028İ語א\u0301😀")), max_size=12)
TEXTS = st.lists(SIGNS | WORDS | ODD | st.text(max_size=20), min_size=1, max_size=30)


def column(values: list[str]) -> pl.Series:
    return pl.Series("text", values, dtype=pl.String)


@settings(max_examples=300)
@given(TEXTS)
@example(["ab! cd! (ef) [gh] ij)", "(a) (bb(cc", "x!!y!! z!", "$ { }", "\\leftarrow \\left(", ". .5 1. 1.5", "!", ""])
def test_columns_are_canonical_and_keyed_as_single_texts_are(values: list[str]) -> None:
    assert identity.canonical(column(values)).to_list() == [texts.canonical(value) for value in values]
    keys = identity.prompt_keys(column(values)).to_list()
    for key, value in zip(keys, values, strict=True):
        assert key == texts.digest(texts.normalised(value)), value


@settings(max_examples=100)
@given(TEXTS, st.data())
def test_ids_of_columns_are_those_of_single_rows(prompts: list[str], data: st.DataObject) -> None:
    answers = data.draw(st.lists(SIGNS | ODD | st.none(), min_size=len(prompts), max_size=len(prompts)))
    found = identity.example_ids(column(prompts), pl.Series("answer", answers, dtype=pl.String)).to_list()
    assert found == [texts.example_id(*pair) for pair in zip(prompts, answers, strict=True)]


def test_no_rows_have_no_digests() -> None:
    assert identity.prompt_keys(column([])).to_list() == []
    assert identity.example_ids(column([]), column([]).rename("other")).to_list() == []
