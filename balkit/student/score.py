"""What a student's probabilities say about examples: IFD (Cherry_LLM, BalDistill), loss and entropy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from balkit import frames
from balkit.errors import StudentError, need
from balkit.student import chat, forward, model
from balkit.student.generate import Answer, OnRows, answered
from balkit.student.loop import PASS_COSTS, plan_passes
from balkit.student.settings import score_settings

#: What `score` gives, by name.
SCORES = ("ifd", "loss", "entropy")

_TOKENS_A_PASS = 16_384  # padded
_LOGITS_A_PASS = {"cpu": 1 << 27, "cuda": 1 << 30}  # what bounds a pass where the vocabulary is large


def score(
    checkpoint: Path,
    examples: pl.DataFrame,
    *,
    response: Literal["student", "reference"],
    max_new_tokens: int,
    batch_size: int,
    progress: OnRows | None = None,
) -> pl.DataFrame:
    """SCORES of the examples, three rows each, in order; see `scored`."""
    found, done = [frames.SCORES.empty()], 0
    asked: dict[str, Any] = {"response": response, "max_new_tokens": max_new_tokens, "batch_size": batch_size}
    for part in scored(checkpoint, examples, **asked):
        found.append(part)
        done += part.height // len(SCORES)
        if progress is not None:
            progress(done, examples.height)
    ids = examples.select("example_id")
    return frames.check(ids.join(pl.concat(found), on="example_id", maintain_order="left_right"), frames.SCORES)


def scored(
    checkpoint: Path,
    examples: pl.DataFrame,
    *,
    response: Literal["student", "reference"],
    max_new_tokens: int,
    batch_size: int,
    names: Sequence[str] = SCORES,
) -> Iterator[pl.DataFrame]:
    """SCORES of examples (`example_id`, `prompt`; `response` for y = reference), long ones first, a batch at a time.

    `ifd` is PPL(y|x) / PPL(y), each over the mean of y's tokens: above 1 the prompt does not help the student.
    `loss` is the mean nats per token of y given x; `entropy` is the mean entropy, in nats, of what the student predicts
    at y's tokens, given x and those before. y is the student's own greedy answer (a generation each, of
    `max_new_tokens` at most) or the column `response`; EOS is not part of it. PPL(y) is taken after BOS and the
    assistant's header, without the user's turn, over the same tokens; without `ifd` among the `names` it is not
    computed. A null `value` has its `reason`: `empty`; `too_long` (an answer that did not end within `max_new_tokens`,
    a text beyond the context); `not_finite`.
    """
    needed = ["example_id", "prompt"] + (["response"] if response == "reference" else [])
    lacking = [name for name in needed if name not in examples.columns]
    if lacking:
        raise StudentError(
            f"score: columns {', '.join(lacking)} are missing (there are: {', '.join(examples.columns)})"
        )
    scorer = _Scorer(model.load(checkpoint), tuple(names))
    ids, tokenizer = examples["example_id"].to_list(), scorer.loaded.tokenizer
    prompts = chat.prompt_ids(tokenizer, examples["prompt"].to_list())
    given = [_on_file(tokenizer, text) for text in examples["response"]] if response == "reference" else None
    lengths = [len(prompt) + len(given[at].ids if given else ()) for at, prompt in enumerate(prompts)]
    shared = {
        "checkpoint": scorer.loaded.digest,
        "settings": score_settings(response=response, max_new_tokens=max_new_tokens),
    }
    for batch in _batches(lengths, size=batch_size):
        asked = [prompts[at] for at in batch]
        written = [given[at] for at in batch] if given else scorer.answered(asked, max_new_tokens=max_new_tokens)
        yield frames.SCORES.of(
            [
                {**shared, "example_id": ids[at], **row}
                for at, rows in zip(batch, scorer.told(asked, written), strict=True)
                for row in rows
            ]
        )


@dataclass(frozen=True)
class _Scorer:
    """A student in memory and the scores that it is asked for."""

    loaded: model.Loaded
    names: tuple[str, ...]

    def answered(self, prompts: Sequence[list[int]], *, max_new_tokens: int) -> list[Answer]:
        """The student's own answers; one to a prompt that fills the context is unfinished and empty."""
        roomy = [prompt for prompt in prompts if len(prompt) < self.loaded.context]
        written = iter(answered(self.loaded, roomy, max_new_tokens=max_new_tokens, batch_size=len(prompts)))
        return [
            next(written) if len(prompt) < self.loaded.context else Answer([], finished=False) for prompt in prompts
        ]

    def told(self, prompts: Sequence[list[int]], answers: Sequence[Answer]) -> list[list[dict[str, object]]]:
        """`name, value, reason` of every score of every answer."""
        opening = chat.opening_ids(self.loaded.tokenizer)
        rooms = [self.loaded.context - max(len(prompt), len(opening)) for prompt in prompts]
        reasons = [_unscorable(answer, room=room) for answer, room in zip(answers, rooms, strict=True)]
        able = [at for at, reason in enumerate(reasons) if reason is None]
        told = self._means([forward.Row(prompts[at], answers[at].ids) for at in able], entropy="entropy" in self.names)
        alone = [(math.nan, math.nan)] * len(able)
        if "ifd" in self.names:
            alone = self._means([forward.Row(opening, answers[at].ids) for at in able], entropy=False)
        values = {
            at: {"ifd": _ratio(nll, nll_alone), "loss": nll, "entropy": entropy}
            for at, (nll, entropy), (nll_alone, _) in zip(able, told, alone, strict=True)
        }
        return [
            [{"name": name, **_valued(values.get(at, {}).get(name, math.nan), reason=reason)} for name in self.names]
            for at, reason in enumerate(reasons)
        ]

    def _means(self, rows: Sequence[forward.Row], *, entropy: bool) -> list[tuple[float, float]]:
        """Each row's mean loss and, where asked, mean entropy over its response tokens, in nats, in order."""
        torch, loaded = need("torch", extra="train"), self.loaded
        means = [(math.nan, math.nan)] * len(rows)
        most = min(_TOKENS_A_PASS, _LOGITS_A_PASS[loaded.device] // len(loaded.tokenizer))
        for batch in plan_passes([row.length for row in rows], most=most, fixed=PASS_COSTS[loaded.device]):
            chosen = [rows[at] for at in batch]
            with torch.inference_mode(), forward.cpu_threads(loaded.model):
                if entropy:
                    found = forward.response_nll_and_entropy(loaded.model, chosen, pad_id=loaded.pad_id)
                else:
                    found = (forward.response_nll(loaded.model, chosen, pad_id=loaded.pad_id),) * 2
            lengths = [len(row.response) for row in chosen]
            for at, losses, others in zip(batch, *(each.double().split(lengths) for each in found), strict=True):
                means[at] = losses.mean().item(), others.mean().item() if entropy else math.nan
        return means


def _on_file(tokenizer: Any, text: str | None) -> Answer:
    return Answer(chat.response_ids(tokenizer, text or ""), finished=True)


def _unscorable(answer: Answer, *, room: int) -> str | None:
    """Why an answer has no score; `room` is what the context leaves for it, in tokens."""
    if not answer.finished or len(answer.ids) > room:
        return "too_long"
    return None if answer.ids else "empty"


def _valued(value: float, *, reason: str | None) -> dict[str, object]:
    if math.isfinite(value):
        return {"value": value, "reason": None}
    return {"value": None, "reason": reason or "not_finite"}


def _ratio(conditional: float, unconditional: float) -> float:
    try:
        return math.exp(conditional - unconditional)
    except OverflowError:
        return math.inf


def _batches(lengths: Sequence[int], *, size: int) -> list[list[int]]:
    """Indices in batches of similar length, long ones first."""
    order = sorted(range(len(lengths)), key=lambda at: -lengths[at])
    return [order[at : at + size] for at in range(0, len(order), size)]
