"""Measuring a checkpoint: its answers to the eval split, parsed and compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from balkit import answers as final
from balkit import frames, recipe, texts
from balkit.errors import StudentError
from balkit.student.checkpoint import digest
from balkit.student.generate import Draws, OnRows, generate
from balkit.student.settings import Sample, evaluate_settings


def asked_of(examples: pl.DataFrame, *, section: recipe.Evaluate) -> pl.DataFrame:
    """Those of the EXAMPLES that an evaluation asks, by example_id."""
    every = frames.check(examples, frames.EXAMPLES).sort("example_id")
    if section.limit_per_domain is None:
        return every
    return every.group_by("domain", maintain_order=True).head(section.limit_per_domain).sort("example_id")


def evaluate(
    checkpoint: Path,
    examples: pl.DataFrame,
    *,
    answers: recipe.Answers,
    labels: Sequence[str],
    section: recipe.Evaluate,
    sample: Sample | None = None,
    progress: OnRows | None = None,
) -> pl.DataFrame:
    """EVALUATIONS of the checkpoint on EXAMPLES, sorted by example_id: its answers, parsed and compared.

    Answers are greedy, or those of a `sample`: drawn by (seed, number, example_id), whatever else is asked beside it.

    An answer that declares nothing (`predicted` null) is wrong. `limit_per_domain` takes the first so many of a
    domain by example_id. Raises `StudentError` for examples without a reference answer.
    """
    asked = asked_of(examples, section=section)
    unknown = asked.filter(pl.col("reference").is_null())
    if unknown.height:
        first = unknown["example_id"][0]
        raise StudentError(
            f"{unknown.height} of {asked.height} examples have no reference answer, the first is {first}"
        )
    written = generate(
        checkpoint,
        asked["prompt"].to_list(),
        max_new_tokens=section.max_new_tokens,
        batch_size=section.batch_size,
        draws=None if sample is None else _draws(sample, asked["example_id"]),
        progress=progress,
    )
    choices = [final.offered(prompt) if answers.kind == "choice" else () for prompt in asked["prompt"]]
    predicted = [
        final.parse(text, kind=answers.kind, labels=labels, choices=offered)
        for text, offered in zip(written, choices, strict=True)
    ]
    pairs = [(found, wanted) for found, wanted in zip(predicted, asked["reference"], strict=True) if found is not None]
    equal = iter(final.same(pairs, kind=answers.kind))
    correct = [found is not None and next(equal) for found in predicted]
    return frames.check(
        asked.select(
            pl.lit(digest(checkpoint)).alias("checkpoint"),
            pl.lit(evaluate_settings(answers=answers, labels=labels, section=section, sample=sample)).alias("settings"),
            "example_id",
            "domain",
            "split",
            pl.Series("predicted", predicted, dtype=pl.String),
            pl.Series("correct", correct, dtype=pl.Boolean),
            pl.Series("text", written, dtype=pl.String),
        ),
        frames.EVALUATIONS,
    )


def _draws(sample: Sample, ids: pl.Series) -> Draws:
    keys = (texts.rank_key(sample.seed, "sample", sample.number, example_id) for example_id in ids)
    return Draws(sample.temperature, tuple(int(key[:15], 16) for key in keys))
