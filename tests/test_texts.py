"""Texts: when two of them say the same."""

from __future__ import annotations

import pytest

from balkit import texts


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Hello, world!", "hello  world"),
        ("If $f(6)-f(2)=12$, what is $f(2)?$", "If $f(6) - f(2) = 12,$ what is $f(2)$?"),
        ("Solve $2x^{2}+3x-5=0$.", "Solve $2x^2 + 3x - 5=0.$"),
        (r"Simplify $\left( 3 \right)$", r"Simplify $(3)$"),
        ("Add 1.5, 2 and 3", "add 1.5 2 and 3"),
    ],
)
def test_a_text_laid_out_in_another_way_is_the_same(one: str, other: str) -> None:
    assert texts.normalised(one) == texts.normalised(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("3 + 4", "3 - 4"), ("x^2 - 2018", "x^2 + 2018"), ("f(-2)", "-f(2)"), ("1.5", "15"), ("5!", "5"), ("$$", "...")],
)
def test_a_sign_that_means_something_is_kept(one: str, other: str) -> None:
    assert texts.normalised(one) != texts.normalised(other)
