"""Training a student on a snapshot: one loop, loss on the completion only.

A row is the chat of its prompt and one assistant turn, `answers.completion(rationale, answer)` and EOS. The
same inputs and CPU threads give the same weights, bit for bit, on a CPU.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from balkit import answers, frames, recipe, texts
from balkit.errors import StudentError, need
from balkit.student import chat, forward, model, resume
from balkit.student import checkpoint as folders
from balkit.student.loop import Encoded, Loop, Progress
from balkit.student.ranks import Ranks

log = logging.getLogger(__name__)

#: Seconds of training between two states that a stopped one could go on from.
KEEP_EVERY_S = 60.0


@dataclass(frozen=True)
class Trained:
    """A trained student: `losses` holds each step's mean over its completion tokens, in nats.

    `dev_losses` holds (step, mean loss on dev) with early stopping, and `best_step` says whose weights these are (the
    last step's without it). `trainable_tokens` counts completion tokens, EOS included, of one pass over the rows;
    `dropped` names the rows that were too long under `over_length: drop`; `seconds` is the time of the training loop,
    in the process that ended it.
    """

    path: Path
    digest: str
    steps: int
    losses: list[float]
    trainable_tokens: int
    seconds: float
    dropped: tuple[str, ...] = ()
    dev_losses: tuple[tuple[int, float], ...] = ()
    best_step: int | None = None


def train(
    base: Path,
    rows: pl.DataFrame,
    *,
    student: recipe.Student,
    options: recipe.Train,
    out: Path,
    seed: int,
    dev: pl.DataFrame | None = None,
    progress: Progress | None = None,
    keep_every_s: float = KEEP_EVERY_S,
) -> Trained:
    """Train the student in folder `base` on SNAPSHOT_ROWS and write it to `out`, whole or not at all.

    All weights are trained, or the adapters of `student.lora`. `progress` is called as (step, steps, loss). An
    `out` made from the same inputs is returned as it is. A training that was stopped goes on from its last state, kept
    every `keep_every_s` seconds and on Ctrl-C; on a CPU it ends with the weights of one that was not.

    dev  SNAPSHOT_ROWS that `options.early_stopping` measures the loss on; not used without it

    Several processes (`accelerate launch`) share each step's rows, and the main one writes. Raises `StudentError`
    before training for rows longer than `options.max_length` or the student's context (unless `over_length: drop`), for
    rows with nothing to learn from, and for early stopping without dev rows; during training, with the batch's row
    ids, for a loss that is not a number.
    """
    rows, dev = frames.check(rows, frames.SNAPSHOT_ROWS), _dev(dev, options)
    inputs = _inputs(base, rows, dev=dev, student=student, options=options, seed=seed)
    key, lora, ranks = texts.digest(inputs), student.lora, Ranks()
    done = folders.complete(out, key=key)
    if done is not None:
        return _trained(out, done)
    with _seeded(seed):
        loaded = model.load(base, whole=lora is None, quantize=lora.quantize if lora else None)
        limit = min(options.max_length, loaded.context)
        encoded = encode(rows, tokenizer=loaded.tokenizer)
        kept = _fitting(encoded, limit=limit, options=options, context=loaded.context)
        kept = _weighted(kept, rows, options=options)
        watched = encode(dev, tokenizer=loaded.tokenizer) if dev is not None else []
        learner = loaded.model if lora is None else with_lora(loaded.model, lora)
        if options.gradient_checkpointing:
            enable = getattr(learner, "activation_checkpointing_enable", None) or learner.gradient_checkpointing_enable
            enable({"use_reentrant": False})
        memory = resume.Memory.of(out, key=key, every_s=keep_every_s, writes=ranks.main)
        started = time.monotonic()
        with forward.cpu_threads(learner, count=options.threads):
            loop = Loop(
                learner,
                rows=kept,
                dev=_fitting(watched, limit=limit, options=options, context=loaded.context),
                options=options,
                seed=seed,
                pad=loaded.pad_id,
                ranks=ranks,
                memory=memory,
            )
            course = loop.run(progress)
        result = {
            "key": key,
            "losses": course.losses,
            "dev_losses": course.dev,
            "best_step": course.best or course.step,
            "steps": course.step,
            "processes": ranks.count,
            "seconds": round(time.monotonic() - started, 3),
            "trainable_tokens": sum(len(row.tokens.response) for row in kept),
            "dropped": [row.row_id for row in encoded if row.tokens.length > limit],
        }
        if ranks.main:
            _save(learner, loaded.tokenizer, base=base, out=out, body={**inputs, **result})
            memory.forget()
        ranks.wait()
    return _trained(out, folders.read_manifest(out))


def _dev(dev: pl.DataFrame | None, options: recipe.Train) -> pl.DataFrame | None:
    if options.early_stopping is None:
        return None
    if dev is None or dev.is_empty():
        raise StudentError(
            "train.early_stopping goes by the loss on dev rows, and there is none with a rationale: add some "
            "(`balkit add POOL FILE --split dev ...`), have them answered (`balkit annotate --split dev`), or remove it"
        )
    return frames.check(dev, frames.SNAPSHOT_ROWS)


def _weighted(kept: list[Encoded], rows: pl.DataFrame, *, options: recipe.Train) -> list[Encoded]:
    """Rows with the weights of `row_weights`: the mean over completion tokens is 1."""
    if options.row_weights == "none":
        return kept
    domains = dict(rows.select("row_id", "domain").iter_rows())
    tokens: Counter[str] = Counter()
    for row in kept:
        tokens[domains[row.row_id]] += len(row.tokens.response)
    return [replace(row, weight=tokens.total() / (len(tokens) * tokens[domains[row.row_id]])) for row in kept]


def encode(rows: pl.DataFrame, *, tokenizer: Any) -> list[Encoded]:
    """The rows as tokens, in order; raises `StudentError` for rows whose completion holds no token but EOS."""
    if rows.is_empty():
        raise StudentError("there are no rows to train on")
    completions = [answers.completion(why, answer) for why, answer in rows.select("rationale", "answer").iter_rows()]
    prompts = chat.prompt_ids(tokenizer, rows["prompt"].to_list())
    responses = chat.completion_ids(tokenizer, completions)
    said = [text.strip() and len(ids) > 1 for text, ids in zip(completions, responses, strict=True)]
    blank = [row_id for row_id, text in zip(rows["row_id"], said, strict=True) if not text]
    if blank:
        raise StudentError(
            f"{len(blank)} of {rows.height} rows have nothing to learn, no rationale and no answer: {_some(blank)}"
        )
    return [
        Encoded(row_id, forward.Row(given, response))
        for row_id, given, response in zip(rows["row_id"], prompts, responses, strict=True)
    ]


def with_lora(base: Any, lora: recipe.Lora) -> Any:
    """The model with fresh adapters on every linear layer but the LM head; they change nothing until trained."""
    peft = need("peft", extra="train")
    if lora.quantize:
        base = peft.prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
    config = peft.LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return peft.get_peft_model(base, config)


def _fitting(encoded: list[Encoded], *, limit: int, options: recipe.Train, context: int) -> list[Encoded]:
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
    base: Path,
    rows: pl.DataFrame,
    *,
    dev: pl.DataFrame | None,
    student: recipe.Student,
    options: recipe.Train,
    seed: int,
) -> dict[str, Any]:
    manifest = folders.read_manifest(base)
    if manifest["kind"] not in ("small", "pretrained"):
        raise StudentError(
            f"{base} is a trained checkpoint; every stage starts from the base's own weights: name the base"
        )
    weighed = ["domain"] if options.row_weights != "none" else []
    return {
        "base_digest": manifest["digest"],
        "rows_digest": _digest(rows, "row_id", "prompt", "rationale", "answer", *weighed),
        **({} if dev is None else {"dev_digest": _digest(dev, "row_id", "prompt", "rationale", "answer")}),
        "lora": None if student.lora is None else student.lora.model_dump(mode="json"),
        "options": options.settings(),
        "seed": seed,
    }


def _digest(rows: pl.DataFrame, *columns: str) -> str:
    return texts.digest([list(row) for row in rows.select(columns).iter_rows()])


def _save(learner: Any, tokenizer: Any, *, base: Path, out: Path, body: dict[str, Any]) -> None:
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
        folders.write_manifest(staging, body)


def _trained(out: Path, manifest: dict[str, Any]) -> Trained:
    return Trained(
        path=out,
        digest=manifest["digest"],
        steps=manifest["steps"],
        losses=manifest["losses"],
        trainable_tokens=manifest["trainable_tokens"],
        seconds=manifest["seconds"],
        dropped=tuple(manifest["dropped"]),
        dev_losses=tuple((step, loss) for step, loss in manifest.get("dev_losses", [])),
        best_step=manifest.get("best_step"),
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
