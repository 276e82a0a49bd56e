"""Texts and their digests: what makes two prompts, two examples or two recipes the same."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from typing import Any

_SPACE_AT_LINE_END = re.compile(r"[ \t\f\v]+(?=\n|$)")
_HALF_PAIR = re.compile(r"[\ud800-\udfff]")
_NOT_WORD = re.compile(r"[\W_]+")
_LAYOUT = re.compile(r"[${}]|\\(?:left|right)\b|\\[!,;: ]")
_PAUSE = re.compile(r"[\"'`‘’“”?;:,.](?<!\.(?=\d))")  # a set first is searched for faster than an alternative
#: Signs that only lay out prose, since whole words stand beside them: "late!", "(late)".
_PROSE = re.compile(r"(?<=[^\W\d_]{2})!+(?=\s|$)|(?<!\S)[(\[](?=[^\W\d_]{2})|(?<=[^\W\d_]{2})[)\]](?!\S)")
#: A space beside a sign, in a text whose spaces are single.
_BESIDE_SIGN = re.compile(r" (?:(?=[^\w\s])|(?<=[^\w\s] ))")
_IN_LAYOUT, _IN_PROSE = re.compile(r"[${}\\]"), re.compile(r"[!()\[\]]")  # without one the rule has nothing to find
_DIGIT, _LETTER = re.compile(r"[0-9]"), re.compile(r"[a-z]")  # of folded ASCII
_WORDS_OF_ASCII = {code: " " for code in range(128) if not chr(code).isalnum()}
_JSON = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def canonical(text: str) -> str:
    """The stored form of a prompt or answer: NFC, Unix line ends, no space at line ends or around the text."""
    text = unicodedata.normalize("NFC", text)  # at once for ASCII
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return (_SPACE_AT_LINE_END.sub("", text) if "\n" in text else text).strip()


def is_whole(text: str) -> bool:
    """Whether a text can be stored: half of a surrogate pair cannot."""
    return text.isascii() or _HALF_PAIR.search(text) is None


def normalised(text: str) -> str:
    """The form in which leaks are looked for: case-folded, NFKC, one space between tokens.

    Words lose their punctuation ("Hello, world!" equals "hello world"). A text with digits or without letters keeps
    its signs, since there a sign is meaning ("3 + 4" is not "3 - 4"), and loses only what lays it out: pauses, signs
    between whole words, LaTeX's dollars and braces, spaces around a sign ("$x^{2} + 1.$" equals "x^2+1").
    """
    if text.isascii():
        folded = text.lower()
        if _LETTER.search(folded) and not _DIGIT.search(folded):
            return " ".join(folded.translate(_WORDS_OF_ASCII).split())
        return _signed(folded)
    folded = unicodedata.normalize("NFKC", text).casefold()
    if any(map(str.isdigit, folded)) or not any(map(str.isalpha, folded)):
        return _signed(folded)
    return _NOT_WORD.sub(" ", folded).strip()


def _signed(folded: str) -> str:
    """A folded text without what only lays out its signs."""
    bare = _LAYOUT.sub("", folded) if _IN_LAYOUT.search(folded) else folded
    bare = _PAUSE.sub(" ", bare)
    bare = _PROSE.sub(" ", bare) if _IN_PROSE.search(bare) else bare
    return _BESIDE_SIGN.sub("", " ".join(bare.split())) or " ".join(folded.split())


def digest(value: Any) -> str:
    """sha256 (64 hex digits) of a JSON value, independent of the order of keys."""
    return hashlib.sha256(_JSON.encode(value).encode("utf-8", "surrogatepass")).hexdigest()


def example_id(prompt: str, reference: str | None) -> str:
    """The identity of an example: a changed reference answer is another example."""
    return digest([canonical(prompt), None if reference is None else canonical(reference)])


def rationale_id(example: str, text: str, answer: str | None, source: str) -> str:
    """The identity of a rationale; `source` is the key of the call that wrote it, or who did."""
    return digest([example, text, answer, source])


def rank_key(seed: int, *parts: object) -> str:
    """A pseudo-random sort key: depends on the seed and the parts, never on row order or the process."""
    return digest([seed, *(str(part) for part in parts)])
