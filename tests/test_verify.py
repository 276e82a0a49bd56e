"""Checks on new examples."""

import json
import random
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balkit import frames, texts, verify
from balkit.recipe import Answers, Kind, Synthesis
from balkit.verify import cascade

LABELS = ("gold", "tin", "earn")


def written(*rows: tuple[str, str], domain: str = "tin") -> pl.DataFrame:
    return pl.DataFrame(
        [[texts.example_id(prompt, answer), prompt, answer, domain] for prompt, answer in rows],
        schema=["example_id", "prompt", "reference", "domain"],
        orient="row",
    )


def reasons(
    rows: pl.DataFrame,
    *,
    kind: Kind = "label",
    labels: tuple[str, ...] = (),
    against: verify.Against | None = None,
) -> dict[str, str]:
    """Reason by prompt."""
    pytest.importorskip("rapidfuzz")
    decided = verify.new_examples(
        rows,
        against=against or verify.Against(),
        section=Synthesis(),
        expected=Answers(kind=kind, labels=labels),
        labels=labels or LABELS,
    )
    frames.check(decided, frames.DECISIONS)
    both = rows.unique("example_id").join(decided, on="example_id")
    return dict(both.select("prompt", "reason").iter_rows())


def known(*prompts: str) -> verify.Against:
    return verify.Against(known=verify.Known(prompts))


def held_out(*prompts: str) -> verify.Against:
    return verify.Against(evaluation=verify.Known(prompts))


def test_a_sound_new_row_is_kept() -> None:
    assert reasons(written(("The smelter cut its output.", "tin"))) == {"The smelter cut its output.": "new"}


def test_rows_without_a_prompt_or_an_answer_are_empty() -> None:
    found = reasons(written(("", "tin"), ("The smelter shut.", " ")))
    assert set(found.values()) == {"empty"}


def test_a_label_outside_the_set_is_refused() -> None:
    assert list(reasons(written(("Talc is mined.", "talc"))).values()) == ["label_outside_set"]


def test_where_labels_are_domains_the_answer_must_be_the_domain() -> None:
    row = written(("Bullion rose.", "gold"))
    assert list(reasons(row).values()) == ["label_contradicts_domain"]
    assert list(reasons(row, labels=LABELS).values()) == ["new"]


def test_a_choice_that_the_prompt_does_not_offer_is_refused() -> None:
    rows = written(
        ("What holds water?\n(A) a sieve\n(B) a glass", "F"),
        ("What holds beer?\n(A) a sieve\n(B) a mug", "B"),
        ("What holds tea?", "A"),
    )
    found = reasons(rows, kind="choice")
    assert list(found.values()).count("choice_not_offered") == 2
    assert found["What holds beer?\n(A) a sieve\n(B) a mug"] == "new"


def test_a_small_letter_is_a_choice() -> None:
    rows = written(("What holds water?\n(A) a sieve\n(B) a glass", "b"), ("What holds tea?\n(A) a net\n(B) a cup", "d"))
    assert sorted(reasons(rows, kind="choice").values()) == ["choice_not_offered", "new"]


def test_an_answer_of_another_kind_is_unreadable() -> None:
    rows = written(("What is 2 + 2?", "four"), ("What is 2 + 3?", "5"))
    assert reasons(rows, kind="number") == {"What is 2 + 2?": "answer_unreadable", "What is 2 + 3?": "new"}


def test_too_long_rows_are_refused() -> None:
    limit = verify.Against(usual={"tin": verify.Usual(longest=20)})
    assert list(reasons(written(("word " * 10, "tin")), against=limit).values()) == ["too_long"]


def test_a_known_text_is_a_duplicate_whatever_its_look() -> None:
    found = reasons(written(("The SMELTER,  cut its output!", "tin")), against=known("the smelter cut its output"))
    assert list(found.values()) == ["exact_duplicate"]


def test_a_reworded_known_text_is_a_near_duplicate_and_the_decision_quotes_it() -> None:
    pytest.importorskip("rapidfuzz")
    old = "A bag holds five red marbles and three blue marbles; what is the chance of red?"
    row = written(("A bag holds three blue marbles and five red marbles; what is the chance of a red?", "tin"))
    decided = verify.new_examples(
        row,
        against=known("Something else entirely", old),
        section=Synthesis(),
        expected=Answers(kind="text"),
        labels=(),
    )
    assert decided["reason"].to_list() == ["near_duplicate"]
    detail = json.loads(decided["detail"][0])
    assert detail["other"] == old
    assert 0.9 <= detail["similarity"] < 1


