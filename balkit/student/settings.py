"""What else decides a score or an evaluation besides the checkpoint and the example, as a short text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from balkit import recipe, texts


def score_settings(*, response: str, max_new_tokens: int) -> str:
    """The column `settings` of SCORES. Given answers are not generated, so their length cap has no part in it."""
    return f"response={response}" + (f" max_new_tokens={max_new_tokens}" if response == "student" else "")


@dataclass(frozen=True)
class Sample:
    """One of several answers drawn to each example: the `number`-th, from 0, at a temperature, by a seed."""

    temperature: float
    seed: int
    number: int


def evaluate_settings(
    *, answers: recipe.Answers, labels: Sequence[str], section: recipe.Evaluate, sample: Sample | None = None
) -> str:
    """The column `settings` of EVALUATIONS; without a `sample` answers are greedy."""
    parts = [f"kind={answers.kind}", f"max_new_tokens={section.max_new_tokens}"]
    if labels:
        parts.append(f"labels={texts.digest(sorted(labels))[:8]}")
    if section.limit_per_domain is not None:
        parts.append(f"limit_per_domain={section.limit_per_domain}")
    if sample is not None:
        parts.append(f"temperature={sample.temperature:g} seed={sample.seed} sample={sample.number}")
    return " ".join(parts)
