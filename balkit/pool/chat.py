"""Conversations as prompt and answer: rows with `messages` (role, content), or ShareGPT's turns (from, value)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_SYSTEM, _USER, _ASSISTANT = "system", "user", "assistant"
_ROLES = {
    "system": _SYSTEM, "developer": _SYSTEM,
    "user": _USER, "human": _USER, "prompter": _USER,
    "assistant": _ASSISTANT, "gpt": _ASSISTANT, "model": _ASSISTANT, "bot": _ASSISTANT, "chatgpt": _ASSISTANT,
}  # fmt: skip
_KEYS = (("role", "content"), ("from", "value"))


class NotReadable(ValueError):
    """A conversation that is no text between a user and an assistant."""


def is_chat(value: object) -> bool:
    """Whether a cell is a list of turns; an empty one is not."""
    turns = isinstance(value, Sequence) and not isinstance(value, str | bytes) and len(value) > 0
    return turns and all(isinstance(turn, Mapping) and _keys(turn) is not None for turn in value)  # type: ignore[attr-defined]


def prompt_of(value: Any) -> str:
    """What the assistant is asked: all that stands before its last turn, where that ends the conversation.

    One question is its text, after the system's, if any. A longer conversation names who speaks.
    Raises `NotReadable` for other roles, calls of tools and contents that are no text.
    """
    turns = _turns(value)
    if turns[-1][0] == _ASSISTANT:
        turns = turns[:-1]
    if not any(role == _USER and text for role, text in turns):
        raise NotReadable("is a conversation in which no user asks anything")
    if [role for role, _ in turns if role != _SYSTEM] == [_USER]:
        return "\n\n".join(text for _, text in turns if text)
    names = {_SYSTEM: "", _USER: "User: ", _ASSISTANT: "Assistant: "}
    return "\n\n".join(f"{names[role]}{text}" for role, text in turns)


def answer_of(value: Any) -> str | None:
    """The assistant's last turn, where it ends the conversation; None otherwise. Raises as `prompt_of` does."""
    role, text = _turns(value)[-1]
    return text if role == _ASSISTANT else None


def _turns(value: Any) -> list[tuple[str, str]]:
    return [_turn(turn, number) for number, turn in enumerate(value)]


def _turn(turn: Mapping[str, Any], number: int) -> tuple[str, str]:
    role_key, text_key = _keys(turn) or _KEYS[0]
    role = _ROLES.get(str(turn[role_key]).casefold())
    if role is None:
        raise NotReadable(f"is a conversation whose turn {number} is by {turn[role_key]!r}, not a user or an assistant")
    if turn.get("tool_calls") or turn.get("function_call"):
        raise NotReadable(f"is a conversation whose turn {number} calls a tool, which is no text")
    return role, _text(turn.get(text_key), number)


def _text(content: Any, number: int) -> str:
    """A turn's text; of a list of parts, the texts in it."""
    if isinstance(content, str):
        return content.strip()
    parts = content if isinstance(content, Sequence) and not isinstance(content, bytes) else [content]
    if not parts or not all(map(_is_text, parts)):
        raise NotReadable(f"is a conversation whose turn {number} has a content that is no text")
    return "\n".join(part["text"] for part in parts).strip()


def _is_text(part: object) -> bool:
    kind = part.get("type") if isinstance(part, Mapping) else None
    of_text = kind is None or "text" in str(kind)
    return of_text and isinstance(part, Mapping) and isinstance(part.get("text"), str)


def has_keys(names: set[str]) -> bool:
    """Whether these are a turn's keys."""
    return any(set(pair) <= names for pair in _KEYS)


def _keys(turn: Mapping[str, Any]) -> tuple[str, str] | None:
    """The names of a turn's role and text; a turn that calls a tool may lack the text."""
    return next((pair for pair in _KEYS if pair[0] in turn and (pair[1] in turn or "tool_calls" in turn)), None)
