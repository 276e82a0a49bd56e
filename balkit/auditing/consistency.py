"""Whether the stored answer is one that the row allows, and the one that its rationale declares."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from balkit import answers as answers_
from balkit.auditing.form import is_prose
from balkit.auditing.material import SHORT_ANSWER, TIMEOUT_S, Material
from balkit.auditing.rows import Finding, quoted
from balkit.texts import canonical, normalised

_NUMBERS = re.compile(r"[-−]?\d[\d,]*(?:\.\d+)?")
_SENTENCES = re.compile(r"(?<=[.!?])\s+|\n+")
_WORDS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_SHOWN = 8  # labels that a detail names
_FORMAL_LINE = re.compile(
    r"^[ \t>*_#-]*(?:the[ \t]+)?(?:final[ \t]+)?answer[ \t*_]*(?:[:=]|is)[ \t*_]*(.+?)[ \t*_.]*$",
    re.IGNORECASE | re.MULTILINE,
)


def choices(material: Material) -> Iterator[Finding]:
    """`answer_not_among_choices`, `repeated_choices`."""
    if material.kind != "choice":
        return
    for index, (answer, options) in enumerate(zip(material.rows.answers, material.options, strict=True)):
        if not options:
            continue
        texts = [_as_choice(text) for text in options.values()]
        twice = next((text for text in texts if text and texts.count(text) > 1), None)
        if twice is not None:
            yield Finding(index, "repeated_choices", f"{quoted(twice)} stands {texts.count(twice)} times")
        if answer and chosen(answer, options) is None:
            first = next((letter for letter, text in options.items() if text[:1].upper() == answer.strip()), None)
            hint = f"; it is the first letter of {first}'s text" if first else ""
            yield Finding(index, "answer_not_among_choices", f"{quoted(answer)}, not one of {', '.join(options)}{hint}")


def chosen(answer: str, options: dict[str, str]) -> str | None:
    """The letter of the choice that an answer stands for: by its letter, or by its text; None for none of them."""
    letter = answers_.parse(f"Answer: {answer}", kind="choice", choices=tuple(options))
    for form in (_as_choice, normalised):
        same = [one for one, text in options.items() if form(text) == form(answer) != ""]
        if letter or same:
            return letter or same[0]
    return answers_.letter(answer, choices=tuple(options))


def _as_choice(text: str) -> str:
    """The form in which choices are the same: signs stay, since C is neither C++ nor C#."""
    return " ".join(canonical(text).casefold().split()).rstrip(".")


def labels(material: Material) -> Iterator[Finding]:
    """`label_outside_set`."""
    if material.kind != "label" or not material.labels:
        return
    known = set(material.labels)
    listed = ", ".join(material.labels[:_SHOWN]) + (", …" if len(known) > _SHOWN else "")
    for index, answer in enumerate(material.rows.answers):
        if answer and answer not in known:
            yield Finding(index, "label_outside_set", f"{quoted(answer)} is none of {len(known)} labels ({listed})")


def prose(material: Material) -> Iterator[Finding]:
    """`label_from_prose`: the label stands in the rationale inside of other words alone, and is not what it declares.

    A word that begins with the label counts where another label is declared ("earn" is not far from "earnings").
    """
    if material.kind != "label":
        return
    for index, (answer, worked) in enumerate(zip(material.rows.answers, material.worked, strict=True)):
        for text in worked if answer else ():
            assert answer is not None
            declared = answers_.parse(text, kind="label", labels=material.labels)
            if declared == answer:
                break
            within = _inside(text, answer)
            begins = within is not None and within.casefold().startswith(answer.casefold())
            if within is not None and (declared is not None or not begins):  # "earnings" may well be meant for "earn"
                yield Finding(
                    index, "label_from_prose", f"{quoted(answer)} stands in {quoted(within)}, and nowhere else"
                )
                break


def _inside(text: str, label: str) -> str | None:
    """The word that holds a label which stands nowhere as a word of its own."""
    low, sought = text.casefold(), label.casefold()
    if sought not in low:
        return None
    if re.search(rf"(?<![\w-]){re.escape(sought)}(?![\w-])", low):
        return None
    found = re.search(rf"[\w-]*{re.escape(sought)}[\w-]*", low)
    return found[0] if found else None


