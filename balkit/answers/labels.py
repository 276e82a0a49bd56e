"""Which label a worked answer declares: whole words, in a sentence that declares, never by mere mention."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

_SENTENCE = re.compile(
    r"(?<=[.!?])(?<![A-Z]\.)[\"'”’)]*\s+|(?<=[a-z\"'”)][.!?:])(?=[A-Z])|(?<=[.!?][\"”])(?=[A-Z])|\n+"
)
#: The start of a line that states the answer formally: "Answer: X", "**Final answer:** X", "#### X", "Topic: X".
FORMAL_LINE = (
    r"^[ \t>*_#-]*(?:(?:the[ \t]+|my[ \t]+)?(?:final[ \t]+|correct[ \t]+)?"
    r"(?:answer|label|topic|category|class|option|choice)[ \t*_]*[:=][ \t*_]*|####[ \t]*(?=\S))"
)
_FORMAL = re.compile(FORMAL_LINE, re.IGNORECASE)
#: Words of a sentence that says to which label something belongs.
_DECLARES = re.compile(
    r"\b(?:answer|topics?|labels?|categor(?:y|ies)|class(?:es|ification)?|options?|choice|classified|categori[sz]ed"
    r"|label+ed|assign(?:ed)?|choose|chosen|select(?:ed)?|falls?\s+under|(?:best\s+)?fits?|match(?:es)?|aligns?"
    r"|appropriate|relevant)\b|\\boxed",
    re.IGNORECASE,
)
#: Directly before a label: "... is X", "... would be: X", "classified as X", "under the category of X".
_DIRECT = re.compile(
    r"(?:\b(?:is|be|are|was|as|under|choose|assign|select)|[:=])[\s:]*(?:[-•]\s*)?(?:(?:the|a|an)\s+)?"
    r"(?:(?:topic|label|category|class|answer|option)s?\s*(?:of\b|is\b|:)?\s*)?[\"'“‘*`(\[{]*$",
    re.IGNORECASE,
)
#: Directly after a label: "X is the best fit", "X would be the most appropriate topic".
_CHOSEN = re.compile(
    r"^[\"'”’*`)\]},.]*\s*(?:\([^)]*\)\s*)?(?:is|would be|was|seems|appears to be)\s+(?:therefore\s+|thus\s+)?"
    r"(?:the|assigned|chosen|selected|most|best)\b",
    re.IGNORECASE,
)
_REFUSED = re.compile(
    r"(?:\b(?:not|than|instead of|nor|unlike|neither)|n't(?:\s+be)?)\s+(?:be\s+|under\s+)?(?:the\s+|an?\s+)?"
    r"[\"'“‘*`(\[]*$",
    re.IGNORECASE,
)
_QUOTES = frozenset("\"'“”‘’`*")


@dataclass(frozen=True)
class _Mention:
    label: str
    strength: int  # 4 quoted and direct, 3 direct, 2 quoted, 1 bare


def named(text: str, labels: Sequence[str]) -> str | None:
    """The one label that the text declares, or None. The last formal line decides; else the last, clearest sentence."""
    labels = tuple(labels)
    if not labels:
        return None
    best: tuple[int, str] | None = None
    for sentence in reversed(_SENTENCE.split(text)):
        formal = _FORMAL.match(sentence)
        if formal:
            return _only(sentence[formal.end() :], labels)
        if best is None or best[0] < 3:
            found = _declared(sentence, labels) if _DECLARES.search(sentence) else None
            if found and (best is None or found[0] > best[0]):
                best = found
    whole = _whole(text, labels)
    return whole if best is None else best[1]


def _whole(text: str, labels: tuple[str, ...]) -> str | None:
    """A reply that is nothing but a label declares it."""
    return _spelling(text.strip().strip("\"'`*.() "), labels)


def _only(declared: str, labels: tuple[str, ...]) -> str | None:
    """The label of a formal line: what it starts with, or the only one that it names."""
    mentions = list(_mentions(declared, labels))
    start = re.match(r"[\s\"'“‘*`(\[{$\\]*", declared)
    opening = declared[start.end() :] if start else declared
    for mention in mentions:
        if opening.casefold().startswith(mention.label.casefold()):
            return mention.label
    names = {mention.label for mention in mentions}
    return names.pop() if len(names) == 1 else None


def _declared(sentence: str, labels: tuple[str, ...]) -> tuple[int, str] | None:
    mentions = list(_mentions(sentence, labels))
    if not mentions:
        return None
    strength = max(mention.strength for mention in mentions)
    strongest = [mention.label for mention in mentions if mention.strength == strength]
    if strength >= 3:
        return strength, strongest[-1]
    return (strength, strongest[0]) if len(set(strongest)) == 1 else None


def _mentions(sentence: str, labels: tuple[str, ...]) -> Iterator[_Mention]:
    for match in _pattern(labels).finditer(sentence):
        before, after = sentence[max(0, match.start() - 80) : match.start()], sentence[match.end() : match.end() + 80]
        label = _spelling(match[0], labels)
        if label is None or _REFUSED.search(before):
            continue
        quoted = before[-1:] in _QUOTES and after.lstrip(".,")[:1] in _QUOTES
        direct = bool(_DIRECT.search(before)) or (quoted and bool(_CHOSEN.match(after)))
        yield _Mention(label, 1 + quoted + 2 * direct)


def _spelling(found: str, labels: tuple[str, ...]) -> str | None:
    if found in labels:
        return found
    folded = [label for label in labels if label.casefold() == found.casefold()]
    return folded[0] if folded else None


@lru_cache(maxsize=64)
def _pattern(labels: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(set(labels), key=lambda label: (-len(label), label))
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])", re.IGNORECASE)
