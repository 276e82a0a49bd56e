"""Training a student on a snapshot: one loop, loss on the completion only.

A row is the chat of its prompt and one assistant turn, `answers.completion(rationale, answer)` and EOS. The
same inputs and CPU threads give the same weights, bit for bit, on a CPU.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from balkit import answers, frames, recipe, texts
from balkit.errors import StudentError, need
from balkit.student import chat, forward, model
from balkit.student import checkpoint as folders

log = logging.getLogger(__name__)

Progress = Callable[[int, int, float], None]
_MAX_GRADIENT_NORM = 1.0
_BUCKET = 32  # batches that are sorted by length together


@dataclass(frozen=True)
class Trained:
    """A trained student: `losses` holds each step's mean over its tokens, in nats.

    `trainable_tokens` counts completion tokens, EOS included, of one pass over the rows; `dropped` names the
    rows that were too long under `over_length: drop`; `seconds` is the time of the training loop.
    """

    path: Path
    digest: str
    steps: int
    losses: list[float]
    trainable_tokens: int
    seconds: float
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Encoded:
    row_id: str
    tokens: forward.Row


def train(
    base: Path,
    rows: pl.DataFrame,
    *,
    student: recipe.Student,
    options: recipe.Train,
    out: Path,
    seed: int,
    progress: Progress | None = None,
) -> Trained:
    """Train the student in folder `base` on SNAPSHOT_ROWS and write it to `out`, whole or not at all.

    All weights are trained, or the adapters of `student.lora`. `progress` is called as (step, steps, loss). An
    `out` made from the same inputs is returned as it is. Raises `StudentError` before training for rows longer
    than `options.max_length` or the student's context (unless `over_length: drop`) and for rows with nothing to
    learn from; during training, with the batch's row ids, for a loss that is not a number.
    """
    rows = frames.check(rows, frames.SNAPSHOT_ROWS)
    inputs = _inputs(base, rows, student=student, options=options, seed=seed)
    done = folders.complete(out, key=texts.digest(inputs))
    if done is not None:
        return _trained(out, done)
    lora = student.lora
    with _seeded(seed):
        loaded = model.load(base, whole=lora is None, quantize=lora.quantize if lora else None)
        encoded = encode(rows, tokenizer=loaded.tokenizer)
        limit = min(options.max_length, loaded.context)
        kept = _fitting(encoded, limit=limit, options=options, context=loaded.context)
        learner = loaded.model if lora is None else with_lora(loaded.model, lora)
        started = time.monotonic()
        with forward.cpu_threads(learner, count=options.threads):
            losses = _loop(learner, kept, options=options, seed=seed, pad=loaded.pad_id, progress=progress)
        result = {
            "losses": losses,
            "steps": len(losses),
            "seconds": round(time.monotonic() - started, 3),
            "trainable_tokens": sum(len(row.tokens.response) for row in kept),
            "dropped": [row.row_id for row in encoded if row.tokens.length > limit],
        }
        manifest = _save(
            learner, loaded.tokenizer, base=base, out=out, body={**inputs, **result, "key": texts.digest(inputs)}
        )
    return _trained(out, manifest)


def encode(rows: pl.DataFrame, *, tokenizer: Any) -> list[_Encoded]:
    """The rows as tokens, in order; raises `StudentError` for rows that have neither a rationale nor an answer."""
    if rows.is_empty():
        raise StudentError("there are no rows to train on")
    blank = rows.filter(pl.all_horizontal(pl.col("rationale", "answer").str.strip_chars() == ""))["row_id"].to_list()
    if blank:
        raise StudentError(
            f"{len(blank)} of {rows.height} rows have nothing to learn, no rationale and no answer: {_some(blank)}"
        )
    completions = [answers.completion(why, answer) for why, answer in rows.select("rationale", "answer").iter_rows()]
    prompts = chat.prompt_ids(tokenizer, rows["prompt"].to_list())
    responses = chat.completion_ids(tokenizer, completions)
    return [
        _Encoded(row_id, forward.Row(given, response))
        for row_id, given, response in zip(rows["row_id"], prompts, responses, strict=True)
    ]


def plan_batches(lengths: Sequence[int], *, options: recipe.Train, seed: int) -> list[list[int]]:
    """Which rows each step trains on: indices into `lengths`, of similar length within a step.

    An epoch holds every row once. Rows are shuffled, sorted by length inside buckets of 32 batches, cut into
    batches, and the batches shuffled. `epochs` may be a fraction; there is at least one step.
    """
    size = options.batch_size
    steps = max(1, round(options.epochs * math.ceil(len(lengths) / size)))
    steps = min(steps, options.max_steps or steps)
    planned: list[list[int]] = []
    for epoch in range(steps):  # more than enough epochs
        if len(planned) >= steps:
            break
        draw = random.Random(texts.rank_key(seed, "epoch", epoch))
        order = draw.sample(range(len(lengths)), len(lengths))
        batches = []
        for start in range(0, len(order), size * _BUCKET):
            bucket = sorted(order[start : start + size * _BUCKET], key=lambda row: lengths[row])
            batches += [bucket[at : at + size] for at in range(0, len(bucket), size)]
        draw.shuffle(batches)
        planned += batches
    return planned[:steps]


def learning_rate(step: int, *, steps: int, options: recipe.Train) -> float:
    """The rate of a step counted from 0: linear warmup to `lr`, then constant, or down to 0 after the last step."""
    if step < options.warmup_steps:
        return options.lr * (step + 1) / options.warmup_steps
    done = (step - options.warmup_steps) / max(1, steps - options.warmup_steps)
    factor = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[options.schedule]
    return options.lr * factor


def with_lora(base: Any, lora: recipe.Lora) -> Any:
    """The model with fresh adapters on every linear layer but the LM head; they change nothing until trained."""
    peft = need("peft", extra="train")
    if lora.quantize:
        base = peft.prepare_model_for_kbit_training(base)
    config = peft.LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return peft.get_peft_model(base, config)


def _loop(
    learner: Any, rows: list[_Encoded], *, options: recipe.Train, seed: int, pad: int, progress: Progress | None
) -> list[float]:
    torch, accelerate = need("torch", extra="train"), need("accelerate", extra="train")
    gpu = torch.cuda.is_available()
    accelerator = accelerate.Accelerator(cpu=not gpu, mixed_precision="bf16" if gpu else "no")
    if accelerator.num_processes > 1:
        raise StudentError(f"training runs in one process, not {accelerator.num_processes}: start without a launcher")
    weights = [weight for weight in learner.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=options.lr, weight_decay=options.weight_decay)
    learner, optimizer = accelerator.prepare(learner, optimizer)
    learner.train()
    plan = plan_batches([row.tokens.length for row in rows], options=options, seed=seed)
    losses = []
    for step, chosen in enumerate(plan):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps=len(plan), options=options)
        batch = [rows[index] for index in chosen]
        with accelerator.autocast():
            loss = forward.response_nll(learner, [row.tokens for row in batch], pad_id=pad).mean()
        losses.append(_finite(loss.item(), step=step, batch=batch))
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(weights, _MAX_GRADIENT_NORM)
        optimizer.step()
        optimizer.zero_grad()
        if progress is not None:
            progress(step + 1, len(plan), losses[-1])
    learner.eval()
    return losses


def _finite(loss: float, *, step: int, batch: list[_Encoded]) -> float:
    if math.isfinite(loss):
        return loss
    ids = ", ".join(row.row_id for row in batch)
    raise StudentError(f"the loss is {loss} at step {step + 1}; lower train.lr, or look at this batch's rows: {ids}")


def _fitting(encoded: list[_Encoded], *, limit: int, options: recipe.Train, context: int) -> list[_Encoded]:
    long = [row for row in encoded if row.tokens.length > limit]
    if not long:
        return encoded
    what = (
        f"{len(long)} of {len(encoded)} rows are longer than {limit} tokens (the longest has "
        f"{max(row.tokens.length for row in long)}; train.max_length {options.max_length}, the student's context "
        f"{context}): {_some([row.row_id for row in long])}"
    )
    if options.over_length == "error":
        raise StudentError(f"{what}; raise the smaller of the two, or set train.over_length: drop")
    if len(long) == len(encoded):
        raise StudentError(f"{what}; none is left to train on")
    log.warning("dropped: %s", what)
    return [row for row in encoded if row.tokens.length <= limit]


def _inputs(
    base: Path, rows: pl.DataFrame, *, student: recipe.Student, options: recipe.Train, seed: int
) -> dict[str, Any]:
    manifest = folders.read_manifest(base)
    if manifest["kind"] not in ("small", "pretrained"):
        raise StudentError(
            f"{base} is a trained checkpoint; every stage starts from the base's own weights: name the base"
        )
    content = rows.select("row_id", "prompt", "rationale", "answer").rows()
    return {
        "base_digest": manifest["digest"],
        "rows_digest": texts.digest([list(row) for row in content]),
        "lora": None if student.lora is None else student.lora.model_dump(mode="json"),
        "options": options.model_dump(mode="json"),
        "seed": seed,
    }


def _save(learner: Any, tokenizer: Any, *, base: Path, out: Path, body: dict[str, Any]) -> dict[str, Any]:
    lora = body["lora"]
    with folders.staged(out) as staging, model.quiet():
        extra = {} if lora is None else {"save_embedding_layers": False}  # "auto" would ask the hub
        learner.save_pretrained(staging, **extra)
        tokenizer.save_pretrained(staging)
        weights = folders.weights_digest(staging)
        body = {**body, "weights": weights, "digest": texts.digest([body["base_digest"], weights]), "kind": "full"}
        if lora is not None:
            named = folders.read_manifest(base)["base"]
            revision = getattr(learner.get_base_model().config, "_commit_hash", None)
            body |= {"kind": "adapter", "base": {**named, "quantize": lora["quantize"], "revision": revision}}
        return folders.write_manifest(staging, body)


def _trained(out: Path, manifest: dict[str, Any]) -> Trained:
    return Trained(
        path=out,
        digest=manifest["digest"],
        steps=manifest["steps"],
        losses=manifest["losses"],
        trainable_tokens=manifest["trainable_tokens"],
        seconds=manifest["seconds"],
        dropped=tuple(manifest["dropped"]),
    )


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """torch's random state seeded inside the block (dropout, adapters' first weights) and put back after it."""
    torch = need("torch", extra="train")
    gpus = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=gpus):
        torch.manual_seed(seed)
        yield


def _some(ids: Sequence[str], *, shown: int = 5) -> str:
    return ", ".join(ids[:shown]) + (f" and {len(ids) - shown} more" if len(ids) > shown else "")
