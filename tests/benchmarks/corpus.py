"""A big corpus of English-like texts, and pools of it, for the benchmarks: seeded, made column by column."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from measuring import seconds

from balkit import frames, texts
from balkit import recipe as recipes
from balkit.pool import Pool
from balkit.recipe import Recipe

DOMAINS = 200
#: Where a column of `questions` stands, for `Pool.add`.
COLUMNS = {"prompt": "question", "answer": "answer", "domain": "topic"}

_PART = 10_000  # rows drawn at once from a seed of their own, so that a larger corpus begins with the smaller one
_COMMON = "the of and to a in is that it was for on are as with they be at one have this from by had not what"
_CHUNKS = "ba con der en fi gra ho in jun ka lo men nor o per qua ri sta ter un ver wi"


def questions(rows: int, *, first: int = 0) -> pl.DataFrame:
    """Question (about 150 characters, a number in half of them), answer (a number) and topic (Zipf over `DOMAINS`).

    `first`, a multiple of 10,000, is the number of the first row: other rows than those before it.
    """
    assert first % _PART == 0
    parts = [_questions(number, min(_PART, first + rows - number)) for number in range(first, first + rows, _PART)]
    return pl.concat(parts)


def prose(rows: int, *, words: int, seed: int) -> pl.Series:
    """Texts of about `words` words each, drawn by frequency from 4,000 of them; as many digits as in `questions`."""
    rng = np.random.default_rng([2, seed])
    lengths = rng.integers(words - words // 5, words + words // 5, rows)
    drawn = rng.choice(len(_WORDS), size=(rows, int(lengths.max())), p=_FREQUENCY)
    columns = [
        _WORDS.gather(drawn[:, j]).set(pl.Series(lengths <= j), None).alias(f"w{j}") for j in range(drawn.shape[1])
    ]
    numbers = pl.Series("number", rng.integers(2, 10_000, rows)).set(pl.Series(rng.random(rows) < 0.5), None)
    joined = pl.concat_str(
        "w0", numbers.cast(pl.String), *(c.name for c in columns[1:]), separator=" ", ignore_nulls=True
    )
    return (
        pl.DataFrame(columns).select(joined.str.slice(0, 1).str.to_uppercase() + joined.str.slice(1) + "?").to_series()
    )


def as_examples(asked: pl.DataFrame) -> pl.DataFrame:
    """EXAMPLES of the train split; ids by the row, so not a thing to be timed."""
    ids = [texts.example_id(prompt, reference) for prompt, reference in asked.select("question", "answer").iter_rows()]
    renamed = asked.rename({"question": "prompt", "answer": "reference", "topic": "domain"})
    return frames.check(
        renamed.with_columns(
            pl.Series("example_id", ids),
            split=pl.lit("train"),
            origin=pl.lit("source"),
            parents=pl.lit([], dtype=pl.List(pl.String)),
            added_in=pl.lit(0, dtype=pl.Int64),
        ),
        frames.EXAMPLES,
    )


def worked(examples: pl.DataFrame, *, seed: int) -> pl.DataFrame:
    """RATIONALES of about 600 characters, one accepted an example, each by a call of its own."""
    text = prose(examples.height, words=86, seed=seed)
    source = [hashlib.sha256(name.encode()).hexdigest() for name in examples["example_id"]]
    cells = zip(examples["example_id"], text, examples["reference"], source, strict=True)
    frame = examples.select("example_id", answer="reference").with_columns(
        pl.Series("rationale_id", [texts.rationale_id(*cell) for cell in cells]),
        text.alias("text"),
        pl.Series("source", source),
        accepted=pl.lit(True),
        reason=pl.lit(None, dtype=pl.String),
        detail=pl.lit(None, dtype=pl.String),
        author=pl.lit("teacher"),
    )
    return frames.check(frame, frames.RATIONALES)


def jsonl(path: Path, *, rows: int) -> Path:
    """The questions as a file, written part by part."""
    with path.open("wb") as file:
        for first in range(0, rows, _PART):
            questions(min(_PART, rows - first), first=first).write_ndjson(file)
    return path


@contextmanager
def blank(folder: Path) -> Iterator[Pool]:
    """A blank pool of its own, gone afterwards."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        yield Pool.create(Path(name, "pool"))


@contextmanager
def copied(base: Path) -> Iterator[Pool]:
    """A copy of the base pool, gone afterwards."""
    with tempfile.TemporaryDirectory(dir=base.parent) as name:
        yield Pool.open(shutil.copytree(base, Path(name, "pool")))


def add(pool: Pool, source: pl.DataFrame | Path) -> float:
    """The seconds of adding a source."""
    return seconds(lambda: pool.add(source, **COLUMNS))


def make_base(folder: Path, rows: int) -> None:
    """All rows, then eval: a hundredth of them, one in ten a train prompt in capitals, which leaks."""
    pool = Pool.create(folder)
    pool.add(questions(rows), **COLUMNS)
    leaking = questions(rows // 1000).with_columns(pl.col("question").str.to_uppercase())
    held_out = questions(rows // 100 - leaking.height, first=10**9)
    pool.add(pl.concat([held_out, leaking]), split="eval", **COLUMNS)


def fresh(rows: int, number: int) -> pl.DataFrame:
    """Rows that are not in the base pool, others for every number."""
    return questions(rows, first=10**8 + number * 10**6)


def recipe_for(rows: int) -> Recipe:
    """Three adaptive stages over a fifth of the rows; answers are numbers."""
    teacher = {"name": "offline", "transport": "offline", "model": "rule-1", "price": "free"}
    body: dict[str, Any] = {"name": "bench", "budget_rows": max(rows // 5, 3 * DOMAINS), "stages": 3}
    body |= {"fill": ["real", "synthetic"], "answers": {"kind": "number"}, "synthesis": {"per_call": 4, "votes": 1}}
    return recipes.load(body | {"teacher": teacher})


def _questions(first: int, rows: int) -> pl.DataFrame:
    rng = np.random.default_rng([1, first])
    share = 1 / np.arange(1, DOMAINS + 1)
    topics = pl.Series([f"topic {number:03d}" for number in range(1, DOMAINS + 1)])
    return pl.DataFrame(
        {
            "question": prose(rows, words=22, seed=first),
            "answer": pl.Series(rng.integers(0, 5_000, rows)).cast(pl.String),
            "topic": topics.gather(rng.choice(DOMAINS, size=rows, p=share / share.sum())),
        }
    )


def _vocabulary(size: int = 4_000) -> pl.Series:
    """The most frequent words first: real ones, then made ones of two to four syllables, some with a comma."""
    rng = np.random.default_rng(0)
    made = dict.fromkeys(_COMMON.split())
    while len(made) < size:
        made["".join(rng.choice(_CHUNKS.split(), size=rng.integers(2, 5))) + "," * (rng.random() < 0.1)] = None
    return pl.Series("word", list(made))


_WORDS = _vocabulary()
_FREQUENCY = (weights := 1 / (np.arange(len(_WORDS)) + 3)) / weights.sum()
