"""What a target gets, and what it says of itself and of what it wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import polars as pl

from balkit.exports import preferences
from balkit.exports.background import Background
from balkit.exports.rows import Message, Options, RationaleForm, chats

TEMPLATE_ROOM = 64  # tokens a row that a chat template may add: role markers and a default system prompt
_STEP = 64
_ALL_FORMS: tuple[RationaleForm, ...] = ("inline", "think", "reasoning_content", "none")
#: Forms of targets whose files have room for `role` and `content` only.
PLAIN_FORMS: tuple[RationaleForm, ...] = ("inline", "think", "none")


@dataclass(frozen=True)
class Limit:
    """A trainer's own limit on tokens a row: what it is unless set, the setting, what becomes of longer rows."""

    tokens: int
    setting: str
    fate: str


@dataclass(frozen=True)
class Material:
    """What a target gets: EXPORT_ROWS of both parts (kept rows only, in order) and where they come from.

    `dropped` counts by part and reason the rows that are not here.
    """

    train: pl.DataFrame
    validation: pl.DataFrame
    snapshot_id: str
    digest: str
    version: int
    options: Options
    background: Background = field(default_factory=Background)
    dropped: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def parts(self) -> dict[str, pl.DataFrame]:
        """The parts that have rows, by the name that their files carry."""
        both = {"train": self.train, "validation": self.validation}
        return {name: rows for name, rows in both.items() if rows.height}

    def chats(self, part: str) -> Iterator[list[Message]]:
        """The messages of each row of a part, in order."""
        return chats(self.parts[part], options=self.options)

    def messages(self, part: str) -> Iterator[dict[str, Any]]:
        """Rows with the one column `messages`."""
        return ({"messages": chat} for chat in self.chats(part))

    @cached_property
    def pairs(self) -> dict[str, pl.DataFrame]:
        """The pairs of each part that has some; see `preferences.paired`."""
        known, options = self.background.pairs, self.options
        both = {part: preferences.paired(rows, known, part=part, options=options) for part, rows in self.parts.items()}
        return {part: pairs for part, pairs in both.items() if pairs.height}

    @property
    def longest_pair(self) -> int:
        """As `longest`, of both sides of the pairs."""
        if self.options.counter.exact:
            return max(int(pairs["n_tokens"].max()) for pairs in self.pairs.values())  # type: ignore[arg-type]
        return max(preferences.longest_bytes(pairs) for pairs in self.pairs.values()) + self._around

    @property
    def _around(self) -> int:
        return len((self.options.system or "").encode()) + TEMPLATE_ROOM

    @property
    def longest(self) -> int:
        """Tokens of the longest row; a bound in UTF-8 bytes when the counter is an estimate."""
        if self.options.counter.exact:
            return max(int(rows["n_tokens"].max()) for rows in self.parts.values())  # type: ignore[arg-type]
        texts = pl.sum_horizontal(pl.col("prompt", "rationale", "answer").str.len_bytes())
        return max(int(rows.select(texts.max()).item()) for rows in self.parts.values()) + self._around

    def length(self, limit: Limit, *, longest: int | None = None) -> int:
        """Tokens a row for a target's config: what the caller fixed, else room for the longest row and its template.

        `longest` is that of the rows if not given. Never below the target's own default, unless the student's context
        is, and never above that context.
        """
        counter = self.options.counter
        if self.options.max_length is not None:
            return self.options.max_length
        longest = self.longest if longest is None else longest
        needed = longest + (0 if counter.chats else TEMPLATE_ROOM)
        found = max(limit.tokens, -(-needed // _STEP) * _STEP)
        return found if counter.context is None else min(found, max(counter.context, longest))


@dataclass(frozen=True)
class Target:
    """One format. `write` fills a folder and returns the settings written beside the data.

    `row` is a JSON Schema of one row of its training files, `files` the pattern of their names; `reader` says whose
    package it was checked against. `learns` is what its trainer takes the loss on: the assistant's messages, both sides
    of the pairs (`paired`), or nothing that is in the files. `notes` are sentences for the report, given what was
    written and its settings.
    """

    write: Callable[[Material, Path], Mapping[str, object]]
    about: str
    files: str
    row: Mapping[str, Any]
    reader: str
    limit: Limit | None = None
    forms: tuple[RationaleForm, ...] = _ALL_FORMS
    least_rows: int = 1
    learns: Literal["answers", "pairs", "sides", "nothing"] = "answers"
    notes: Callable[[Material, Mapping[str, object]], list[str]] = lambda material, settings: []

    @property
    def paired(self) -> bool:
        """Whether its rows are the pairs, or each side of them once, and not the rows."""
        return self.learns in ("pairs", "sides")

    def trainable(self, material: Material) -> int | None:
        """Tokens of the train part that the loss covers, by the report's counter; None where no file says."""
        if self.learns == "nothing":
            return None
        if not self.paired:
            return int(material.train["completion_tokens"].sum())
        return preferences.trainable(material.pairs["train"], once=self.learns == "sides")

    def refusal(self, material: Material) -> str | None:
        """Why this target cannot take these rows as the options make them; None when it can."""
        if material.options.rationale not in self.forms:
            return f"cannot hold rationale={material.options.rationale!r}; it takes {', '.join(self.forms)}"
        if material.train.height < self.least_rows:
            return f"needs at least {self.least_rows} rows, and there are {material.train.height}"
        if self.paired and "train" not in material.pairs:
            return preferences.NO_PAIRS
        return None


def object_schema(**properties: Any) -> dict[str, Any]:
    """JSON Schema of an object with exactly these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def turns_schema(*roles: str, keys: tuple[str, ...] = ()) -> dict[str, Any]:
    """JSON Schema of a list of one message a role, before which a system message may stand where the first is a user.

    A message has a role, a content that is not empty, and may have `keys`, which are strings.
    """

    def turn(role: str) -> dict[str, Any]:
        known = object_schema(role={"const": role}, content={"type": "string", "minLength": 1})
        return known | {"properties": known["properties"] | {key: {"type": "string"} for key in keys}}

    orders = [list(roles)] + ([["system", *roles]] if roles[0] == "user" else [])
    lists = [
        {"type": "array", "prefixItems": [turn(role) for role in order], "minItems": len(order), "maxItems": len(order)}
        for order in orders
    ]
    return lists[0] if len(lists) == 1 else {"anyOf": lists}


#: JSON Schema of `{"messages": [...]}`: system or user first, the assistant last; with reasoning where it may be.
CHAT_ROW = object_schema(messages=turns_schema("user", "assistant"))
REASONED_ROW = object_schema(messages=turns_schema("user", "assistant", keys=("reasoning_content",)))
