"""Training tokens a second on rows of skewed lengths, and rows of IFD a second, beside others.

    python tests/benchmarks/bench_student.py [rounds] [rows] [--only train|ifd] [--scored 400] [--threads 2]

Lengths are drawn from a log-normal: most rows are short, a few ten times as long. Every way runs in a process of its
own, and all of them in turn. `takes` is how many times as long as ours; CPU time is steadier on a busy machine.

train  Ours beside transformers' Trainer with its default sampler and TRL's SFTTrainer with packing (where it is
       installed). Each trains on all rows once with the same batch size and optimizer; a token is one of a row, padding
       does not count. Batches are each way's own, so mean losses are near each other and not equal. Then Trainer on our
       batches: the largest difference of a step's loss.
ifd    Ours beside a loop that takes one row after another, with and without its prompt, and all logits; each on one
       thread and on two. `|dNLL|` is the largest difference of a row's mean loss, and of the logarithm of its IFD.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import tempfile
import time
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from measuring import compared, digits, in_child, interleaved, median, table

from balkit import recipe, student

BATCH, CONTEXT, LR = 16, 512, 2e-4
OPTIONS = recipe.Train(epochs=1, lr=LR, batch_size=BATCH, max_length=CONTEXT)
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


def by_balkit(base: Path, rows: int, threads: int) -> dict[str, Any]:
    """Ours, as `balkit train` does it. CPU time is that of reading and writing the model too."""
    encoded(base, 1)  # the libraries are there before the clock starts, as for the others
    options, started = OPTIONS.model_copy(update={"threads": threads}), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        data = frame(texts(rows))
        done = student.train(base, data, student=SECTION, options=options, out=Path(folder) / "out", seed=0)
    cpu = time.process_time() - started
    return {"seconds": done.seconds, "cpu": cpu, "mean loss": statistics.mean(done.losses), "losses": done.losses}


def by_trainer(base: Path, rows: int, threads: int, *, ours: bool = False) -> dict[str, Any]:
    """transformers' Trainer: shuffled rows by its default sampler or `ours`, padded to the longest of a batch."""
    import torch
    from transformers import Trainer, TrainingArguments

    from balkit.student.loop import plan_batches

    torch.set_num_threads(threads)
    loaded, found = encoded(base, rows)
    plan = plan_batches([row.tokens.length for row in found], options=OPTIONS, seed=0)

    class Ours(Trainer):  # type: ignore[misc]
        def get_train_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(found, batch_sampler=plan, collate_fn=collated)

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
        logged = {"logging_strategy": "steps", "logging_steps": 1} if ours else {}
        trainer = (Ours if ours else Trainer)(
            model=loaded.model,
            args=TrainingArguments(**{**_arguments(folder), **logged}),
            train_dataset=found,
            data_collator=collated,
        )
        started = time.process_time()
        done = trainer.train()
        cpu = time.process_time() - started
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    seconds = done.metrics["train_runtime"]
    return {"seconds": seconds, "cpu": cpu, "mean loss": done.training_loss, "losses": losses}


def by_trl(base: Path, rows: int, threads: int) -> dict[str, Any]:
    """TRL's SFTTrainer with packing; tokenised beforehand, with the loss on completions alone."""
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(threads)
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
        started = time.process_time()
        done = trainer.train()
        cpu = time.process_time() - started
    return {"seconds": done.metrics["train_runtime"], "cpu": cpu, "mean loss": done.training_loss}


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


def train(base: Path, *, rounds: int, rows: int, threads: int) -> None:
    """The table of training."""
    ways: dict[str, Any] = {"balkit": by_balkit, "transformers Trainer": by_trainer}
    if find_spec("trl") and find_spec("datasets"):
        ways["TRL SFTTrainer, packing"] = by_trl
    else:
        print("trl is not installed: SFTTrainer is not measured")
    _, found = encoded(base, rows)
    tokens = sum(row.tokens.length for row in found)
    peaks: dict[str, float] = {}
    told: dict[str, dict[str, Any]] = {}
    cpus: dict[str, list[float]] = {}

    def run(name: str) -> float:
        told[name], _, peaks[name] = in_child(ways[name], base, rows, threads)
        cpus.setdefault(name, []).append(told[name]["cpu"])
        return float(told[name]["seconds"])

    times = interleaved(rounds, {name: partial(run, name) for name in ways})
    rates = {name: digits(tokens / statistics.median(taken)) for name, taken in times.items()}
    lines: list[list[object]] = [
        [name, median(taken), median(cpus[name]), rates[name], compared(taken, times["balkit"])[0],
         compared(cpus[name], cpus["balkit"])[0], f"{told[name]['mean loss']:.4f}", digits(peaks[name])]
        for name, taken in times.items()
    ]  # fmt: skip
    title = f"{rows:,} rows, {tokens:,} tokens, {_spread(found)}; batches of {BATCH} rows, {threads} threads."
    print(table(title, "way | s | CPU s | tokens/s | takes | CPU takes | mean loss | peak MiB", lines))
    same, _, _ = in_child(partial(by_trainer, ours=True), base, rows, threads)
    pairs = list(zip(told["balkit"]["losses"], same["losses"], strict=True))
    worst = max(abs(a - b) for a, b in pairs)
    print(f"\nTrainer on our batches: {len(pairs)} steps, losses differ by {worst:.1e} at most")


