"""Of which kind the answers are, and which labels there are, where nobody says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import cast, get_args

from balkit import answers as answers_
from balkit.auditing.rows import Rows
from balkit.recipe import Kind

KINDS: tuple[Kind, ...] = cast("tuple[Kind, ...]", get_args(Kind))

_NUMBER = re.compile(r"\s*[-−+]?\s*[$€£¥]?\s*[-−]?\d[\d,]*(?:\.\d+)?(?:\s*/\s*\d+)?\s?(?:%|[A-Za-z°]{1,12})?\.?\s*")
_MATHS = re.compile(r"\\[A-Za-z]+|[\^_=]|\d\s*[+*/-]|\bsqrt\b|[([]\s*-?\d[^)\]]*,")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_LETTER = re.compile(r"\s*\(?[A-Za-z]\)?(?:[.):]\s.*|\s*\.?\s*)")

_SHORT_WORDS = 6  # of a label at most
_MOST = 0.7  # of the answers, for a kind to be theirs
_LATEX = 0.05  # of the answers, from which numbers are mathematics
_USED = 3  # rows that a label has at least, to count as one


def kind_of(rows: Rows) -> Kind:
    """The kind that most answers are of: choice, number, math, label, else text."""
    known = [(prompt, answer) for prompt, answer in zip(rows.prompts, rows.answers, strict=True) if answer]
    if not known:
        return "text"
    given = [answer for _, answer in known]
    if sum(bool(answers_.options(prompt)) for prompt, _ in known) >= _MOST * len(known):
        letters = sum(bool(_LETTER.fullmatch(answer)) or _is_choice(prompt, answer) for prompt, answer in known)
        if letters >= _MOST * len(known):
            return "choice"
    maths = sum(bool(_MATHS.search(answer)) and len(_WORD.findall(answer)) <= _SHORT_WORDS for answer in given)
    numbers = sum(bool(_NUMBER.fullmatch(answer)) for answer in given)
    latex = sum("\\" in answer or "$" in answer[1:] for answer in given)
    if numbers + maths >= _MOST * len(given):
        return "math" if latex >= _LATEX * len(given) else "number"
    counted = Counter(given)
    often = sum(count for label, count in counted.items() if count >= _USED and len(label.split()) <= _SHORT_WORDS)
    return "label" if often >= _MOST * len(given) else "text"


def _is_choice(prompt: str, answer: str) -> bool:
    return answer.strip().casefold() in (text.casefold() for text in answers_.options(prompt).values())


def label_set(rows: Rows, given: Sequence[str] | None) -> tuple[str, ...]:
    """The labels: the given ones; the domains, where most answers are one; else the answers that several rows have.

    Empty where none can be told.
    """
    if given:
        return tuple(dict.fromkeys(given))
    known = [answer for answer in rows.answers if answer]
    domains = {domain for domain in rows.domains if domain}
    if len(domains) > 1 and sum(answer in domains for answer in known) >= 0.5 * len(known):
        return tuple(sorted(domains))
    counted = Counter(known)
    return tuple(sorted(label for label, count in counted.items() if not _stray(label, counted)))


def _stray(label: str, counted: Counter[str]) -> bool:
    """A rare answer that is no label: a sentence, or another spelling of a label that ten times as many rows have."""
    if counted[label] >= _USED:
        return False
    if len(label.split()) > _SHORT_WORDS or "\n" in label:
        return True
    usual = [other for other, count in counted.items() if count >= max(_USED, 10 * counted[label])]
    rare = sum(count < _USED for count in counted.values())
    return (len(usual) > 1 and rare > 2 * len(usual)) or any(_like(label, other) for other in usual)


def _like(label: str, other: str) -> bool:
    """The same letters in another dress, or a label with words around it."""
    bare = re.sub(r"[\W_]+", " ", label).strip().casefold()
    known = re.sub(r"[\W_]+", " ", other).strip().casefold()
    return bool(known) and (bare == known or f" {known} " in f" {bare} ")
