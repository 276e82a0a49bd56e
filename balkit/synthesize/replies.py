"""Reading the JSON in which a teacher writes new examples."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

_FENCE = re.compile(r"^\s*```[a-zA-Z]*\s*\n(.*?)(?:\n```\s*)?$", re.DOTALL)
#: LaTeX commands that begin like a JSON escape: unescaped, "\frac" would be read as a form feed and "rac".
_COMMANDS = (
    "bar|because|begin|beta|between|bigcap|bigcup|big|binom|bmod|bot|boxed|bullet"
    "|fbox|flat|forall|frac|frown"
    "|nabla|natural|nearrow|neg|neq|ne|ngeq|nleq|nmid|not|notin|nparallel|nu|nsubseteq"
    "|rangle|rbrace|rceil|rfloor|rho|rightarrow|right|rm|root"
    "|tan|tanh|tau|text[a-z]*|tfrac|therefore|theta|tilde|times|to|top|triangle|triangleq"
    "|underline|underbrace|union|uparrow|upsilon|u(?![0-9a-fA-F]{4})"
)
_LATEX = re.compile(rf"(?<!\\)((?:\\\\)*)\\(?=(?:{_COMMANDS})(?![a-z])|[^\"\\/bfnrtu])")
#: What such commands become when JSON swallows their backslash.
_SWALLOWED = re.compile(
    r"[\x08\x0c]|\t(?:ext|imes|an|au|heta|frac|riangle|o\b)|\r(?:ight|ho|angle)|\n(?:eq|abla|u\b|e\b)"
)


@dataclass(frozen=True)
class Parsed:
    """Examples read out of one reply. `fault`: `unparsable` or `cut_off`, then only what was whole was read."""

    examples: tuple[tuple[str, str], ...]  # (prompt, answer)
    malformed: int = 0  # entries that are not a prompt and an answer
    fault: str | None = None
    repaired: bool = False  # unescaped LaTeX was escaped, or prose around the JSON left out


def examples(text: str) -> Parsed:
    """The examples of a reply, inside a code fence or not, as `{"examples": [...]}` or as the bare list.

    What is mended is said: LaTeX backslashes that JSON would swallow, prose around the JSON, and a reply that breaks
    off, of which the entries before the break are kept.
    """
    fenced = _FENCE.match(text)
    body = (fenced[1] if fenced else text).strip()
    try:
        value, repaired = json.loads(body), False
    except json.JSONDecodeError:
        value, repaired = _second_try(body), True
    if value is not None and _SWALLOWED.search(_all_text(value)):
        value, repaired = _second_try(body) or value, True
    if value is None:
        whole = _whole_entries(_LATEX.sub(r"\1\\\\", body))
        return _parsed(whole, fault="cut_off" if whole else "unparsable", repaired=False)
    entries = value.get("examples") if isinstance(value, dict) else value
    if not isinstance(entries, list):
        return Parsed((), fault="unparsable")
    return _parsed(entries, fault=None, repaired=repaired)


def _parsed(entries: list[Any], *, fault: str | None, repaired: bool) -> Parsed:
    read = [_entry(entry) for entry in entries]
    found = tuple(pair for pair in read if pair is not None)
    return Parsed(found, malformed=len(read) - len(found), fault=fault, repaired=repaired)


def _entry(entry: Any) -> tuple[str, str] | None:
    if not isinstance(entry, dict):
        return None
    prompt, answer = entry.get("prompt"), entry.get("answer")
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    return (prompt, answer) if isinstance(prompt, str) and isinstance(answer, str) else None


def _second_try(body: str) -> Any:
    """The JSON with LaTeX backslashes doubled, or the JSON inside prose; None where neither reads."""
    escaped = _LATEX.sub(r"\1\\\\", body)
    first, last = escaped.find("{"), escaped.rfind("}")
    for candidate in (escaped, escaped[first : last + 1]):
        try:
            return json.loads(candidate)
        except json.JSONDecodeError:
            continue
    return None


def _whole_entries(body: str) -> list[Any]:
    """The objects that stand complete at the start of the list of a reply that breaks off."""
    decoder, entries = json.JSONDecoder(), list[Any]()
    at = body.find("[") + 1
    while at > 0:
        start = body.find("{", at)
        if start < 0 or body[at:start].strip(" \t\r\n,"):
            return entries
        try:
            entry, at = decoder.raw_decode(body, start)
        except json.JSONDecodeError:
            return entries
        entries.append(entry)
    return entries


def _all_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return " ".join(map(_all_text, value.values()))
    return " ".join(map(_all_text, value)) if isinstance(value, list) else ""
