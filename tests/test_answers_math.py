"""Mathematical equality, in a child process that can be killed."""

import time

import pytest

from balkit import answers

pytest.importorskip("math_verify")


def test_equal_expressions_agree_whatever_their_form() -> None:
    pairs = [("\\frac{1}{2}", "0.5"), ("\\sqrt{8}", "2\\sqrt{2}"), ("x+1", "1+x"), ("3", "4"), ("", "4")]
    assert answers.same(pairs, kind="math") == [True, True, True, False, False]


def test_equal_texts_start_no_process() -> None:
    began = time.monotonic()
    assert answers.same([("\\dfrac{1}{2}", "$\\frac12$"), ("7", "7")][1:] * 1000, kind="math") == [True] * 1000
    assert time.monotonic() - began < 0.5


@pytest.mark.long
def test_a_pair_that_takes_too_long_is_false_and_the_others_are_still_compared() -> None:
    slow = ("9" * 9 + "^{" + "9" * 9 + "}", "8^{99999999} + 1")
    pairs = [("\\frac{1}{2}", "0.5"), slow, ("2+2", "4")]
    assert answers.same(pairs, kind="math", timeout_s=1.0) == [True, False, True]
