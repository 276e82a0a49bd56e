"""Reading the declared final answer out of a worked answer, and writing one at its end."""

from __future__ import annotations

import re
from collections.abc import Sequence

from balkit.answers.labels import FORMAL_LINE, named
from balkit.recipe import Kind

#: Bounds for texts that repeat themselves, as a poor student's do: declarations looked at, characters of each.
_LAST, _LONGEST = 20, 2000
_FORMAL = re.compile(FORMAL_LINE, re.IGNORECASE | re.MULTILINE)
#: A declaration inside a line: "the answer is X", "the correct option would be X", "answer: X". None of another one:
#: "the other option is X", "a common wrong answer is X". ("The wrong option is X" may be what was asked for.)
_INLINE = re.compile(
    r"\b(?<!\bother\s)(?:answer|option|choice|result)\b(?<!\bwrong\sanswer)(?<!\bincorrect\sanswer)"
    r"[ \t*_]*(?:is|are|was|would be|should be|must be|[:=])[ \t]*[:=]?[ \t*_]*"
    r"(?:(?:therefore|thus|then|simply|indeed|clearly)\b[ \t,]*)?",
    re.IGNORECASE,
)
#: With braces, or around the one character that TeX takes without them.
_BOXED = re.compile(r"\\f?box(?:ed)?(?:\s*\{|\s+(-?\w))")
#: "the answer is not X", "... is certainly not X"
_DENIED = re.compile(r"[\s*_]*(?:[a-z]+ly\s+)?not\b", re.IGNORECASE)
#: What prose about an answer ("so our answer is correct") lacks.
_MATHEMATICAL = re.compile(r"[\d$\\]")
#: No "!" or "?": "5!" is a number.
_SENTENCE_END = re.compile(r"(?<!\b[A-Z])\.(?=[\"”’)*]*(?:\s|$))|\.(?=[A-Z][a-z])")
_LETTER = re.compile(
    r"^[\s*_`\"'“$]*(?:(?:option|choice|answer|letter)\s+)?(?:\\text\s*\{)?[\s*_`\"'“]*"
    r"(?:\(\s*([A-Za-z])\s*\)|([A-Z])(?=[\s*_`\"'”}$]*(?:$|[).:,;\-–—\]]|\s(?:is|because|since|as|for|which)\b)))"
)
_ALONE = re.compile(r"[a-z][.)]?")
_BRACKETED = re.compile(r"(?<![A-Za-z])\(([A-Z])\)")
_OPTION = re.compile(r"(?:^|[\s,;])\(?([A-Z])[).:](?=\s*\S)")
_NUMBER = re.compile(
    r"[-−+]?\s*[$€£¥]?\s*[-−]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:\.\d+)?(?<=\d)(?:[eE][-+]?\d{1,3}\b)?"
    r"(?:\s*/\s*\d+|\s+\d+/\d+)?\s?%?|\\d?t?frac\s*\{\s*-?\d+\s*\}\s*\{\s*\d+\s*\}"
)
_MATH = re.compile(r"^\s*(?:\$\$(.+?)\$\$|\$(.+?)\$|\\\((.+?)\\\)|\\\[(.+?)\\\])", re.DOTALL)

_MORE_MATH = re.compile(r"\s*(?:,|and\b|,\s*and\b)[^.]*?(?:\$|\\\()")


def parse(text: str, *, kind: Kind, labels: Sequence[str] = (), choices: Sequence[str] = ()) -> str | None:
    """The final answer that a worked answer declares, or None where it declares none.

    The last declaration wins. `label`: one of `labels`, in their spelling, named as a whole word. `choice`: one of
    `choices` (letters; empty: any letter). `number`, `math`, `text`: what is declared, without its wrapping.
    """
    if kind == "label":
        return named(text, labels)
    if kind == "choice" and any(len(choice) > 1 for choice in choices):
        return named(text, choices)
    found = _declarations(text, whole=kind == "text")
    if kind == "math":
        found = _without_asides(found)
    for how, declared in reversed(found):
        if how == "inline" and kind != "text" and _DENIED.match(declared):
            continue
        value = _value(declared, kind=kind, choices=choices)
        if value:
            return value
    return None


def letter(answer: str, *, choices: Sequence[str] = ()) -> str | None:
    """The letter, a capital, that a stored answer to a multiple-choice prompt is: "B", "(b)", "b." or "B. a text".

    Unlike in prose, a small letter that stands alone counts. None for what is no letter, or none of `choices`.
    """
    bare = answer.strip()
    return parse(f"Answer: {bare.upper() if _ALONE.fullmatch(bare) else bare}", kind="choice", choices=choices)


def offered(prompt: str) -> tuple[str, ...]:
    """The letters of the choices that a multiple-choice prompt lists ("(A) ... (B) ..."); empty where it lists none."""
    return tuple(options(prompt))


