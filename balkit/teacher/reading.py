"""Reading what a provider says of its answer, none of which is taken on trust."""

from __future__ import annotations

from typing import Any

#: A count of tokens from which on it is no count.
ABSURD = 2**40


def text_of(content: Any) -> str:
    """The text of a message's content: a string, or the text parts of a list; "" where there is none."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return "".join(text for text in texts if isinstance(text, str))


def usage_of(usage: Any, *, text: str) -> tuple[int, int]:
    """Tokens read and written; (0, 0), which is charged as reserved, where what is reported cannot be true.

    What the total has beyond its two parts, such as tokens of thought, counts as written.
    """
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    read, written, total = (_field(usage, name) for name in names)
    if not all(isinstance(n, int) and 0 <= n < ABSURD for n in (read, written, total)):
        return 0, 0
    written = max(written, total - read)
    return (read, written) if read and (written or not text) else (0, 0)


def _field(usage: Any, name: str) -> Any:
    found = usage.get(name) if isinstance(usage, dict) else getattr(usage, name, None)
    if found is None or isinstance(found, bool):
        return 0
    return int(found) if isinstance(found, float) and found.is_integer() else found
