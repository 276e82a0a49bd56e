"""Counting tokens: by a tokenizer where there is one, else by an estimate that says it is one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

#: UTF-8 bytes per token assumed by `estimate`. English prose has 4 to 4.5 with current vocabularies, LaTeX and
#: digits 2.5 to 3, other scripts 2 to 4: 3 errs towards too many tokens.
BYTES_PER_TOKEN = 3


#: The messages of one conversation, `role` and `content` (and what else the template reads) in each.
Chat = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Length:
    """Tokens of a conversation: `total`, and of these the ones after the last assistant's header, which are trained."""

    total: int
    trained: int


@dataclass(frozen=True)
class Counter:
    """How tokens are counted: `count` gives the tokens of a text. An estimate is not `exact`; its `name` says so.

    `chats` gives the lengths of conversations as the student's chat template writes them; without it they are sums of
    their texts. `context` is the most tokens the student reads, where that is known.
    """

    name: str
    exact: bool
    count: Callable[[str], int]
    chats: Callable[[Sequence[Chat]], list[Length]] | None = None
    context: int | None = None

    def measure(self, chats: Sequence[Chat]) -> list[Length]:
        """The length of every conversation, in order."""
        if self.chats is not None:
            return self.chats(chats)
        counts = [[sum(self.count(text) for at, text in m.items() if at != "role") for m in chat] for chat in chats]
        return [Length(sum(each), each[-1]) for each in counts]


def estimate() -> Counter:
    """A counter without a tokenizer: UTF-8 bytes / 3, rounded up."""
    return Counter(f"estimate (UTF-8 bytes / {BYTES_PER_TOKEN})", exact=False, count=_estimated)


def estimated(texts: pl.Expr) -> pl.Expr:
    """What `estimate` counts, of a whole column."""
    return (texts.str.len_bytes().cast(pl.Int64) + BYTES_PER_TOKEN - 1) // BYTES_PER_TOKEN


def worst_case(text: str) -> int:
    """An upper bound in tokens for any byte-level vocabulary: the UTF-8 bytes. Money is reserved by it."""
    return len(text.encode("utf-8", "surrogatepass"))


def _estimated(text: str) -> int:
    return math.ceil(worst_case(text) / BYTES_PER_TOKEN)
