"""What can be seen of one row alone: empty, unreadable, cut, refused, foreign, too long."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator

from balkit import answers as answers_
from balkit.auditing.material import Material
from balkit.auditing.rows import Finding, quoted
from balkit.languages import language
from balkit.texts import normalised
from balkit.verify.marks import CONTROL_TOKENS, REFUSES_WITHIN

_USED = 0.5  # of the rows that have an answer, from which one without is missing it
_SPOKEN = 0.15  # of the rows; a language that fewer are in is another language
_KNOWN = 0.5  # of the rows that are in such a language, below which a set is in many
_OF_A_DOMAIN = 0.5  # of a domain's rows: there the language is the domain's own
_PROSE_WORDS = 12  # of a mathematical answer without a sign or digit

_REFUSED_WITHIN = 250  # characters from the start
_ENDS_FINE = re.compile(r"(?:[.!?…。！？:;\])}\"'”’»$`*%°]|\\\]|\\\))\s*$")
_BREAKS_OFF = re.compile(
    r"(?:[,(\[{=*<>&\\-]|(?<!\S)[+/]|(?<![\w'’])"
    r"(?:the|a|an|of|to|and|or|but|is|are|was|were|with|by|in|on|at|for|from|that|which|as|so|then|than|because|since|if|when|its|we|have|be|can|will|this|these|therefore|thus|hence))\s*$"
)
#: What may stand behind the last sentence: emphasis that closes, tags, a rule.
_MARKUP = re.compile(r"(?:\s|(?<=[^\s*_])[*_]+|</?[A-Za-z][\w-]*>|(?<=\n)(?:-{3,}|\*{3,}|_{3,}))+$")
_MARKED = 200  # characters at the end in which it is looked for
_CHOOSES = re.compile(r"\b(?:answer|option|choice)\b[*\s]*(?:is|[:=])|\(?[A-Z]\)[.\s]*$", re.IGNORECASE)
_ANSWERS = re.compile(
    r"^[\s*_#>]*(?:the\s+)?(?:final\s+|correct\s+)?(?:answer|label|topic|category|class|option|choice)\b[\s*_]*"
    r"(?:is\b|:|=)*[\s*_:]*",
    re.IGNORECASE,
)
_USUAL_END = 0.8  # of the rationales that end in a full stop or the like, from which another end is odd


def empty(material: Material) -> Iterator[Finding]:
    """`empty_prompt`, `missing_answer`."""
    rows = material.rows
    used = sum(answer is not None for answer in rows.answers) >= _USED * len(rows)
    for index, (prompt, answer) in enumerate(zip(rows.prompts, rows.answers, strict=True)):
        if not prompt.strip():
            yield Finding(index, "empty_prompt", "no text")
        if used and (answer is None or not answer.strip()):
            yield Finding(index, "missing_answer", "no answer")


def unreadable(material: Material) -> Iterator[Finding]:
    """`unreadable_answer`: no number where numbers are expected, prose for an expression, no letter for a choice."""
    rows, kind = material.rows, material.kind
    if kind not in ("number", "math", "choice"):
        return
    for index, answer in enumerate(rows.answers):
        if answer is None or not answer.strip():
            continue
        if kind == "math":
            bad = is_prose(answer) or not re.search(r"\w|\\", answer)
        elif kind == "number":
            bad = answers_.parse(f"Answer: {answer}", kind=kind) is None
        else:
            bad = not material.options[index] and answers_.letter(answer) is None
        if bad:
            yield Finding(index, "unreadable_answer", f"{quoted(answer)} is no {_CALLED[kind]}")


def is_prose(answer: str) -> bool:
    """Whether an answer that should be an expression is a sentence without any sign or digit."""
    return len(answer.split()) > _PROSE_WORDS and not re.search(r"[\d\\$^=]", answer)


_CALLED = {"number": "number", "math": "mathematical expression", "choice": "choice's letter"}


def control_tokens(material: Material) -> Iterator[Finding]:
    """`control_tokens` in prompt, answer or rationale."""
    for index, name, text, worked in _texts(material):
        found = CONTROL_TOKENS.search(text)
        if found:
            said = f"the character U+{ord(found[0]):04X}" if len(found[0]) == 1 else quoted(found[0])
            yield Finding(index, "control_tokens", f"{name} holds {said}", worked=worked)


def _texts(material: Material) -> Iterator[tuple[int, str, str, int | None]]:
    """Every text with its row, what it is, and which of the row's worked answers."""
    rows = material.rows
    for index, (prompt, answer, worked) in enumerate(zip(rows.prompts, rows.answers, rows.rationales, strict=True)):
        yield index, "the prompt", prompt, None
        yield index, "the answer", answer or "", None
        for place, text in enumerate(worked):
            yield index, "the rationale", text, place


