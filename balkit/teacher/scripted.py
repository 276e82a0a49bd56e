"""A teacher that says what it is told to: for tests and dry runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from balkit.teacher.caps import estimated_tokens
from balkit.teacher.protocol import Reply, Request

AUTHOR = "scripted"


class Scripted:
    """Answers from a list, in order (`stop` when it is used up), or by a function of the request.

    The function returns the text, or a whole `Reply` where a fault is to be played. Usage is estimated from lengths.
    """

    is_free = True

    def __init__(self, replies: list[str] | Callable[[Request], str | Reply]) -> None:
        self._by_rule = replies if callable(replies) else _in_order(replies)

    def ask(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Answers one after another, each as soon as it is pulled."""
        for request in requests:
            said = self._by_rule(request)
            yield said if isinstance(said, Reply) else estimated_reply(request, said, author=AUTHOR)


def estimated_reply(request: Request, text: str, *, author: str) -> Reply:
    """A successful reply whose usage is estimated, and never above what the request allows."""
    return Reply(
        request,
        "ok",
        text=text,
        finish_reason="stop",
        input_tokens=sum(estimated_tokens(content) for _, content in request.messages),
        output_tokens=min(estimated_tokens(text), request.max_tokens),
        raw=text,
        author=author,
    )


def _in_order(texts: list[str]) -> Callable[[Request], str | Reply]:
    left = iter(texts)

    def say(request: Request) -> str | Reply:
        text = next(left, None)
        return Reply(request, "stop", error=f"the script's {len(texts)} replies are used up") if text is None else text

    return say
