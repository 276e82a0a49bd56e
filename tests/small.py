"""A small pool, its recipe and a teacher by rule: the whole job in a second or two."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
from once import copied

from balkit import recipe as recipes
from balkit.pool import Pool
from balkit.recipe import Recipe
from balkit.teacher import Request

WORDS = {
    "fruit": ["apple", "pear", "plum", "cherry", "grape", "melon", "lemon", "mango"],
    "tool": ["hammer", "saw", "drill", "chisel", "wrench", "pliers", "ladder", "plane"],
    "bird": ["heron", "robin", "crow", "finch", "eagle", "gull", "swan", "stork"],
}
SIZES = {"fruit": 40, "tool": 12, "bird": 3}


def prompt(domain: str, rng: random.Random) -> str:
    """A question that names three things of a domain."""
    first, second, third = rng.sample(WORDS[domain], 3)
    box, some = rng.randrange(10_000), rng.randrange(2, 99)
    return f"Box {box} holds one {first}, a {second} and {some} of {third}. What are they?"


def rows(domain: str, count: int, *, seed: int) -> list[dict[str, str]]:
    rng = random.Random(f"{domain} {seed}")
    return [{"question": prompt(domain, rng), "answer": domain, "topic": domain} for _ in range(count)]


def make_pool(folder: Path, *, sizes: dict[str, int] | None = None, eval_rows: int = 4) -> Pool:
    """A pool with train and eval rows; made once for the same sizes, then copied."""
    return copied(_maker(tuple((sizes or SIZES).items()), eval_rows), folder)


@cache
def _maker(sizes: tuple[tuple[str, int], ...], eval_rows: int) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        pool = Pool.create(folder)
        columns = {"prompt": "question", "answer": "answer", "domain": "topic"}
        train = [row for domain, n in sizes for row in rows(domain, n, seed=1)]
        pool.add(pl.DataFrame(train), **columns)
        if eval_rows:
            held_out = [row for domain in WORDS for row in rows(domain, eval_rows, seed=2)]
            pool.add(pl.DataFrame(held_out), split="eval", **columns)

    return make


def make_recipe(**changes: Any) -> Recipe:
    """Two adaptive stages of a tiny student; `changes` replace whole sections."""
    body: dict[str, Any] = {
        "name": "small",
        "budget_rows": 30,
        "stages": 2,
        "select": {"first": "facility_location", "then": "ifd", "candidates": 2},
        "vectors": {"dim": 64},
        "answers": {"kind": "label"},
        "teacher": {"name": "rule", "transport": "offline", "model": "rule-1", "price": "free"},
        "rationale": {"max_tokens": 64},
        "synthesis": {"per_call": 2, "max_tokens": 256, "calls_per_row": 4},
        "student": {"layers": 1, "width": 32, "heads": 2, "vocabulary": 300, "context": 160},
        "train": {"epochs": 1, "max_steps": 3, "batch_size": 8, "max_length": 160, "threads": 1},
        "evaluate": {"max_new_tokens": 8},
    }
    return recipes.load(body | changes)


class Rule:
    """A teacher by rule, a function of the request alone. It counts what it was asked, and can refuse some of it."""

    def __init__(self, *, wrong: str = "") -> None:
        self.wrong = wrong  # a worked answer to a prompt with this word is wrong
        self.keys: list[str] = []

    def __call__(self, request: Request) -> str:
        self.keys.append(request.key)
        if request.purpose == "synthesis":
            rng = random.Random(request.key)
            made = [{"prompt": prompt(request.domain, rng), "answer": request.domain} for _ in range(request.count)]
            return json.dumps({"examples": made})
        found = next(domain for domain, words in WORDS.items() if any(f" {word}" in request.subject for word in words))
        if self.wrong and self.wrong in request.subject:
            found = next(domain for domain in WORDS if domain != found)
        return f"These things belong to one kind.\nAnswer: {found}"
