"""Counting tokens: by a tokenizer where there is one, else by an estimate that says it is one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

#: UTF-8 bytes per token assumed by `estimate`. English prose has 4 to 4.5 with current vocabularies, LaTeX and
#: digits 2.5 to 3, other scripts 2 to 4: 3 errs towards too many tokens.
BYTES_PER_TOKEN = 3


@dataclass(frozen=True)
class Counter:
    """How tokens are counted: `count` gives the tokens of a text. An estimate is not `exact`; its `name` says so."""

    name: str
    exact: bool
    count: Callable[[str], int]


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
