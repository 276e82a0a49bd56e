"""Training tokens a second on rows of skewed lengths, beside transformers' Trainer and TRL's SFTTrainer with packing.

    python tests/benchmarks/bench_student.py [rounds] [rows]

A small student and lengths drawn from a log-normal: most rows are short, a few ten times as long. Each way trains on
all rows once with the same batch size and optimizer; a token is one of a row, padding does not count. Every way runs
in a process of its own. Batches are each way's own, so mean losses are near each other and not equal; that the same
batches give the same losses is tests/test_student_reference.py's. TRL is measured where it is installed.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import tempfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from measuring import compared, digits, in_child, interleaved, median, table

from balkit import recipe, student

BATCH, CONTEXT, LR = 16, 512, 2e-4
SECTION = recipe.Student(layers=4, width=128, heads=4, vocabulary=2048, context=CONTEXT)
WORDS = [f"{a}{b}" for a in ("ka", "lo", "mi", "ru", "te", "sa", "vo", "ne") for b in ("ra", "di", "lu", "po", "se")]


def texts(rows: int, *, seed: int = 0) -> list[tuple[str, str]]:
    """Prompts and answers, log-normal in length: most are short, a few ten times as long."""
    draw = random.Random(seed)

    def words(count: float) -> str:
        return " ".join(draw.choice(WORDS) for _ in range(max(1, min(120, round(count)))))

    return [(words(draw.lognormvariate(2.2, 1.0)), words(draw.lognormvariate(2.8, 1.2))) for _ in range(rows)]


def frame(pairs: list[tuple[str, str]]) -> Any:
    """The pairs as SNAPSHOT_ROWS."""
    from balkit import frames

    fixed = {"stage": 1, "copy": 0, "domain": "d", "split": "train", "origin": "source", "author": "bench"}
    names = ("row_id", "example_id", "rationale_id")
    return frames.SNAPSHOT_ROWS.of(
        [
            {**fixed, **{name: f"{name}{n}" for name in names}, "position": n, "prompt": prompt, "reference": "",
             "rationale": answer, "answer": "ka"}
            for n, (prompt, answer) in enumerate(pairs)
        ]
    )  # fmt: skip


def encoded(base: Path, rows: int) -> tuple[Any, list[Any]]:
    from balkit.student import model
    from balkit.student.train import encode

    loaded = model.load(base)
    return loaded, encode(frame(texts(rows)), tokenizer=loaded.tokenizer)


def by_balkit(base: Path, rows: int) -> dict[str, float]:
    """Ours, as `balkit train` does it."""
    options = recipe.Train(epochs=1, lr=LR, batch_size=BATCH, max_length=CONTEXT, threads=2)
    with tempfile.TemporaryDirectory() as folder:
        data = frame(texts(rows))
        done = student.train(base, data, student=SECTION, options=options, out=Path(folder) / "out", seed=0)
    return {"seconds": done.seconds, "mean loss": sum(done.losses) / len(done.losses)}


def by_trainer(base: Path, rows: int) -> dict[str, float]:
    """transformers' Trainer with its default sampler: shuffled rows, padded to the longest of a batch."""
    import torch
    from transformers import Trainer, TrainingArguments

    torch.set_num_threads(2)
    loaded, found = encoded(base, rows)

    def collated(chosen: list[Any]) -> dict[str, Any]:
        width = max(row.tokens.length for row in chosen)
        ids = torch.full((len(chosen), width), loaded.pad_id)
        labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
        for line, row in enumerate(chosen):
            given, response = row.tokens.given, row.tokens.response
            ids[line, : row.tokens.length] = torch.tensor(given + response)
            labels[line, len(given) : row.tokens.length] = torch.tensor(response)
            mask[line, : row.tokens.length] = 1
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=loaded.model,
            args=TrainingArguments(**_arguments(folder)),
            train_dataset=found,
            data_collator=collated,
        )
        done = trainer.train()
    return {"seconds": done.metrics["train_runtime"], "mean loss": done.training_loss}


def by_trl(base: Path, rows: int) -> dict[str, float]:
    """TRL's SFTTrainer with packing; tokenised beforehand, with the loss on completions alone."""
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(2)
    loaded, found = encoded(base, rows)
    data = Dataset.from_list(
        [
            {"input_ids": row.tokens.given + row.tokens.response,
             "completion_mask": [0] * len(row.tokens.given) + [1] * len(row.tokens.response)}
            for row in found
        ]
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        each = max(1, round(BATCH * sum(row.tokens.length for row in found) / len(found) / CONTEXT))
        arguments = {**_arguments(folder), "per_device_train_batch_size": each}
        config = SFTConfig(**arguments, packing=True, max_length=CONTEXT, completion_only_loss=True)
        trainer = SFTTrainer(model=loaded.model, args=config, train_dataset=data, processing_class=loaded.tokenizer)
        done = trainer.train()
    return {"seconds": done.metrics["train_runtime"], "mean loss": done.training_loss}


def _arguments(folder: str) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "num_train_epochs": 1,
        "per_device_train_batch_size": BATCH,
        "learning_rate": LR,
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "optim": "adamw_torch",
        "remove_unused_columns": False,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rounds", type=int, nargs="?", default=3)
    parser.add_argument("rows", type=int, nargs="?", default=1600)
    asked = parser.parse_args()
    ways = {"balkit": by_balkit, "transformers Trainer": by_trainer}
    if find_spec("trl") and find_spec("datasets"):
        ways["TRL SFTTrainer, packing"] = by_trl
    else:
        print("trl is not installed: SFTTrainer is not measured")
    with tempfile.TemporaryDirectory() as folder:
        base = student.base(SECTION, corpus=[" ".join(WORDS)], seed=0, folder=Path(folder) / "base")
        _, found = encoded(base, asked.rows)
        tokens = sum(row.tokens.length for row in found)
        lengths = sorted(row.tokens.length for row in found)
        peaks: dict[str, float] = {}
        losses: dict[str, float] = {}

        def run(name: str) -> float:
            value, _, peak = in_child(ways[name], base, asked.rows)
            peaks[name], losses[name] = peak, value["mean loss"]
            return float(value["seconds"])

        times = interleaved(asked.rounds, {name: partial(run, name) for name in ways})
    rates = {name: digits(tokens / statistics.median(taken)) for name, taken in times.items()}
    ours = times["balkit"]
    lines: list[list[object]] = [
        [name, median(taken), rates[name], compared(taken, ours)[0], f"{losses[name]:.4f}", digits(peaks[name])]
        for name, taken in times.items()
    ]
    spread = ", ".join(str(lengths[math.floor(q * (len(lengths) - 1))]) for q in (0.1, 0.5, 0.9, 1))
    title = f"{asked.rows:,} rows, {tokens:,} tokens, lengths at 10, 50, 90, 100 %: {spread}; batches of {BATCH} rows."
    print(table(title, "way | seconds | tokens/s | takes | mean loss | peak MiB", lines))


if __name__ == "__main__":
    main()
