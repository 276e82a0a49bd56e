"""The prompt templates: plain text files with <<name>> markers. Texts put in may hold any characters, markers too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from balkit import texts

_MARKER = re.compile(r"<<(\w+)>>(\n*)")


@dataclass(frozen=True)
class Template:
    """A template's text and its digest, which is part of every call's key."""

    text: str
    digest: str

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with every marker replaced, in one pass; an empty value takes the line ends after it along.

        A marker without a value is a defect of balkit: KeyError.
        """

        def value(match: re.Match[str]) -> str:
            found = values[match[1]]
            return found + match[2] if found else ""

        return _MARKER.sub(value, self.text).strip()


@lru_cache(maxsize=16)
def template(name: str) -> Template:
    """The template `balkit/prompts/<name>.txt`."""
    text = resources.files("balkit").joinpath("prompts", f"{name}.txt").read_text(encoding="utf-8")
    return Template(text=text, digest=texts.digest(text))
