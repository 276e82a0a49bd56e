"""Whether two final answers say the same."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from fractions import Fraction
from itertools import combinations

from balkit import texts
from balkit.answers.mathematics import equal_expressions
from balkit.recipe import Kind

_CURRENCY = re.compile(r"[$€£¥]|\b(?:usd|eur|gbp|dollars?|euros?|cents?)\b", re.IGNORECASE)
_PLAIN = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d{1,3})?", re.IGNORECASE)
_RATIO = re.compile(r"([-+]?\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)")
_MIXED = re.compile(r"([-+]?)(\d+) (\d+)/(\d+)")
_FRAC = re.compile(r"([-+]?)\\[dt]?frac\{\s*(-?\d+)\s*\}\{\s*(\d+)\s*\}")
_THOUSANDS = re.compile(r"(?<=\d)[,\u00a0\u202f](?=\d{3}(?!\d))")
_LONGEST_NUMBER = 64  # characters; a longer one is compared as text
_LETTER = re.compile(r"^\W*(?:\\text\s*\{)?\W*([A-Za-z])(?:\W*$|[).:]\s)")


def same(pairs: Iterable[tuple[str, str]], *, kind: Kind, timeout_s: float = 5.0) -> list[bool]:
    """Whether the two answers of each pair agree, in the pairs' order.

    `label`, `choice`, `text`: equal after normalising. `number`: exactly equal as numbers (thousands separators,
    currency and fractions understood; where only one side has a percent sign both readings are tried).
    `math`: by math-verify in a child process that is killed when one pair takes over `timeout_s` seconds of CPU
    (that pair is then False); texts that are equal already cost nothing. Raises `MissingExtra` without math-verify.
    """
    pairs = list(pairs)
    if kind == "math":
        return _same_math(pairs, timeout_s=timeout_s)
    equal = {"number": _same_number, "choice": _same_choice}.get(kind, _same_text)
    return [equal(left, right) for left, right in pairs]


def grouped(answers: Sequence[Sequence[str | None]], *, kind: Kind) -> list[list[int | None]]:
    """Of each list, which of its answers are the same: equal numbers, counted from 0 in the order of the list.

    An answer joins the first group whose first answer it equals; None stays None. All lists are compared in one batch.
    """
    if kind != "math":
        return [_numbered(one, kind) for one in answers]
    pairs = sorted({pair for one in answers for pair in combinations(dict.fromkeys(filter(None, one)), 2)})
    equal = {pair for pair, verdict in zip(pairs, same(pairs, kind=kind), strict=True) if verdict}
    found = []
    for one in answers:
        firsts: list[str] = []
        numbers: list[int | None] = []
        for answer in one:
            if not answer:
                numbers.append(None)
                continue
            at = next((n for n, first in enumerate(firsts) if first == answer or (first, answer) in equal), len(firsts))
            firsts += [answer] if at == len(firsts) else []
            numbers.append(at)
        found.append(numbers)
    return found


def _numbered(given: Sequence[str | None], kind: Kind) -> list[int | None]:
    """`grouped` of one list, in a time that grows with its length alone."""
    firsts: dict[Hashable, int] = {}
    numbers: list[int | None] = []
    count = 0
    for answer in given:
        if not answer:
            numbers.append(None)
            continue
        own, sought = _keys(answer, kind)
        at = min((firsts[key] for key in sought if key in firsts), default=count)
        if at == count:
            count += 1
            for key in own:
                firsts.setdefault(key, at)
        numbers.append(at)
    return numbers


def _keys(answer: str, kind: Kind) -> tuple[list[Hashable], list[Hashable]]:
    """What an answer is known by, and by what those are that `same` says are the same."""
    text = _folded(answer) or ("canonical", texts.canonical(answer))
    match = _LETTER.match(answer.strip()) if kind == "choice" else None
    value = _value(answer) if kind == "number" else None
    if match:
        letter = ("letter", match[1].upper())
        return [letter, ("other", text)], [letter, ("text", text)]
    if value is None:
        return [("text", text)], [("text", text), ("other", text)]
    percent = "%" in answer
    across = (value / 100, False) if percent else (value * 100, True)
    return [(value, percent), ("other", text)], [(value, percent), (value, not percent), across, ("text", text)]


def _same_text(left: str, right: str) -> bool:
    return texts.canonical(left) == texts.canonical(right) or _folded(left) == _folded(right) != ""


def _folded(answer: str) -> str:
    return texts.normalised(answer.strip().rstrip("."))


def _same_choice(left: str, right: str) -> bool:
    letters = [_LETTER.match(side.strip()) for side in (left, right)]
    if all(letters):
        return len({match[1].upper() for match in letters if match}) == 1
    return _same_text(left, right)


def _same_number(left: str, right: str) -> bool:
    a, b = _value(left), _value(right)
    if a is None or b is None:
        return _same_text(left, right)
    one_percent = ("%" in left) != ("%" in right)
    return a == b or (one_percent and (a == b * 100 if "%" in left else b == a * 100))


def _value(answer: str) -> Fraction | None:
    """The number that an answer is, its percent sign left aside; None where it is none."""
    text = _CURRENCY.sub("", answer.replace("−", "-").replace("\\$", "").replace("\\%", "%"))
    text = _THOUSANDS.sub("", text.strip().rstrip(".").replace("%", "").strip())
    text = re.sub(r"\s*/\s*", "/", text).replace("- ", "-")
    if len(text) > _LONGEST_NUMBER:
        return None
    if _PLAIN.fullmatch(text):
        return Fraction(text)
    mixed, ratio, frac = _MIXED.fullmatch(text), _RATIO.fullmatch(text), _FRAC.fullmatch(text)
    try:
        if mixed:
            size = int(mixed[2]) + Fraction(int(mixed[3]), int(mixed[4]))
            return -size if mixed[1] == "-" else size
        if frac:
            return Fraction(int(frac[2]), int(frac[3])) * (-1 if frac[1] == "-" else 1)
        return Fraction(ratio[1]) / Fraction(ratio[2]) if ratio else None
    except ZeroDivisionError:
        return None


def _same_math(pairs: list[tuple[str, str]], *, timeout_s: float) -> list[bool]:
    equal = [_bare(left) == _bare(right) for left, right in pairs]
    asked = [index for index, known in enumerate(equal) if not known and all(side.strip() for side in pairs[index])]
    found = equal_expressions([pairs[index] for index in asked], timeout_s=timeout_s)
    for index, verdict in zip(asked, found, strict=True):
        equal[index] = verdict
    return equal


def _bare(expression: str) -> str:
    """An expression without what only changes its look; only for telling equal texts apart quickly."""
    text = re.sub(r"\\[dt]frac", r"\\frac", expression.strip().strip("$").rstrip("."))
    return re.sub(r"\\left|\\right|\\[!,;: ]|\s+", "", text)
