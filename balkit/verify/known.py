"""Texts that new ones are compared with, prepared once; and what a comparison finds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from balkit import texts
from balkit.duplicates.alike import bag


@dataclass(frozen=True)
class Fault:
    """Why a row is refused: `other` is the whole text that it collides with, `similarity` how closely (0-1)."""

    reason: str
    other: str | None = None
    similarity: float | None = None
    note: str | None = None

    def detail(self) -> str | None:
        """As JSON, without what is not known; None where nothing is."""
        similarity = None if self.similarity is None else round(self.similarity, 4)
        body = {"other": self.other, "similarity": similarity, "note": self.note}
        body = {name: value for name, value in body.items() if value is not None}
        return json.dumps(body, ensure_ascii=False) if body else None


@dataclass(frozen=True)
class Known:
    """Texts that new ones are compared with, prepared once."""

    prompts: Sequence[str]

    @cached_property
    def normalised(self) -> dict[str, int]:
        """Normalised text -> index of the first prompt that has it."""
        return {texts.normalised(prompt): index for index, prompt in reversed(list(enumerate(self.prompts)))}

    @cached_property
    def bags(self) -> list[str]:
        """Each text's words in alphabetical order, for a comparison that word order does not hide from."""
        return [bag(prompt) for prompt in self.prompts]

    def plus(self, more: Sequence[str]) -> Known:
        """These texts and then `more`, without preparing the old ones again."""
        joined = Known([*self.prompts, *more])
        fresh = {texts.normalised(text): len(self.prompts) + index for index, text in reversed(list(enumerate(more)))}
        joined.__dict__["normalised"] = {**fresh, **self.normalised}
        joined.__dict__["bags"] = [*self.bags, *map(bag, more)]
        return joined