def options(prompt: str) -> dict[str, str]:
    """The choices that a multiple-choice prompt lists: each letter's text; empty where it lists none."""
    found: list[re.Match[str]] = []
    for match in _OPTION.finditer(prompt):
        if match[1] == chr(ord("A") + len(found)):
            found.append(match)
        elif match[1] == "A" and len(found) == 1:  # what came before was no list ("vitamin A. Which ...")
            found = [match]
    ends = [*(match.start() for match in found[1:]), len(prompt)]
    if len(found) < 2:
        return {}
    return {match[1]: prompt[match.end() : end].strip(" \t\n,;") for match, end in zip(found, ends, strict=True)}


def completion(rationale: str, answer: str) -> str:
    """The text that a student learns and is asked for: the rationale, ending in one last line `Answer: <answer>`.

    A declaration that already closes the rationale and says exactly this is not doubled. An empty answer adds nothing.
    """
    body, answer = rationale.strip(), answer.strip()
    if not answer:
        return body
    closing = f"Answer: {answer}"
    for match in reversed(list(_FORMAL.finditer(body))):
        said = body[match.end() :].strip()
        if answer in (said, said.rstrip(".").strip("*_ ")):
            before = body[: match.start()].rstrip()
            return f"{before}\n{closing}" if before else closing
    return f"{body}\n{closing}" if body else closing


def restated(rationale: str, answer: str) -> str:
    """The worked answer with another final one: its last formal line, and what follows, give way to `Answer: ...`."""
    body = rationale.strip()
    last = [match.start() for match in _FORMAL.finditer(body)][-1:] or [len(body)]
    return completion(body[: last[0]], answer)


def _declarations(text: str, *, whole: bool) -> list[tuple[str, str]]:
    """How each of the last declarations is made (formal, inline, boxed), and what follows it, in the text's order.

    `whole`: a formal line runs to the end.
    """
    formal = {match.end() for match in _FORMAL.finditer(text)}
    starts = [(end, "formal") for end in formal]
    starts += [(match.end(), "inline") for match in _INLINE.finditer(text) if match.end() not in formal]
    boxed = {match.end(): match for match in _BOXED.finditer(text)}
    starts += [(end, "boxed") for end in boxed]
    found = []
    for start, how in sorted(starts)[-_LAST:]:
        if how == "boxed":
            found.append((how, _inside(text, boxed[start]) or ""))
        elif how == "formal" and whole:
            found.append((how, text[start:]))
        else:
            found.append((how, text[start : start + _LONGEST].lstrip().partition("\n")[0]))
    return found


def _without_asides(found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Without what prose says of an answer, and not as one, after a box or a formal line has given it."""
    given = next((place for place, (how, _) in enumerate(found) if how != "inline"), len(found))
    return [
        (how, declared)
        for place, (how, declared) in enumerate(found)
        if how != "inline" or place < given or _MATHEMATICAL.search(_first_sentence(declared))
    ]


def _value(declared: str, *, kind: Kind, choices: Sequence[str]) -> str | None:
    boxed = _BOXED.search(declared)
    if boxed and kind != "text":
        declared = _inside(declared, boxed) or declared
    if kind == "choice":
        return _letter(declared, choices)
    if kind == "number":
        return _number(declared)
    return _math(declared) if kind == "math" else declared.strip().strip("*_").strip() or None


def _inside(text: str, boxed: re.Match[str]) -> str | None:
    """What a box holds."""
    return boxed[1] or _braced(text, boxed.end())


def _braced(text: str, start: int) -> str | None:
    """What stands between a brace opened before `start` and the one that closes it."""
    depth = 1
    for at in range(start, min(len(text), start + _LONGEST)):
        escaped = text[at - 1] == "\\"
        depth += (text[at] == "{" and not escaped) - (text[at] == "}" and not escaped)
        if depth == 0:
            return text[start:at]
    return None


def _letter(declared: str, choices: Sequence[str]) -> str | None:
    match = _LETTER.match(declared)
    bracketed = set(_BRACKETED.findall(declared))
    if match:
        letter = (match[1] or match[2]).upper()
    elif len(bracketed) == 1:
        letter = bracketed.pop()
    else:
        return None
    return letter if not choices or letter in {choice.upper() for choice in choices} else None


def _number(declared: str) -> str | None:
    sentence = _first_sentence(declared)
    after_equals = sentence.rpartition("=")[2]
    match = _NUMBER.search(after_equals) or _NUMBER.search(sentence)
    return " ".join(match[0].split()) if match else None


def _math(declared: str) -> str | None:
    match = _MATH.match(declared)
    if match and not _MORE_MATH.match(declared[match.end() :]):
        return next(group for group in match.groups() if group is not None).strip() or None
    return _first_sentence(declared).strip().strip("*").rstrip(" .").strip() or None


def _first_sentence(text: str) -> str:
    end = _SENTENCE_END.search(text)
    return text[: end.start()] if end else text
