"""What a student's probabilities say about examples: IFD (Cherry_LLM, BalDistill), loss and entropy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import polars as pl

from balkit import frames
from balkit.errors import StudentError, need
from balkit.student import chat, forward, model
from balkit.student.generate import Answer, OnRows, greedy
from balkit.student.settings import score_settings

#: What `score` gives, by name.
SCORES = ("ifd", "loss", "entropy")

_TOKENS_A_BATCH = 16_384  # padded; what bounds the memory of a batch besides its rows


def score(
    checkpoint: Path,
    examples: pl.DataFrame,
    *,
    response: Literal["student", "reference"],
    max_new_tokens: int,
    batch_size: int,
    progress: OnRows | None = None,
) -> pl.DataFrame:
    """SCORES of the examples (`example_id`, `prompt`; `response` for y = reference), three rows each, in order.

    `ifd` is PPL(y|x) / PPL(y), each over the mean of y's tokens: above 1 the prompt does not help the student.
    `loss` is the mean nats per token of y given x; `entropy` is the mean entropy, in nats, of what the student predicts
    at y's tokens, given x and those before. y is the student's own greedy answer (a generation each, of
    `max_new_tokens` at most) or the column `response`; EOS is not part of it. PPL(y) is taken after BOS and the
    assistant's header, without the user's turn, over the same tokens. A null `value` has its `reason`: `empty`;
    `too_long` (an answer that did not end within `max_new_tokens`, a text beyond the context); `not_finite`.
    """
    needed = ["example_id", "prompt"] + (["response"] if response == "reference" else [])
    lacking = [name for name in needed if name not in examples.columns]
    if lacking:
        raise StudentError(
            f"score: columns {', '.join(lacking)} are missing (there are: {', '.join(examples.columns)})"
        )
    loaded = model.load(checkpoint)
    opening = chat.opening_ids(loaded.tokenizer)
    prompts = chat.prompt_ids(loaded.tokenizer, examples["prompt"].to_list())
    if response == "student":
        written = greedy(loaded, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size, progress=progress)
        progress = None  # what follows takes a fraction of the time
    else:
        written = [_on_file(loaded, text) for text in examples["response"]]
    longest_given = [max(len(prompt), len(opening)) for prompt in prompts]
    reasons = [
        _unscorable(answer, room=loaded.context - given) for answer, given in zip(written, longest_given, strict=True)
    ]
    asked = [
        (prompt, answer.ids) for prompt, answer, reason in zip(prompts, written, reasons, strict=True) if reason is None
    ]
    rows = [forward.Row(prompt, y) for prompt, y in asked]
    told = _means(loaded, rows, batch_size=batch_size, progress=progress)
    alone = _means(loaded, [forward.Row(opening, y) for _, y in asked], batch_size=batch_size)
    scored = iter(
        {"ifd": _ratio(nll, nll_alone), "loss": nll, "entropy": entropy}
        for (nll, entropy), (nll_alone, _) in zip(told, alone, strict=True)
    )
    values = [next(scored) if reason is None else dict.fromkeys(SCORES, math.nan) for reason in reasons]
    shared = {
        "checkpoint": loaded.digest,
        "settings": score_settings(response=response, max_new_tokens=max_new_tokens),
    }
    return frames.SCORES.of(
        [
            {**shared, "example_id": example_id, "name": name, **_valued(value, reason=reason)}
            for example_id, named, reason in zip(examples["example_id"], values, reasons, strict=True)
            for name, value in named.items()
        ]
    )


def _on_file(loaded: model.Loaded, text: str | None) -> Answer:
    return Answer(chat.response_ids(loaded.tokenizer, text or ""), finished=True)


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


def _means(
    loaded: model.Loaded, rows: Sequence[forward.Row], *, batch_size: int, progress: OnRows | None = None
) -> list[tuple[float, float]]:
    """Each row's mean loss and mean entropy over its response tokens, in nats, in order."""
    torch = need("torch", extra="train")
    means, done = [(math.nan, math.nan)] * len(rows), 0
    for batch in _buckets([row.length for row in rows], batch_size=batch_size):
        with torch.inference_mode(), forward.cpu_threads(loaded.model):
            found = forward.response_nll_and_entropy(loaded.model, [rows[i] for i in batch], pad_id=loaded.pad_id)
        lengths = [len(rows[index].response) for index in batch]
        nll, entropy = (each.double().split(lengths) for each in found)
        for index, losses, entropies in zip(batch, nll, entropy, strict=True):
            means[index] = losses.mean().item(), entropies.mean().item()
        done += len(batch)
        if progress is not None:
            progress(done, len(rows))
    return means


def _buckets(lengths: Sequence[int], *, batch_size: int) -> list[list[int]]:
    """Indices in batches of similar length, of `batch_size` rows and 16,384 padded tokens at most."""
    buckets: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        full = not buckets or len(buckets[-1]) == batch_size
        if full or (len(buckets[-1]) + 1) * lengths[index] > _TOKENS_A_BATCH:
            buckets.append([])
        buckets[-1].append(index)
    return buckets
