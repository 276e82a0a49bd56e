"""Texts: when two of them say the same, and ids that never change."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balkit import texts

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Hello, world!", "hello  world"),
        ("If $f(6)-f(2)=12$, what is $f(2)?$", "If $f(6) - f(2) = 12,$ what is $f(2)$?"),
        ("Solve $2x^{2}+3x-5=0$.", "Solve $2x^2 + 3x - 5=0.$"),
        (r"Simplify $\left( 3 \right)$", r"Simplify $(3)$"),
        ("Add 1.5, 2 and 3", "add 1.5 2 and 3"),
        ("My order 5521 is late!", "My order 5521 is late."),
        ("Order 5521 (late)", "Order 5521 late"),
    ],
)
def test_a_text_laid_out_in_another_way_is_the_same(one: str, other: str) -> None:
    assert texts.normalised(one) == texts.normalised(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3 + 4", "3 - 4"),
        ("x^2 - 2018", "x^2 + 2018"),
        ("f(-2)", "-f(2)"),
        ("1.5", "15"),
        ("5!", "5"),
        ("$$", "..."),
        ("f(x) = 2", "fx = 2"),
        ("x! = 6", "x = 6"),
    ],
)
def test_a_sign_that_means_something_is_kept(one: str, other: str) -> None:
    assert texts.normalised(one) != texts.normalised(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("two\r\nlines", "two\nlines"),
        ("two\rlines", "two\nlines"),
        ("  around \n", "around"),
        ("at the end \t\nof a line", "at the end\nof a line"),
        ("caf\u0065\u0301", "caf\u00e9"),
    ],
)
def test_line_ends_outer_space_and_composition_do_not_make_another_text(one: str, other: str) -> None:
    assert texts.canonical(one) == texts.canonical(other) == other
    assert texts.example_id(one, one) == texts.example_id(other, other)


@pytest.mark.parametrize(("one", "other"), [("a b", "a  b"), ("A", "a"), ("  x\n  y", "x\ny"), ("x²", "x2")])
def test_what_may_mean_something_stays_in_the_canonical_text(one: str, other: str) -> None:
    assert texts.canonical(one) != texts.canonical(other)


@given(st.text())
def test_the_canonical_text_is_its_own(text: str) -> None:
    assert texts.canonical(texts.canonical(text)) == texts.canonical(text)


#: Weighted towards what the rules speak of; digits that are none in ASCII, letters that fold to several.
RULED = st.lists(
    st.sampled_from(list("abZ19 .,!?()[]${}\\:;'\"-+=_~^\n\t\r\x1c\x85\u00a0 ²①፩፲½Ⅷßéİﬁ语א\u0301\u2028"))
    | st.sampled_from(["\\left", "\\right", "late! ", " (late)", "3.5", " .5", "x^{2}"])
    | st.characters()
).map("".join)


@settings(max_examples=500)
@given(RULED)
def test_texts_have_the_forms_that_their_rules_say(text: str) -> None:
    assert texts.normalised(text) == normalised_by_the_rules(text)
    lines = unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n")
    assert texts.canonical(text) == re.sub(r"[ \t\f\v]+(?=\n|$)", "", lines).strip()
    body = json.dumps([text], sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    assert texts.digest([text]) == hashlib.sha256(body.encode("utf-8", "surrogatepass")).hexdigest()


def normalised_by_the_rules(text: str) -> str:
    """`texts.normalised` without short cuts."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    if not any(c.isdigit() for c in folded) and any(c.isalpha() for c in folded):
        return re.sub(r"[\W_]+", " ", folded).strip()
    bare = re.sub(r"[${}]|\\(?:left|right)\b|\\[!,;: ]", "", folded)
    bare = re.sub(r"[\"'`‘’“”?;:,]|\.(?!\d)", " ", bare)
    prose = r"(?<=[^\W\d_]{2})!+(?=\s|$)|(?<!\S)[(\[](?=[^\W\d_]{2})|(?<=[^\W\d_]{2})[)\]](?!\S)"
    bare = " ".join(re.sub(prose, " ", bare).split())
    return re.sub(r"\s*([^\w\s])\s*", r"\1", bare) or " ".join(folded.split())


# Ids are stored in pools and ledgers: these may change with a migration only, never by themselves.
@pytest.mark.parametrize(
    ("found", "kept"),
    [
        (
            texts.digest({"b": [1, None, True, 0.5], "a": "é"}),
            "053a7d2a0a9acf213955a0a4d3f45fe236adf30be7254193316a6e47c35e59d6",
        ),
        (texts.example_id("What is 2 + 2?", "4"), "999f58736dddd9ff34023cec1d0f5f75c208524b10c51c07d0e0f8f87a7a8cef"),
        (texts.example_id("What is 2 + 2?", None), "5c39da7570a9212d2e4dd06f0cf05922cedbef1379fd2b439fb746aa771c4461"),
        (
            texts.rationale_id("e", "2 + 2 = 4\nAnswer: 4", "4", "given"),
            "dfc8fca47fae08652390b17e3215fbb8863c97095401f4f41ae652b10b6222eb",
        ),
        (texts.rank_key(7, "a", 1), "65dd50c66877d6d11e48a1c35e0899398702fcf1d3a0d4bfa7a0cbcee32697dc"),
    ],
)
def test_ids_are_what_they_were(found: str, kept: str) -> None:
    assert found == kept


@given(JSON)
def test_a_digest_survives_json_and_the_order_of_keys(value: object) -> None:
    def turned(part: object) -> object:
        if isinstance(part, dict):
            return {key: turned(part[key]) for key in reversed(part)}
        return [turned(item) for item in part] if isinstance(part, list) else part

    assert texts.digest(turned(json.loads(json.dumps(value)))) == texts.digest(value)


def test_a_digest_is_the_same_in_another_process() -> None:
    code = "from balkit import texts; print(texts.digest({'b': 1, 'a': {'d': 2, 'c': 3}}))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert said.strip() == texts.digest({"a": {"c": 3, "d": 2}, "b": 1})


def test_nan_has_no_digest() -> None:
    with pytest.raises(ValueError, match="JSON"):
        texts.digest(float("nan"))


def test_a_text_with_half_a_character_has_a_digest() -> None:
    assert texts.digest("\ud800") != texts.digest("?")


def test_a_changed_answer_is_another_example() -> None:
    ids = {texts.example_id("p", reference) for reference in ("4", "5", "", None)}
    assert len(ids) == 4


def test_the_parts_of_an_id_cannot_run_into_each_other() -> None:
    assert texts.example_id("ab", "c") != texts.example_id("a", "bc")
    assert texts.rank_key(1, "2", "3") != texts.rank_key(1, "23")


def test_a_rank_key_depends_on_seed_and_parts_alone() -> None:
    assert texts.rank_key(1, "a", 2) == texts.rank_key(1, "a", 2)
    assert texts.rank_key(1, "a") != texts.rank_key(2, "a")
    assert texts.rank_key(1, "a") != texts.rank_key(1, "b")
