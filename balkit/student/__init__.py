"""Students: built, trained, asked, scored and measured. The only room with torch, transformers and peft.

    folder = base(recipe.student, corpus=texts, seed=0, folder=here / "base")
    trained = train(folder, snapshot.rows, student=recipe.student, options=recipe.train, out=here / "s1", seed=0)
    evaluations = evaluate(trained.path, pool.examples(split="eval"), answers=..., labels=..., section=...)

torch and the others are imported by the first call that needs them, never by importing this package.
"""

from balkit.student.checkpoint import digest
from balkit.student.counting import counter
from balkit.student.evaluate import asked_of, evaluate
from balkit.student.generate import generate, prompt_tokens
from balkit.student.groups import shot
from balkit.student.journal import Journal
from balkit.student.measures import Comparison, Interval, compare, confusion, errors, intervals, macro_f1, wilson
from balkit.student.model import base
from balkit.student.ranks import is_main, main_first
from balkit.student.samples import Sampled, majority, pass_at_k, sampled
from balkit.student.score import SCORES, score, scored
from balkit.student.settings import Sample, evaluate_settings, score_settings
from balkit.student.summary import DomainAccuracy, Summary, summarise
from balkit.student.train import Trained, train

__all__ = [
    "SCORES",
    "Comparison",
    "DomainAccuracy",
    "Interval",
    "Journal",
    "Sample",
    "Sampled",
    "Summary",
    "Trained",
    "asked_of",
    "base",
    "compare",
    "confusion",
    "counter",
    "digest",
    "errors",
    "evaluate",
    "evaluate_settings",
    "generate",
    "intervals",
    "is_main",
    "macro_f1",
    "main_first",
    "majority",
    "pass_at_k",
    "prompt_tokens",
    "sampled",
    "score",
    "score_settings",
    "scored",
    "shot",
    "summarise",
    "train",
    "wilson",
]
