"""Reading the JSON in which a teacher writes new examples."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from balkit import texts

#: What a reply is to be: asked of the provider where it can be, and always checked here.
SCHEMA = (
    '{"additionalProperties":false,"properties":{"examples":{"items":{"additionalProperties":false,"properties":'
    '{"answer":{"type":"string"},"prompt":{"type":"string"}},"required":["prompt","answer"],"type":"object"},'
    '"type":"array"}},"required":["examples"],"type":"object"}'
)
_WITH_RATIONALE = SCHEMA.replace(
    '{"answer":{"type":"string"},"prompt":{"type":"string"}},"required":["prompt","answer"]',
    '{"answer":{"type":"string"},"prompt":{"type":"string"},"rationale":{"type":"string"}},'
    '"required":["prompt","rationale","answer"]',
)
#: Where the next entry of a list begins.
_NEXT = re.compile(r"\}\s*,\s*(?=\{)")
#: JSON that breaks off or is none, an integer of more digits than Python takes, and lists within lists without end.
_UNREADABLE = (ValueError, RecursionError)
#: What a reasoning model thought before it replied.
_THOUGHT = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)
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
_SWALLOWED = re.compile(r"[\x08\x0c]|\t(?:ext|imes|an|au|heta|frac|riangle|o\b)|\r(?:ight|ho|angle)|\n(?:eq|abla)")


@dataclass(frozen=True)
class Parsed:
    """Examples read out of one reply. `fault`: `unparsable` or `cut_off`, then only what was whole was read."""

    examples: tuple[tuple[str, str], ...]  # (prompt, answer)
    rationales: tuple[str | None, ...] = ()  # one an example
    malformed: int = 0  # entries that are not a prompt and an answer
    fault: str | None = None
    mended: tuple[str, ...] = ()  # what the second step did, where the text as it came did not fit the schema


def schema(*, rationale: bool) -> str:
    """The JSON Schema of a reply."""
    return _WITH_RATIONALE if rationale else SCHEMA


def examples(text: str, *, rationale: bool = False) -> Parsed:
    """The examples of a reply.

    First as it is: one JSON value that fits its schema. Else a second step mends what can be mended without guessing,
    and says so: thoughts, a code fence or prose around the JSON, LaTeX backslashes that JSON would swallow, the bare
    list, answers that are numbers, keys that nobody asked for, an entry that is no JSON, which is left out, and a reply
    that breaks off, of which the entries before the break are kept.
    """
    wanted = json.loads(schema(rationale=rationale))
    try:
        value = json.loads(text)
    except _UNREADABLE:
        return _second_step(text, wanted)
    if misfit(value, wanted) or _SWALLOWED.search(_all_text(value)):
        return _second_step(text, wanted)
    return _parsed(value["examples"], fault=None, mended=())


def misfit(value: Any, schema: dict[str, Any], place: str = "reply") -> str | None:
    """Where a value first departs from a JSON Schema; None where it fits. Knows the words that `SCHEMA` uses."""
    kind = {"object": dict, "array": list, "string": str}[schema["type"]]
    if not isinstance(value, kind):
        return f"{place} is no {schema['type']}"
    if isinstance(value, list):
        parts = [(f"{place}.{at}", part, schema["items"]) for at, part in enumerate(value)]
    elif isinstance(value, dict):
        names = schema["properties"]
        wrong = [f"{place}.{name} is missing" for name in schema["required"] if name not in value]
        wrong += [f"{place}.{name} is not asked for" for name in value if name not in names]
        if wrong:
            return wrong[0]
        parts = [(f"{place}.{name}", value[name], names[name]) for name in value]
    else:
        return None
    return next((found for where, part, inner in parts if (found := misfit(part, inner, where))), None)


def _second_step(text: str, wanted: dict[str, Any]) -> Parsed:
    reply = _THOUGHT.sub("", text)
    fenced = _FENCE.match(reply)
    body = (fenced[1] if fenced else reply).strip()
    mended = ["thoughts"] * (reply != text) + ["code fence"] * (fenced is not None)
    try:
        value = json.loads(body)
    except _UNREADABLE:
        value = _second_try(body)
        mended.append("backslashes or prose")
    if value is not None and _SWALLOWED.search(_all_text(value)):
        value = _second_try(body) or value
        mended.append("backslashes")
    if value is None:
        return _one_by_one(_LATEX.sub(r"\1\\\\", body))
    entries = value.get("examples") if isinstance(value, dict) else value
    if not isinstance(entries, list):
        return Parsed((), fault="unparsable")
    misfits = misfit({"examples": entries} if entries is value else value, wanted)
    mended += ["bare list"] if entries is value else []
    return _parsed(entries, fault=None, mended=(*mended, *([misfits] if misfits else [])))


def _parsed(entries: list[Any], *, fault: str | None, mended: tuple[str, ...]) -> Parsed:
    read = [(pair, _rationale(entry)) for entry in entries if (pair := _entry(entry)) is not None]
    pairs, rationales = tuple(pair for pair, _ in read), tuple(worked for _, worked in read)
    return Parsed(pairs, rationales, malformed=len(entries) - len(read), fault=fault, mended=mended)


def _entry(entry: Any) -> tuple[str, str] | None:
    if not isinstance(entry, dict):
        return None
    prompt, answer = entry.get("prompt"), entry.get("answer")
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    return (prompt, answer) if _is_text(prompt) and _is_text(answer) else None


def _rationale(entry: dict[str, Any]) -> str | None:
    found = entry.get("rationale")
    return found if _is_text(found) and found.strip() else None


def _is_text(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and texts.is_whole(value)


def _second_try(body: str) -> Any:
    """The JSON with LaTeX backslashes doubled, or the JSON inside prose; None where neither reads."""
    escaped = _LATEX.sub(r"\1\\\\", body)
    first, last = escaped.find("{"), escaped.rfind("}")
    for candidate in (escaped, escaped[first : last + 1]):
        try:
            return json.loads(candidate)
        except _UNREADABLE:
            continue
    return None


def _one_by_one(body: str) -> Parsed:
    """The objects of a list that is no JSON as a whole: one that cannot be read does not take the others along."""
    decoder, entries, broken = json.JSONDecoder(), list[Any](), 0
    at, is_whole = body.find("[") + 1, False
    while at > 0:
        start = body.find("{", at)
        if start < 0 or body[at:start].strip(" \t\r\n,"):
            is_whole = body[at:].lstrip(" \t\r\n,").startswith("]")
            break
        try:
            entry, at = decoder.raw_decode(body, start)
            entries.append(entry)
        except _UNREADABLE:
            following = _NEXT.search(body, start)
            if following is None:
                is_whole = body.rstrip().endswith(("]", "]}")) and bool(entries)
                broken += is_whole
                break
            at, broken = following.end(), broken + 1
    parsed = _parsed(entries, fault=None if is_whole else "cut_off" if entries else "unparsable", mended=())
    if not (is_whole or broken) or not entries:
        return parsed
    return replace(parsed, malformed=parsed.malformed + broken, mended=("entries read one by one",))


def _all_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return " ".join(map(_all_text, value.values()))
    return " ".join(map(_all_text, value)) if isinstance(value, list) else ""
