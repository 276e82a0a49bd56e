"""Several answers drawn to each example: seeded, alone, and what they come to."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from student_toys import small_base, toy_examples, toy_rows
from test_student_measures import evaluations, marks

from balkit import recipe, student
from balkit.student import Sample, chat, model, pass_at_k, shot
from balkit.student.generate import Draws, answered
from balkit.student.samples import majority, sampled


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_base(tmp_path_factory.mktemp("students") / "base")


def drawn_by(base: Path, *, sample: Sample | None, batch_size: int = 4, examples: pl.DataFrame | None = None) -> Any:
    return student.evaluate(
        base,
        toy_examples(toy_rows()) if examples is None else examples,
        answers=recipe.Answers(kind="text"),
        labels=(),
        section=recipe.Evaluate(max_new_tokens=12, batch_size=batch_size),
        sample=sample,
    )


def test_a_draw_is_that_of_its_seed_number_and_example_alone(base: Path) -> None:
    one = drawn_by(base, sample=Sample(1.0, 3, 0))
    assert drawn_by(base, sample=Sample(1.0, 3, 0), batch_size=1)["text"].equals(one["text"])
    few = drawn_by(base, sample=Sample(1.0, 3, 0), examples=toy_examples(toy_rows()).tail(2))
    assert few["text"].equals(one["text"].tail(2))
    others = [Sample(1.0, 3, 1), Sample(1.0, 4, 0), Sample(0.5, 3, 0), None]
    assert all(not drawn_by(base, sample=other)["text"].equals(one["text"]) for other in others)
    assert one["settings"].unique().to_list() == ["kind=text max_new_tokens=12 temperature=1 seed=3 sample=0"]
    assert drawn_by(base, sample=None)["settings"].unique().to_list() == ["kind=text max_new_tokens=12"]


def test_draws_have_the_frequencies_of_the_students_distribution(base: Path) -> None:
    import torch

    loaded, temperature, count = model.load(base), 0.7, 3000
    (given,) = chat.prompt_ids(loaded.tokenizer, ["What is red?"])
    with torch.no_grad():
        wanted = (loaded.model(input_ids=torch.tensor([given])).logits[0, -1] / temperature).softmax(-1).numpy()
    draws = Draws(temperature, tuple(range(count)))
    found = answered(loaded, [given] * count, max_new_tokens=1, batch_size=500, draws=draws)
    first = [answer.ids[0] if answer.ids else loaded.tokenizer.eos_token_id for answer in found]
    likely = np.argsort(wanted)[-150:]  # halves of the probability, each of many tokens
    share = np.isin(first, likely).mean()
    assert share == pytest.approx(wanted[likely].sum(), abs=4 * (0.25 / count) ** 0.5)
    assert len(set(first)) > 100


def test_a_low_temperature_is_greedy(base: Path) -> None:
    assert drawn_by(base, sample=Sample(1e-6, 0, 0))["text"].equals(drawn_by(base, sample=None)["text"])


@given(st.integers(1, 7), st.data())
def test_pass_at_k_is_the_share_of_choices_of_k_with_a_right_one(samples: int, data: st.DataObject) -> None:
    k, right = data.draw(st.integers(1, samples)), data.draw(st.integers(0, samples))
    every = list(itertools.combinations([True] * right + [False] * (samples - right), k))
    assert pass_at_k(samples, k)[right] == pytest.approx(sum(map(any, every)) / len(every))


def test_samples_come_to_means_pass_at_k_and_intervals() -> None:
    samples = [marks({"a": "++-+", "b": "-+"}), marks({"a": "+--+", "b": "--"}), marks({"a": "+---", "b": "--"})]
    told = sampled(samples, head={"a"}, counts={"a": 200, "b": 5}, draws=4000)
    assert told.samples == 3
    assert told.mean["head"].value == told.mean["many"].value == pytest.approx((3 + 1 + 0 + 2) / 12)
    assert told.mean["tail"].value == told.mean["few"].value == pytest.approx(1 / 6)
    assert told.mean["micro"].value == pytest.approx(7 / 18)
    assert set(told.pass_at) == {1, 2, 3}
    assert told.pass_at[1]["macro"].value == pytest.approx(told.mean["macro"].value)
    assert told.pass_at[2]["head"].value == pytest.approx((1 + 2 / 3 + 0 + 1) / 4)
    assert told.pass_at[3]["macro"].value == pytest.approx((3 / 4 + 1 / 2) / 2)
    generator = np.random.default_rng(1)
    right = np.array([3, 1, 0, 2]) / 3
    by_hand = np.quantile([generator.choice(right, 4).mean() for _ in range(4000)], [0.025, 0.975])
    assert (told.mean["head"].low, told.mean["head"].high) == pytest.approx(by_hand, abs=0.09)


def test_the_majority_is_by_equal_answers_and_silence_does_not_vote() -> None:
    answers = {"e0": ["1/2", "0.5", "3"], "e1": [None, None, "7"], "e2": ["4", "5", None], "e3": [None, None, None]}
    right = ("1/2", "0.5", "7")
    samples = [
        evaluations([(name, "d", said[n], said[n] in right) for name, said in answers.items()]) for n in range(3)
    ]
    found = majority(samples, kind="number")
    assert found.select("example_id", "predicted", "correct").rows() == [
        ("e0", "1/2", True),
        ("e1", "7", True),
        ("e2", "4", False),
        ("e3", None, False),
    ]


@pytest.mark.parametrize(
    ("examples", "name"), [(0, "few"), (19, "few"), (20, "middle"), (100, "middle"), (101, "many")]
)
def test_shots_are_by_train_examples(examples: int, name: str) -> None:
    assert shot(examples) == name


def test_many_middle_and_few_stand_beside_head_and_tail() -> None:
    found = marks({"big": "++++", "mid": "+-+-", "rare": "----"})
    counts = {"big": 300, "mid": 50}
    told = student.summarise(found, head={"big", "mid"}, counts=counts)
    assert (told["many_accuracy"], told["middle_accuracy"], told["few_accuracy"]) == (1, 0.5, 0)
    assert student.intervals(found, head={"big", "mid"}, counts=counts)["middle"].value == 0.5
    assert student.compare(found, found, head=set(), counts=counts).differences["few"].value == 0
    assert "many_accuracy" not in student.summarise(found, head={"big"})
    only_many = student.summarise(marks({"big": "+"}), head=set(), counts=counts)
    assert (only_many["many_accuracy"], only_many["middle_accuracy"]) == (1, None)
