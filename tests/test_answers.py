"""Reading, comparing and writing final answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balkit import answers
from balkit.recipe import Kind

TOPICS = ("earn", "acq", "tin", "income", "trade", "money-fx", "money-supply", "lead", "iron-steel")


def label(text: str) -> str | None:
    return answers.parse(text, kind="label", labels=TOPICS)


@pytest.mark.parametrize(
    "text",
    [
        'The topic for this news story is "earn" since operating net income rose.',
        'The most appropriate topic from the provided set would be "earn," as it reports profits.',
        "Net income rose. Topic: earn",
        "**Final answer:** earn",
        "Reasoning.\n\nAnswer: Earn.",
        'The story can be classified as "earn".',
        '"earn" is the most relevant topic for this story.',
        "The answer is \\boxed{earn}.",
        "earn",
        'The topic is "trade". On reflection, the topic is "earn".',
        'The topic is not "trade" but the correct topic is "earn".',
        'The best topic is "earn". The story also mentions "trade" and "lead".',
        'The story falls under the category of "earn" rather than "acq".',
    ],
)
def test_the_declared_label_is_read(text: str) -> None:
    assert label(text) == "earn"


def test_a_label_inside_another_word_is_not_found() -> None:
    assert label("The answer follows from the operating setting of the appropriate topic.") is None


def test_a_label_that_prose_only_mentions_is_not_declared() -> None:
    assert label("Net income was 3 mln dlrs, and trade in tin may lead to more.") is None


def test_a_hyphenated_label_is_not_taken_for_its_part() -> None:
    assert label('The topic is "money-fx".') == "money-fx"
    assert answers.parse('The topic is "money-fx".', kind="label", labels=("money", "earn")) is None


def test_a_formal_answer_outside_the_label_set_is_no_answer() -> None:
    assert label('The topic is "earn".\nAnswer: sports') is None


def test_two_labels_without_a_choice_between_them_declare_nothing() -> None:
    assert label("The appropriate topics include earn, acq and trade.") is None


def test_labels_with_spaces_and_symbols_are_whole_words() -> None:
    labels = ("Counting & Probability", "Probability", "C++", "C")
    assert answers.parse("Answer: Counting & Probability", kind="label", labels=labels) == "Counting & Probability"
    assert answers.parse("Answer: C++", kind="label", labels=labels) == "C++"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Answer: C", "C"),
        ("So the correct option is (C).", "C"),
        ("The answer is (C) Fill the glass", "C"),
        ("The answer is C, because water boils.", "C"),
        ("**Answer:** C) Fill", "C"),
        ("\\boxed{\\text{C}}", "C"),
        ("Answer: (B)\nNo, wait.\nAnswer: (C)", "C"),
        ("The answer is therefore (C).", "C"),
        ("Answer: Fill the glass", None),
        ("The answer is A marble", None),
        ("Answer: F", None),
    ],
)
def test_a_choice_is_a_letter_that_stands_alone(text: str, expected: str | None) -> None:
    assert answers.parse(text, kind="choice", choices=("A", "B", "C", "D")) == expected


@pytest.mark.parametrize(
    "text",
    [
        "The answer is (B). The answer is not (A).",
        "The answer is (B). The answer is certainly not (A).",
        "The answer is (B). The other option is (A), which is wrong.",
        "The answer is (B). A common wrong answer is (A).",
        "The answer is (B). An incorrect answer is A.",
    ],
)
def test_a_denial_declares_nothing(text: str) -> None:
    assert answers.parse(text, kind="choice", choices=("A", "B")) == "B"


def test_an_answer_may_be_that_something_is_not_so() -> None:
    assert answers.parse("Which option is wrong? The wrong option is (C).", kind="choice") == "C"
    assert answers.parse("Answer: not (A or B)", kind="text") == "not (A or B)"


def test_the_choices_of_a_prompt_are_its_letters_in_order() -> None:
    assert answers.offered("What?\n(A) one\n(B) two\n(C) three") == ("A", "B", "C")
    assert answers.offered("What? A. one B. two") == ("A", "B")
    assert answers.offered("Who wrote (A) thing?") == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The answer is 42.", "42"),
        ("Answer: $1,234.50", "$1,234.50"),
        ("So 6 * 7 = 42 apples.\n#### 42", "42"),
        ("The answer is 3 * 4 = 12 apples", "12"),
        ("The answer is 50%", "50%"),
        ("The answer is 3/4.", "3/4"),
        ("The answer is \\boxed{-7}.", "-7"),
        ("I have 42 apples.", None),
        ("The answer is: .5", ".5"),
    ],
)
def test_a_number_is_read_from_its_declaration(text: str, expected: str | None) -> None:
    assert answers.parse(text, kind="number") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The answer is: \\dfrac{37}{256}", "\\dfrac{37}{256}"),
        ("Hence the answer is $x = 3$. The answer is: 3", "3"),
        ("so \\boxed{\\frac{1}{\\sqrt{2}}} is right", "\\frac{1}{\\sqrt{2}}"),
        ("The answer is \\(\\frac{1}{3}\\) or approximately 0.333", "\\frac{1}{3}"),
        ("The answer is: $a = 2$, $d = 5$", "$a = 2$, $d = 5$"),
        ("Answer: 5!", "5!"),
        ("Answer: 3.5", "3.5"),
        ("so $x=\\boxed 9$.", "9"),
        ("It is \\boxed{5}. It divides $-1116$, so our answer is correct.", "5"),
        ("Two cases give \\boxed{5} each. So the answer is 10.", "10"),
        ("The day is a Friday, so the answer is Friday.", "Friday"),
    ],
)
def test_an_expression_is_read_with_its_braces(text: str, expected: str) -> None:
    assert answers.parse(text, kind="math") == expected


def test_a_free_text_answer_runs_to_the_end() -> None:
    assert answers.parse("Because.\nAnswer: Two things.\nAnd a third.", kind="text") == "Two things.\nAnd a third."
    assert answers.parse("Nothing is stated here.", kind="text") is None


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        ("1,234", "1234", True),
        ("$1,234.50", "1234.5", True),
        ("1/2", "0.5", True),
        ("1 1/2", "1.5", True),
        ("50%", "50", True),
        ("50%", "0.5", True),
        ("50%", "5", False),
        ("10000001", "10000000", False),
        ("−3", "-3", True),
        ("\\frac{3}{4}", "0.75", True),
        ("1/0", "2", False),
        ("12 dollars", "$12", True),
        ("1e999", "2", False),
    ],
)
def test_numbers_are_compared_as_numbers(left: str, right: str, equal: bool) -> None:
    assert answers.same([(left, right)], kind="number") == [equal]


ANSWERS = (
    "50%",
    "0.5",
    "50",
    "1/2",
    "1,500",
    "1 500",
    "1500.",
    "five",
    "Five.",
    "A",
    "a",
    "(a)",
    "a.",
    "B) x",
    ".",
    "C++",
)


@given(st.lists(st.sampled_from(ANSWERS), max_size=9), st.sampled_from(["number", "choice", "label", "text"]))
def test_groups_are_those_that_comparing_with_each_first_gives(said: list[str], kind: Kind) -> None:
    firsts: list[str] = []
    expected = []
    for answer in said:
        equal = answers.same([(first, answer) for first in firsts], kind=kind)
        expected.append(equal.index(True) if any(equal) else len(firsts))
        firsts += [] if any(equal) else [answer]
    assert answers.grouped([said], kind=kind) == [expected]


def test_a_small_letter_is_a_choice_where_it_is_the_whole_answer() -> None:
    assert [answers.letter(given) for given in ("b", "(b)", "b.", "B", "a stone", "")] == [
        "B",
        "B",
        "B",
        "B",
        None,
        None,
    ]
    assert answers.letter("d", choices=("A", "B")) is None


def test_choices_agree_by_letter_not_by_first_letter_of_a_word() -> None:
    pairs = [("C", "(C)"), ("(C) Fill", "C"), ("F", "Fill"), ("\\text{(A)}", "A")]
    assert answers.same(pairs, kind="choice") == [True, True, False, True]


def test_texts_agree_after_normalising() -> None:
    pairs = [("Paris.", "paris"), ("Paris", "London"), ("3 + 4", "3 - 4"), ("", "!")]
    assert answers.same(pairs, kind="text") == [True, False, False, False]


def test_completion_ends_in_one_answer_line() -> None:
    assert answers.completion("Six by seven.", "42") == "Six by seven.\nAnswer: 42"
    assert answers.completion("Six by seven.\nAnswer: 42", "42") == "Six by seven.\nAnswer: 42"
    assert answers.completion("Six by seven.\n**Answer:** 42.", "42") == "Six by seven.\nAnswer: 42"
    assert answers.completion("", "42") == "Answer: 42"


@given(st.text(max_size=80), st.sampled_from(["42", "earn", "\\frac{1}{2}"]))
@pytest.mark.long
def test_completing_twice_changes_nothing(rationale: str, answer: str) -> None:
    once = answers.completion(rationale, answer)
    assert answers.completion(once, answer) == once
    assert once.rpartition("\n")[2] == f"Answer: {answer}"


@given(st.text(max_size=200), st.sampled_from(TOPICS))
def test_what_completion_writes_parse_reads(rationale: str, answer: str) -> None:
    assert label(answers.completion(rationale, answer)) == answer


@given(st.text(max_size=300), st.sampled_from(["label", "choice", "number", "math", "text"]))
def test_any_text_can_be_read(text: str, kind: str) -> None:
    value = answers.parse(text, kind=kind, labels=TOPICS)  # type: ignore[arg-type]
    assert value is None or value


@pytest.mark.timeout(20)
@pytest.mark.parametrize("loop", ["the answer is ", "Answer: ", "\\boxed{", '"tin" is the ', "(A) ", "$", "-", "1"])
@pytest.mark.parametrize("kind", ["label", "choice", "number", "math", "text"])
def test_a_text_that_repeats_itself_is_read_in_time(loop: str, kind: str) -> None:
    answers.parse(loop * (50_000 // len(loop)), kind=kind, labels=TOPICS)  # type: ignore[arg-type]