def contradictions(material: Material) -> Iterator[Finding]:
    """`answer_contradicts_rationale`: of every row whose rationale declares another answer, the last declaration.

    A choice is one that the prompt offers, by letter or by text; a label is a whole word; numbers and expressions are
    compared as such. Nothing is said of a rationale that declares nothing.
    """
    pairs: list[tuple[int, int, str, str, str]] = []  # row, place of the rationale, stored answer, declared one, text
    for index, (answer, worked) in enumerate(zip(material.rows.answers, material.worked, strict=True)):
        for place, text in enumerate(worked if answer and answer.strip() else ()):
            assert answer is not None
            found = _declared(text, answer, material, index)
            if found is not None and found[0] != found[1]:
                pairs.append((index, place, *found, text))
    same = answers_.same(
        [(stored, declared) for _, _, stored, declared, _ in pairs], kind=material.kind, timeout_s=TIMEOUT_S
    )
    for (index, place, stored, declared, text), equal in zip(pairs, same, strict=True):
        if not equal and not _said_last(text, stored, declared, material):
            said = f"stored {quoted(stored)}, declared {quoted(declared)}"
            at = place if material.rows.rationales[index] else None
            yield Finding(index, "answer_contradicts_rationale", said, worked=at)


def _declared(text: str, answer: str, material: Material, index: int) -> tuple[str, str] | None:
    """The stored and the declared answer in forms that can be compared, or None where there is nothing to compare."""
    kind = material.kind
    if kind == "choice":
        if not material.rows.prompts[index].strip():
            return None
        return _declared_choice(text, answer, material.options[index])
    if kind == "label":
        if answer not in material.labels:
            return None
        declared = answers_.parse(text, kind="label", labels=material.labels)
        return None if declared is None else (answer, declared)
    if kind == "text":
        return _declared_text(text, answer)
    if kind == "math" and is_prose(answer):
        return None
    declared = answers_.parse(text, kind=kind)
    stored = answers_.parse(f"Answer: {answer}", kind=kind) if kind == "number" else answer
    if (
        declared is not None
        and kind == "math"
        and len(_WORDS.findall(declared)) > len(_WORDS.findall(answer)) + SHORT_ANSWER
    ):
        return None  # prose about an answer ("check our answer: if n = 7, then ...")
    return None if declared is None or stored is None else (stored, declared)


def _declared_choice(text: str, answer: str, options: dict[str, str]) -> tuple[str, str] | None:
    stored = chosen(answer, options) if options else answers_.parse(f"Answer: {answer}", kind="choice")
    if stored is None:
        letter = answers_.parse(f"Answer: {answer}", kind="choice")
        stored = letter or answers_.letter(answer) or answer
    declared = _last_choice(text, options)
    return None if declared is None else (stored, declared)


def _last_choice(text: str, options: dict[str, str]) -> str | None:
    """The letter that the last sentence which declares a choice declares, by its letter or by its text."""
    letters, said = tuple(options), list(options.values())
    by_text = {one: letter for letter, one in options.items()} if all(len(one) > 1 for one in said) else {}
    for sentence in reversed(_SENTENCES.split(text.strip())):
        letter = answers_.parse(sentence, kind="choice", choices=letters)
        named = answers_.parse(sentence, kind="choice", choices=said) if by_text and letter is None else None
        if letter or named:
            return letter or by_text[named or ""]
    return answers_.parse(text, kind="choice", choices=letters)


def _declared_text(text: str, answer: str) -> tuple[str, str] | None:
    """A short free answer against a line `Answer: ...` of the rationale; neither may be a part of the other."""
    lines = _FORMAL_LINE.findall(text)
    if not lines or len(answer.split()) > SHORT_ANSWER or len(lines[-1].split()) > 2 * SHORT_ANSWER:
        return None
    stored, declared = normalised(answer), normalised(lines[-1])
    apart = not set(stored.split()) & set(declared.split())
    return (answer, lines[-1]) if apart and stored and declared else None


def _said_last(text: str, stored: str, declared: str, material: Material) -> bool:
    """Whether the rationale ends on the stored answer after all, in words that are not read as a declaration."""
    last = _last_sentence(text)
    if material.kind == "number":
        ends = _NUMBERS.findall(last)
        return bool(ends) and any(answers_.same([(stored, end) for end in ends[-1:]], kind="number"))
    if material.kind == "math":
        bare = re.sub(r"[\s${}]|\\[dt]?frac|\\left|\\right", "", stored)
        tail = re.sub(r"[\s${}]|\\[dt]?frac|\\left|\\right", "", last)
        return len(bare) > 0 and tail.rstrip(".)]").endswith(bare) and not declared.strip().endswith(stored)
    return False


def _last_sentence(text: str) -> str:
    parts: Sequence[str] = _SENTENCES.split(text.strip())
    return parts[-1] if parts else ""
