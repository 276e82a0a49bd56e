"""Which language a text is in, and when nothing is said."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from balkit.languages import language, spoken

pytest.importorskip("py3langid")

GERMAN = "Eine Urne enthält fünf rote und drei blaue Kugeln. Wie groß ist die Wahrscheinlichkeit für eine rote?"
ENGLISH = "A jar holds five red marbles and three blue ones. What is the probability of drawing a red one?"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (ENGLISH, "en"),
        (GERMAN, "de"),
        ("Combien de façons y a-t-il de choisir trois livres parmi les dix livres de la bibliothèque ?", "fr"),
        ("В коробке лежат пять красных и три синих шара. Какова вероятность вынуть красный шар?", "ru"),
        ("盒子里有五个红球和三个蓝球，随机取出一个球，取到红球的概率是多少？", "zh"),
    ],
)
def test_a_text_of_a_few_words_has_its_language(text: str, code: str) -> None:
    assert language(text) == code


@pytest.mark.parametrize("text", ["", "42", r"Compute $\binom{8}{4}$.", r"\[x^2 + 1 = 0\]", "acq usa", "😀" * 50])
def test_what_is_hardly_language_has_none(text: str) -> None:
    assert language(text) is None


def test_formulas_and_code_do_not_change_the_language_of_the_words_around_them() -> None:
    assert (
        language(GERMAN + r" $\text{where the answer is } \frac{a}{b}$ ```the quick brown fox of the hill```") == "de"
    )


def test_a_corpus_speaks_the_languages_that_more_than_strays_are_in() -> None:
    assert spoken([ENGLISH] * 30 + [GERMAN]) == {"en"}
    assert spoken([ENGLISH] * 6 + [GERMAN] * 4) == {"en", "de"}
    assert spoken(["42", "7"]) == frozenset()


@pytest.mark.skipif("BALKIT_REAL_DATA" not in os.environ, reason="BALKIT_REAL_DATA is not set")
def test_no_real_math_problem_is_taken_for_another_language() -> None:
    file = Path(os.environ["BALKIT_REAL_DATA"]) / "long_tail_kd" / "math" / "corpus.jsonl"
    texts = [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    found = [language(text) for text in texts]
    assert {code for code in found if code is not None} == {"en"}
    assert sum(code == "en" for code in found) > 0.5 * len(texts)
