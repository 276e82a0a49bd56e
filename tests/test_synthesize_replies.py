"""Reading written examples out of a teacher's JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balkit.synthesize import replies

ONE = '{"examples": [{"prompt": "What is 1 + 1?", "answer": "2"}]}'


@pytest.mark.parametrize(
    "text",
    [
        ONE,
        f"```json\n{ONE}\n```",
        f"```\n{ONE}",
        json.dumps(json.loads(ONE)["examples"]),
        ONE.replace('"2"', "2"),
        f"Here they are:\n{ONE}\nI hope this helps.",
    ],
)
def test_examples_are_read_with_or_without_a_fence(text: str) -> None:
    assert replies.examples(text).examples == (("What is 1 + 1?", "2"),)
    assert replies.examples(text).fault is None


@pytest.mark.parametrize("text", ["", "I cannot do that.", "{}", '{"examples": 3}', "[1", '"examples"', "null"])
def test_what_holds_no_examples_is_unparsable(text: str) -> None:
    parsed = replies.examples(text)
    assert (parsed.fault, parsed.examples) == ("unparsable", ())


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        (ONE, ()),
        (f"\n{ONE} ", ()),
        (f"```json\n{ONE}\n```", ("code fence",)),
        (f"Here they are:\n{ONE}", ("backslashes or prose",)),
        (json.dumps(json.loads(ONE)["examples"]), ("bare list",)),
        (ONE.replace('"2"', "2"), ("reply.examples.0.answer is no string",)),
        (ONE.replace('"answer"', '"why": "so", "answer"'), ("reply.examples.0.why is not asked for",)),
        (ONE.replace('{"examples"', '{"note": 1, "examples"'), ("reply.note is not asked for",)),
    ],
)
def test_what_a_reply_needed_beyond_the_schema_is_recorded(text: str, mended: tuple[str, ...]) -> None:
    parsed = replies.examples(text)
    assert (parsed.examples, parsed.fault, parsed.mended) == ((("What is 1 + 1?", "2"),), None, mended)


def test_our_check_of_the_schema_agrees_with_a_whole_validator() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(replies.SCHEMA)
    entries = [{"prompt": "a", "answer": "b"}, {"prompt": "a"}, {"prompt": 1, "answer": "b"}, "x", [], None]
    entries += [{"prompt": "a", "answer": "b", "more": 1}]
    values = [{"examples": [one]} for one in entries] + [{"examples": 1}, {"examples": []}, {}, [], 3, None, "x"]
    for value in values:
        assert (replies.misfit(value, schema) is None) == jsonschema.Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"examples": ' + "[" * 100_000])
def test_json_that_is_too_deep_is_unparsable(text: str) -> None:
    assert replies.examples(text).fault == "unparsable"


def test_entries_of_another_shape_are_counted_not_guessed() -> None:
    parsed = replies.examples('{"examples": [{"prompt": "a", "answer": "b"}, {"prompt": "a"}, "x", {"prompt": 1}]}')
    assert (parsed.examples, parsed.malformed) == ((("a", "b"),), 3)


def test_of_a_reply_that_breaks_off_the_whole_entries_are_read() -> None:
    parsed = replies.examples('{"examples": [{"prompt": "a", "answer": "b"}, {"prompt": "c", "ans')
    assert (parsed.examples, parsed.fault) == ((("a", "b"),), "cut_off")


@pytest.mark.parametrize(
    "broken",
    ['{"prompt": "c", "answer": }', '{"prompt": "c" "answer": "d"}', '{"prompt": "c", "answer": "d}'[:-1] + "}"],
)
def test_an_entry_that_is_no_json_does_not_take_its_neighbours_along(broken: str) -> None:
    first, last = '{"prompt": "a", "answer": "b"}', '{"prompt": "e", "answer": "f"}'
    parsed = replies.examples(f'{{"examples": [{first}, {broken}, {last}]}}')
    assert set(parsed.examples) <= {("a", "b"), ("e", "f")}
    assert ("a", "b") in parsed.examples
    assert parsed.malformed == 1 or parsed.fault == "cut_off"


def test_the_entries_around_a_broken_one_are_read() -> None:
    parsed = replies.examples(
        '{"examples": [{"prompt": "a", "answer": "b"}, {"prompt": "c"; }, {"prompt": "e", "answer": "f"}]}'
    )
    assert parsed.examples == (("a", "b"), ("e", "f"))
    assert (parsed.malformed, parsed.fault, parsed.mended) == (1, None, ("entries read one by one",))


def test_worked_answers_are_read_where_they_were_asked_for() -> None:
    entry = {"prompt": "a", "rationale": "So.\nAnswer: b", "answer": "b"}
    parsed = replies.examples(json.dumps({"examples": [entry, {"prompt": "c", "answer": "d"}]}), rationale=True)
    assert (parsed.rationales, parsed.examples) == (("So.\nAnswer: b", None), (("a", "b"), ("c", "d")))
    assert parsed.mended == ("reply.examples.1.rationale is missing",)
    assert set(json.loads(replies.schema(rationale=True))["properties"]["examples"]["items"]["required"]) == set(entry)


@pytest.mark.parametrize(
    "latex", [r"\frac{1}{2}", r"2 \times 3", r"\sqrt{2}", r"\neq", r"\beta", r"\theta", r"\right)"]
)
def test_latex_with_single_backslashes_is_read_as_meant(latex: str) -> None:
    parsed = replies.examples(f'{{"examples": [{{"prompt": "What is ${latex}$?", "answer": "{latex}"}}]}}')
    assert parsed.examples == ((f"What is ${latex}$?", latex),)
    assert parsed.mended


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param('{"prompt": "c", "answer": ' + "9" * 5_000 + "}", id="digits"),
        '{"prompt": "\\ud83d", "answer": "d"}',
    ],
)
def test_numbers_without_end_and_halves_of_characters_are_malformed(entry: str) -> None:
    parsed = replies.examples(f'{{"examples": [{{"prompt": "a", "answer": "b"}}, {entry}]}}')
    assert (parsed.examples, parsed.malformed, parsed.fault) == ((("a", "b"),), 1, None)


def test_a_rationale_that_cannot_be_stored_is_none() -> None:
    entry = '{"prompt": "a", "rationale": "\\udc00", "answer": "b"}'
    parsed = replies.examples(f'{{"examples": [{entry}]}}', rationale=True)
    assert (parsed.examples, parsed.rationales) == ((("a", "b"),), (None,))


@pytest.mark.parametrize("depth", [200, 3_000])
def test_lists_within_an_example_are_malformed_however_deep(depth: int) -> None:
    deep = "[" * depth + "]" * depth
    assert replies.examples(f'{{"examples": [{{"prompt": {deep}, "answer": "b"}}]}}').examples == ()


@pytest.mark.parametrize("thought", ["see [1]", 'perhaps {"examples": []}', "two\nlines"])
def test_what_was_thought_before_the_reply_is_passed_over(thought: str) -> None:
    parsed = replies.examples(f"<think>{thought}</think>\n```json\n{ONE}\n```")
    assert (parsed.examples, parsed.fault) == ((("What is 1 + 1?", "2"),), None)
    assert parsed.mended == ("thoughts", "code fence")


@pytest.mark.parametrize("prompt", ["Somma:\ne poi?", "Um\nu dois", "Let\ne = 5. What is 2e?"])
def test_a_line_that_begins_with_a_letter_of_its_own_is_no_latex(prompt: str) -> None:
    parsed = replies.examples(json.dumps({"examples": [{"prompt": prompt, "answer": "5"}]}))
    assert (parsed.examples, parsed.mended) == (((prompt, "5"),), ())


@given(st.lists(st.tuples(st.text(max_size=40), st.text(max_size=20)), max_size=4))
def test_what_was_written_as_json_is_read_back(pairs: list[tuple[str, str]]) -> None:
    body = json.dumps({"examples": [{"prompt": prompt, "answer": answer} for prompt, answer in pairs]})
    parsed = replies.examples(body)
    assert parsed.malformed == 0
    assert parsed.mended or parsed.examples == tuple(pairs)


@given(st.text(max_size=200))
def test_any_reply_can_be_read(text: str) -> None:
    replies.examples(text)


def test_a_long_unclosed_reply_is_read_in_time() -> None:
    assert replies.examples('{"examples": [' + '{"prompt": "a",' * 20_000).fault == "unparsable"