def refusal(material: Material) -> Iterator[Finding]:
    """`refusal`: the answer or rationale begins as a model's refusal does."""
    for index, name, text, worked in _texts(material):
        found = REFUSES_WITHIN.search(text[:_REFUSED_WITHIN]) if name != "the prompt" else None
        if found:
            yield Finding(index, "refusal", f"{name} says {quoted(text[found.start() :])}", worked=worked)


def rationales(material: Material) -> Iterator[Finding]:
    """`empty_rationale`, `truncated_rationale`."""
    worked = [_without_markup(text) for row in material.worked for text in row if text.strip()]
    fine = sum(bool(_ENDS_FINE.search(text[-20:])) or _declares(_last_line(text), material) for text in worked)
    usual = fine >= _USUAL_END * max(1, len(worked))
    for index, texts in enumerate(material.worked):
        answer = material.rows.answers[index]
        if material.rows.has_rationales and len(worked) >= _USED * len(material.rows) and not texts:
            yield Finding(index, "empty_rationale", "no rationale")
        for place, text in enumerate(texts):
            worked_at = place if material.rows.rationales[index] else None
            said, known = normalised(_ANSWERS.sub("", text)), normalised(answer or "")
            if material.rows.has_rationales and (not text.strip() or (known and said == known) or not said):
                only = f"only {quoted(text)}" if text.strip() else "no rationale"
                yield Finding(index, "empty_rationale", only, worked=worked_at)
            elif (how := _truncated(_without_markup(text), material, usual=usual)) is not None:
                detail = f"{how}: {quoted('…' + text.rstrip()[-60:])}"
                yield Finding(index, "truncated_rationale", detail, worked=worked_at)


def _without_markup(text: str) -> str:
    text = text.rstrip()
    return text[:-_MARKED] + _MARKUP.sub("", text[-_MARKED:])


def _truncated(text: str, material: Material, *, usual: bool) -> str | None:
    """How a worked answer breaks off, or None."""
    last = _last_line(text)
    if _declares(last, material):
        return None
    if text.count("```") % 2:
        return "a block of code is open at the end"
    if _BREAKS_OFF.search(last):
        return "ends within a sentence"
    if len(re.findall(r"(?<!\\)\$\$", text)) % 2 or (text.count("\\[") > text.count("\\]") and "\\]" in text):
        return "a formula is open at the end"
    if usual and not _ENDS_FINE.search(last[-20:]) and not re.search(r"\d\s*$", last):
        return "ends without a full stop"
    return None


def _last_line(text: str) -> str:
    return text.rstrip().splitlines()[-1][-300:] if text.strip() else ""


def _declares(line: str, material: Material) -> bool:
    if material.kind == "text":
        return False
    sentence = re.split(r"(?<=[.!?])\s+", line)[-1]
    if material.kind == "choice":
        return bool(_CHOOSES.search(sentence)) and not _BREAKS_OFF.search(sentence)
    return answers_.parse(sentence, kind=material.kind, labels=material.labels) is not None and not _BREAKS_OFF.search(
        sentence
    )


def other_language(material: Material) -> Iterator[Finding]:
    """`other_language`: a prompt or rationale in a language that few rows are in, and few of its domain."""
    rows = material.rows
    prompts = [language(prompt) for prompt in rows.prompts]
    worked = [language(texts[0]) if texts else None for texts in material.worked]
    for name, place, found in (("the prompt", None, prompts), ("the rationale", 0, worked)):
        counted = Counter(code for code in found if code is not None)
        spoken = {code for code, count in counted.items() if count >= _SPOKEN * counted.total()}
        if sum(counted[code] for code in spoken) < _KNOWN * counted.total():
            continue
        of_domain: dict[str | None, Counter[str]] = defaultdict(Counter)
        for domain, code in zip(rows.domains, found, strict=True):
            if code is not None and domain is not None:
                of_domain[domain][code] += 1
        for index, code in enumerate(found):
            own = of_domain[rows.domains[index]]
            if code is None or code in spoken or (own and own[code] >= _OF_A_DOMAIN * own.total()):
                continue
            most = counted.most_common(1)[0][0]
            at = place if rows.rationales[index] else None
            yield Finding(index, "other_language", f"{name} is in {code}, most are in {most}", worked=at)


def too_long(material: Material) -> Iterator[Finding]:
    """`too_long_for_student`: prompt with a rationale, or the answer."""
    rows, limit, count = material.rows, material.limits.max_tokens, material.counter.count
    for index, (prompt, answer, worked) in enumerate(zip(rows.prompts, rows.answers, rows.rationales, strict=True)):
        replies: list[tuple[int | None, str]] = [
            (place, answers_.completion(text, answer or "")) for place, text in enumerate(worked)
        ]
        for place, reply in replies or ((None, answer or ""),):
            if 4 * (len(prompt) + len(reply)) <= limit:  # no vocabulary makes more tokens than UTF-8 has bytes
                continue
            tokens = count(prompt) + count(reply)
            if tokens > limit:
                yield Finding(index, "too_long_for_student", f"{tokens:,} tokens, at most {limit:,}", worked=place)
