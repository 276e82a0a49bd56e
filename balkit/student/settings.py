"""What else decides a score or an evaluation besides the checkpoint and the example, as a short text."""

from __future__ import annotations

from collections.abc import Sequence

from balkit import recipe, texts


def score_settings(*, response: str, max_new_tokens: int) -> str:
    """The column `settings` of SCORES. Given answers are not generated, so their length cap has no part in it."""
    return f"response={response}" + (f" max_new_tokens={max_new_tokens}" if response == "student" else "")


def evaluate_settings(*, answers: recipe.Answers, labels: Sequence[str], section: recipe.Evaluate) -> str:
    """The column `settings` of EVALUATIONS."""
    parts = [f"kind={answers.kind}", f"max_new_tokens={section.max_new_tokens}"]
    if labels:
        parts.append(f"labels={texts.digest(sorted(labels))[:8]}")
    if section.limit_per_domain is not None:
        parts.append(f"limit_per_domain={section.limit_per_domain}")
    return " ".join(parts)
