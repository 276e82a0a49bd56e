"""What an accuracy's interval, a comparison and a confusion promise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balkit import frames, student
from balkit.errors import StudentError
from balkit.student.measures import confusion, errors, intervals, macro_f1, mcnemar


def evaluations(rows: list[tuple[str, str, str | None, bool]], *, checkpoint: str = "c") -> pl.DataFrame:
    """EVALUATIONS of (example, domain, predicted, correct)."""
    shared = {"checkpoint": checkpoint, "settings": "s", "split": "eval", "text": "..."}
    return frames.EVALUATIONS.of(
        [{**shared, "example_id": e, "domain": d, "predicted": said, "correct": right} for e, d, said, right in rows]
    )


def marks(by_domain: dict[str, str], *, checkpoint: str = "c") -> pl.DataFrame:
    """EVALUATIONS of a + or - a row."""
    return evaluations(
        [(f"{d}{n}", d, "x", mark == "+") for d, row in by_domain.items() for n, mark in enumerate(row)],
        checkpoint=checkpoint,
    )


def labelled(rows: list[tuple[str, str | None]]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Answers as (reference, predicted)."""
    found = evaluations([(f"e{n}", ref, said, ref == said) for n, (ref, said) in enumerate(rows)])
    examples = pl.DataFrame(
        {
            "example_id": [f"e{n}" for n in range(len(rows))],
            "prompt": [f"prompt {n}" for n in range(len(rows))],
            "reference": [ref for ref, _ in rows],
        }
    )
    return found, examples


def test_intervals_are_those_of_resampling_row_by_row() -> None:
    found = marks({"big": "++++++--" * 10, "small": "+-+" * 4, "rare": "-+"})
    told = intervals(found, head={"big"}, draws=20_000)
    generator = np.random.default_rng(1)
    right = [part["correct"].to_numpy() for _, part in found.group_by("domain", maintain_order=True)]
    macro = [np.mean([generator.choice(row, len(row)).mean() for row in right]) for _ in range(5000)]
    assert told["macro"].value == pytest.approx(np.mean([row.mean() for row in right]))
    assert (told["macro"].low, told["macro"].high) == pytest.approx(np.quantile(macro, [0.025, 0.975]), abs=0.02)
    assert told["micro"].value == pytest.approx(found["correct"].mean())
    assert told["head"].value == 0.75
    assert told["tail"].value == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_a_domain_that_is_all_right_is_sure_and_no_tail_is_absent() -> None:
    told = intervals(marks({"a": "++++"}), head={"a"})
    assert (told["macro"].low, told["macro"].high) == (1, 1)
    assert "tail" not in told
    assert intervals(frames.EVALUATIONS.empty(), head=set()) == {}


def test_a_paired_comparison_counts_rows_and_is_narrower_than_two_intervals() -> None:
    first = marks({"a": "+" * 30 + "-" * 30, "b": "+-" * 10})
    second = marks({"a": "+" * 42 + "-" * 18, "b": "+-" * 10}, checkpoint="d")
    found = student.compare(first, second, head={"a"})
    assert (found.rows, found.both, found.only_first, found.only_second, found.neither) == (80, 40, 0, 12, 28)
    assert found.p_value == pytest.approx(2 / 2**12)
    assert found.differences["head"].value == pytest.approx(0.2)
    assert found.differences["tail"] == student.Interval(0, 0, 0)
    alone = intervals(first, head={"a"})["head"]
    assert found.differences["head"].high - found.differences["head"].low < alone.high - alone.low
    turned = student.compare(second, first, head={"a"})
    assert turned.differences["macro"].value == -found.differences["macro"].value
    assert turned.p_value == found.p_value


def test_checkpoints_on_other_rows_are_not_compared() -> None:
    with pytest.raises(StudentError, match="1 of 3 examples were answered by only one"):
        student.compare(marks({"a": "++"}), marks({"a": "+++"}), head=set())


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_test(first: int, second: int) -> None:
    n, k = first + second, min(first, second)
    wanted = min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)
    assert mcnemar(first, second) == pytest.approx(wanted)


def test_mcnemar_of_many_rows_ends() -> None:
    assert mcnemar(5000, 5000) == 1
    assert mcnemar(4800, 5200) == pytest.approx(6.6e-5, rel=0.02)


def test_confusion_and_f1_agree_with_sklearn() -> None:
    from sklearn.metrics import f1_score

    rows: list[tuple[str, Any]] = [
        *[("cat", "cat")] * 5,
        *[("cat", "dog")] * 2,
        *[("dog", "dog")] * 3,
        ("dog", None),
        ("eel", "cat"),
        ("eel", "newt"),
    ]
    found, examples = labelled(rows)
    table = confusion(found, examples)
    assert table.row(0) == ("cat", "cat", 5)
    assert table.filter(pl.col("predicted").is_null()).rows() == [("dog", None, 1)]
    assert table["rows"].sum() == len(rows)
    references, said = zip(*((ref, said or "none") for ref, said in rows), strict=True)
    wanted = f1_score(references, said, labels=["cat", "dog", "eel"], average="macro", zero_division=0)
    assert macro_f1(found, examples) == pytest.approx(wanted)


def test_a_letter_is_the_same_label_in_either_case() -> None:
    found, examples = labelled([("a", "A"), ("b", "A"), ("b", "B"), ("B", "b")])
    found = found.with_columns(correct=pl.Series([True, False, True, True]))
    assert sorted(confusion(found, examples).rows()) == [("B", "B", 2), ("B", "a", 1), ("a", "a", 1)]
    assert macro_f1(found, examples) == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_errors_are_drawn_from_every_domain() -> None:
    rows = [("cat", "dog")] * 30 + [("dog", "cat")] * 2 + [("eel", "eel")] * 3
    found, examples = labelled(rows)
    shown = errors(found, examples, count=4)
    assert shown["domain"].value_counts().sort("domain").rows() == [("cat", 2), ("dog", 2)]
    assert shown.columns == ["domain", "prompt", "reference", "predicted", "text", "example_id"]
    assert shown.equals(errors(found.reverse(), examples, count=4))
    assert errors(found, examples, count=99).height == 32
