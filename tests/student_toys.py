"""A toy task and a student small enough to learn it in a second."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from balkit import frames, recipe, student

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads that wait for each other are slow on a busy machine

TINY = recipe.Student(layers=1, width=32, heads=2, vocabulary=300, context=96)
QUICK = recipe.Train(epochs=2, lr=5e-3, batch_size=4)
PAIRS = [("red", "rose"), ("blue", "sky"), ("green", "leaf"), ("white", "snow"), ("black", "coal"), ("gold", "ring")]


def toy_rows(pairs: Sequence[tuple[str, str]] = PAIRS, *, prompt: str = "What is {}?") -> pl.DataFrame:
    """SNAPSHOT_ROWS r0, r1, ... that map a colour to a thing."""
    fixed = {"stage": 1, "copy": 0, "domain": "toys", "split": "train", "origin": "source", "author": "test"}
    return frames.SNAPSHOT_ROWS.of(
        [
            {
                **fixed,
                "position": n,
                "row_id": f"r{n}",
                "example_id": f"e{n}",
                "rationale_id": f"w{n}",
                "prompt": prompt.format(colour),
                "reference": thing,
                "rationale": f"A {thing} is {colour}.",
                "answer": thing,
            }
            for n, (colour, thing) in enumerate(pairs)
        ]
    )


def toy_examples(rows: pl.DataFrame, *, split: str = "eval") -> pl.DataFrame:
    """The rows as EXAMPLES."""
    return rows.select(
        "example_id",
        "prompt",
        "reference",
        "domain",
        pl.lit(split).alias("split"),
        "origin",
        pl.Series("parents", [[]] * rows.height, dtype=pl.List(pl.String)),
        pl.lit(1, dtype=pl.Int64).alias("added_in"),
    )


def small_base(folder: Path, *, section: recipe.Student = TINY, seed: int = 0) -> Path:
    corpus = [text for row in toy_rows().select("prompt", "rationale").iter_rows() for text in row]
    return student.base(section, corpus=corpus, seed=seed, folder=folder)


def pretrained_folder(folder: Path, *, chat_template: str | None = None) -> Path:
    """A folder as the hub serves them: config, weights, tokenizer; with the given chat template or none."""
    from transformers import AutoTokenizer

    made = small_base(folder.parent / f"{folder.name}-source")
    shutil.copytree(made, folder, ignore=shutil.ignore_patterns("manifest.json", "chat_template.jinja", "tokenizer*"))
    tokenizer: Any = AutoTokenizer.from_pretrained(str(made))
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)
    return folder


def gpt2_folder(folder: Path) -> Path:
    """A tiny GPT-2: learned positions, and no chat template."""
    from transformers import GPT2Config, GPT2LMHeadModel

    pretrained_folder(folder)
    config = GPT2Config(
        vocab_size=300, n_embd=32, n_layer=1, n_head=2, n_positions=96, bos_token_id=1, eos_token_id=2, pad_token_id=0
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder
