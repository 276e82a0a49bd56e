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
from balkit.exports.rows import TEXTS, Blocks, Message, Options, RationaleForm, chats

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
    """What a target gets: which rows, without their texts, and where to read these.

    `considered`: EXPORT_ROWS of both parts by name; `sources`: the blocks of SNAPSHOT_ROWS that these are of, row by
    row. `spool` is an empty folder for what is too much to keep.
    """

    considered: Mapping[str, pl.DataFrame]
    sources: Mapping[str, Blocks]
    spool: Path
    snapshot_id: str
    digest: str
    version: int
    options: Options
    background: Background = field(default_factory=Background)

    @property
    def train(self) -> pl.DataFrame:
        """EXPORT_ROWS that are trained on, in order."""
        return self._kept["train"]

    @property
    def validation(self) -> pl.DataFrame:
        """EXPORT_ROWS that are held out, in order."""
        return self._kept["validation"]

    @cached_property
    def parts(self) -> dict[str, pl.DataFrame]:
        """The parts that have rows, by the name that their files carry."""
        return {name: rows for name, rows in self._kept.items() if rows.height}

    @cached_property
    def _kept(self) -> dict[str, pl.DataFrame]:
        return {name: rows if rows["kept"].all() else rows.filter("kept") for name, rows in self.considered.items()}

    @cached_property
    def dropped(self) -> dict[str, dict[str, int]]:
        """How many rows were left out, by part and reason."""
        found: dict[str, dict[str, int]] = {}
        for part, rows in self.considered.items():
            counts = rows.filter(~pl.col("kept")).group_by("reason").len().sort("reason").rows()
            found |= {part: dict(counts)} if counts else {}
        return found

    def blocks(self, part: str) -> Iterator[pl.DataFrame]:
        """The kept EXPORT_ROWS of a part with their `TEXTS`, in order, some at a time."""
        at = 0
        for texts in self.sources[part]():
            rows = self.considered[part].slice(at, texts.height).hstack(texts.select(TEXTS)).filter("kept")
            at += texts.height
            if rows.height:
                yield rows

    def chats(self, part: str) -> Iterator[list[Message]]:
        """The messages of each row of a part, in order."""
        return (chat for rows in self.blocks(part) for chat in chats(rows, options=self.options))

    def messages(self, part: str) -> Iterator[dict[str, Any]]:
        """Rows with the one column `messages`."""
        return ({"messages": chat} for chat in self.chats(part))

    @cached_property
    def pairs(self) -> dict[str, pl.DataFrame]:
        """The pairs of each part that has some, without their texts; see `preferences.spooled`."""
        both = {
            part: preferences.spooled(
                self.blocks(part), self.background.pairs_of, part=part, options=self.options, path=self._paired(part)
            )
            for part in self.parts
        }
        return {part: pairs for part, pairs in both.items() if pairs.height}

    def pair_blocks(self, part: str) -> Iterator[pl.DataFrame]:
        """The pairs of a part with their texts, in order, some at a time."""
        return preferences.read(self._paired(part))

    def _paired(self, part: str) -> Path:
        return self.spool / f"pairs-{part}.parquet"

    @property
    def longest_pair(self) -> int:
        """As `longest`, of both sides of the pairs."""
        if self.options.counter.exact:
            return max(int(pairs["n_tokens"].max()) for pairs in self.pairs.values())  # type: ignore[arg-type]
        return max(int(pairs["bytes"].max()) for pairs in self.pairs.values()) + self._around  # type: ignore[arg-type]

    @property
    def _around(self) -> int:
        return len((self.options.system or "").encode()) + TEMPLATE_ROOM

    @property
    def longest(self) -> int:
        """Tokens of the longest row; a bound in UTF-8 bytes when the counter is an estimate."""
        if self.options.counter.exact:
            return max(int(rows["n_tokens"].max()) for rows in self.parts.values())  # type: ignore[arg-type]
        return max(int(rows["bytes"].max()) for rows in self.parts.values()) + self._around  # type: ignore[arg-type]

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
