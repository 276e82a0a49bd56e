"""Measuring a checkpoint: its answers to the eval split, parsed and compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from balkit import answers as final
from balkit import frames, recipe
from balkit.errors import StudentError
from balkit.student.checkpoint import digest
from balkit.student.generate import OnRows, generate
from balkit.student.settings import evaluate_settings


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
    progress: OnRows | None = None,
) -> pl.DataFrame:
    """EVALUATIONS of the checkpoint on EXAMPLES, sorted by example_id: its greedy answers, parsed and compared.

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
            pl.lit(evaluate_settings(answers=answers, labels=labels, section=section)).alias("settings"),
            "example_id",
            "domain",
            "split",
            pl.Series("predicted", predicted, dtype=pl.String),
            pl.Series("correct", correct, dtype=pl.Boolean),
            pl.Series("text", written, dtype=pl.String),
        ),
        frames.EVALUATIONS,
    )