def ifd_by_balkit(base: Path, rows: int, threads: int) -> dict[str, Any]:
    """Ours, without loading the model."""
    import polars as pl

    from balkit.student.forward import cpu_threads

    scoring = import_module("balkit.student.score")  # the package has a function of that name
    loaded, pairs = scoring.model.load(base), texts(rows)
    asked = pl.DataFrame({"example_id": [str(n) for n in range(rows)], "prompt": [a for a, _ in pairs],
                          "response": [b for _, b in pairs]})  # fmt: skip
    scoring.model.load = lambda folder: loaded  # the loop beside it has its model too
    scoring.forward.cpu_threads = lambda model: cpu_threads(model, count=threads)
    started, cpu = time.perf_counter(), time.process_time()
    found = pl.concat(scoring.scored(base, asked, response="reference", max_new_tokens=1, batch_size=32,
                                     names=("ifd", "loss")))  # fmt: skip
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    wide = found.pivot("name", index="example_id", values="value").sort(pl.col("example_id").cast(pl.Int64))
    return {"seconds": seconds, "cpu": cpu, "loss": wide["loss"].to_list(), "log ifd": wide["ifd"].log().to_list()}


def ifd_one_by_one(base: Path, rows: int, threads: int) -> dict[str, Any]:
    """One row after another: the loss over the answer that transformers gives, with the prompt and without."""
    import torch

    from balkit.student import chat, model

    torch.set_num_threads(threads)
    loaded = model.load(base)
    opening = chat.opening_ids(loaded.tokenizer)
    found: dict[str, Any] = {"loss": [], "log ifd": []}
    started, cpu = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        for prompt, answer in texts(rows):
            (given,) = chat.prompt_ids(loaded.tokenizer, [prompt])
            y = chat.response_ids(loaded.tokenizer, answer)
            nll = []
            for before in (given, opening):
                ids = torch.tensor([before + y])
                labels = torch.tensor([[-100] * len(before) + y])
                nll.append(loaded.model(input_ids=ids, labels=labels).loss.item())
            found["loss"].append(nll[0])
            found["log ifd"].append(nll[0] - nll[1])
    return {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu, **found}


def ifd(base: Path, *, rounds: int, rows: int) -> None:
    """The table of IFD."""
    kinds = {"balkit": ifd_by_balkit, "one by one": ifd_one_by_one}
    ways = {f"{name}, {n} thread{'s' * (n > 1)}": (way, n) for name, way in kinds.items() for n in (1, 2)}
    peaks: dict[str, float] = {}
    told: dict[str, dict[str, Any]] = {}
    cpus: dict[str, list[float]] = {}

    def run(name: str) -> float:
        way, threads = ways[name]
        told[name], _, peaks[name] = in_child(way, base, rows, threads)
        cpus.setdefault(name, []).append(told[name]["cpu"])
        return float(told[name]["seconds"])

    times = interleaved(rounds, {name: partial(run, name) for name in ways})
    first = next(iter(ways))
    lines: list[list[object]] = [
        [
            name,
            median(taken),
            median(cpus[name]),
            digits(rows / statistics.median(taken)),
            compared(taken, times[first])[0],
            compared(cpus[name], cpus[first])[0],
            digits(peaks[name]),
        ]
        for name, taken in times.items()
    ]
    _, found = encoded(base, rows)
    print(table(f"{rows:,} rows, {_spread(found)}.", "way | s | CPU s | rows/s | takes | CPU takes | peak MiB", lines))
    pairs = [zip(told[name][key], told[first][key], strict=True) for key in ("loss", "log ifd") for name in ways]
    worst = max(abs(a - b) for each in pairs for a, b in each)
    print(f"\n|dNLL| is {worst:.1e} at most")


def _spread(found: list[Any]) -> str:
    lengths = sorted(row.tokens.length for row in found)
    return "tokens a row at 10, 50, 90, 100 %: " + ", ".join(
        str(lengths[math.floor(q * (len(lengths) - 1))]) for q in (0.1, 0.5, 0.9, 1)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rounds", type=int, nargs="?", default=3)
    parser.add_argument("rows", type=int, nargs="?", default=1600)
    parser.add_argument("--only", choices=["train", "ifd"])
    parser.add_argument("--scored", type=int, default=400, help="rows of the table of IFD")
    parser.add_argument("--threads", type=int, default=2, help="of the ways of training")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = student.base(SECTION, corpus=[" ".join(WORDS)], seed=0, folder=Path(folder) / "base")
        if asked.only != "ifd":
            train(base, rounds=asked.rounds, rows=asked.rows, threads=asked.threads)
        if asked.only != "train":
            ifd(base, rounds=asked.rounds, rows=asked.scored)


if __name__ == "__main__":
    main()