def test_of_duplicates_in_one_batch_exactly_one_is_kept() -> None:
    found = reasons(written(("The smelter cut output", "tin"), ("the smelter cut output!", "tin")))
    assert sorted(found.values()) == ["exact_duplicate", "new"]


def test_a_refused_row_does_not_make_later_ones_duplicates() -> None:
    rows = pl.concat([written(("The smelter cut output", "talc")), written(("The smelter cut output", "tin"))])
    decided = verify.new_examples(
        rows, against=verify.Against(), section=Synthesis(), expected=Answers(kind="label"), labels=LABELS
    )
    assert sorted(decided["reason"]) == ["label_outside_set", "new"]


def test_a_text_of_the_eval_split_is_refused() -> None:
    found = reasons(written(("The smelter cut output", "tin")), against=held_out("the smelter cut output."))
    assert list(found.values()) == ["stands_in_eval"]


def test_thirteen_words_in_a_row_from_eval_are_a_leak() -> None:
    source = "in the autumn of that year the company said that its old smelter near the river would close"
    row = written((f"A new story begins here: {source}, and then ends quite differently for all of them.", "tin"))
    assert list(reasons(row, against=held_out(source)).values()) == ["stands_in_eval"]
    assert list(reasons(row, against=held_out("in the autumn of that year")).values()) == ["new"]


def test_an_instruction_that_all_eval_texts_share_is_no_leak() -> None:
    instruction = "read the story below and name the one topic from the list that fits it best"
    evaluation = [f"{instruction}: story number {number}" for number in range(20)]
    row = written((f"{instruction}: a smelter shut its gates in the north", "tin"))
    assert list(reasons(row, against=held_out(*evaluation)).values()) == ["new"]


def test_close_vectors_are_a_semantic_duplicate() -> None:
    rows = written(("Tin output fell.", "tin"), ("Less cassiterite was smelted.", "tin"), ("A strike began.", "tin"))
    new = np.array([[1, 0, 0], [0.99, 0.14106736, 0], [0, 0, 1]], np.float32)
    vectors = verify.Vectors(new, np.array([[0, 0.199, 0.98]], np.float32), np.empty((0, 3), np.float32))
    against = verify.Against(known=verify.Known(["Workers walked out."]), vectors=vectors)
    found = reasons(rows, against=against)
    assert found["A strike began."] == "semantic_duplicate"
    assert sorted([found["Tin output fell."], found["Less cassiterite was smelted."]]) == ["new", "semantic_duplicate"]


def test_decisions_do_not_depend_on_the_order_of_rows() -> None:
    pytest.importorskip("rapidfuzz")
    rows = written(*[(f"story {number % 7} about tin and smelters", "tin") for number in range(20)])
    shuffled = rows.sample(fraction=1, shuffle=True, seed=1)
    how = {"against": known("story 3 of tin and smelters"), "section": Synthesis(), "expected": Answers(kind="label")}
    first = verify.new_examples(rows, labels=LABELS, **how)  # type: ignore[arg-type]
    second = verify.new_examples(shuffled, labels=LABELS, **how)  # type: ignore[arg-type]
    assert first.equals(second)


def test_leaks_are_found_after_normalising() -> None:
    assert verify.leaks(["Hello, World!", "3 + 4"], evaluation=["hello world", "3 - 4"]) == [True, False]


@given(st.lists(st.text(max_size=30), max_size=8), st.lists(st.text(max_size=30), max_size=8))
def test_texts_added_later_are_known_as_if_given_at_once(first: list[str], more: list[str]) -> None:
    grown, at_once = verify.Known(first).plus(more), verify.Known([*first, *more])
    assert grown.normalised == at_once.normalised
    assert grown.bags == at_once.bags


def test_similarities_do_not_depend_on_the_size_of_blocks() -> None:
    pytest.importorskip("rapidfuzz")
    rng = random.Random(0)
    bags = [" ".join(rng.choices(["ab", "abc", "b", "cd", "e"], k=8)) for _ in range(60)]
    whole = np.concatenate(list(cascade._similarities(bags, bags[:50], threshold=0.9)))
    blocks = list(cascade._similarities(bags, bags[:50], threshold=0.9, cells=100))
    assert len(blocks) == 30
    assert np.array_equal(np.concatenate(blocks), whole)


def test_importing_the_checks_loads_no_fuzzy_matcher() -> None:
    code = "import sys, balkit.verify; assert 'rapidfuzz' not in sys.modules and 'math_verify' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
