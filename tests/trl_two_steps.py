"""Two steps of TRL's own SFTTrainer on an export, as its sft.yaml says: `python trl_two_steps.py EXPORT MODEL OUT`.

Prints JSON: how many tokens are trained on, the steps made, whether the loss is a number, and of every row the text
that the labels mask and the text that they leave. Needs trl, which is not among balkit's packages.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import yaml
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

IGNORED = -100
LOADING = ("dataset_name", "dataset_train_split", "dataset_test_split")


def main(export: str, model: str, out: str) -> None:
    folder = Path(export)
    given = yaml.safe_load((folder / "sft.yaml").read_text(encoding="utf-8"))
    splits = load_dataset(str(folder / given["dataset_name"]), cache_dir=f"{out}/cache")
    settings = {key: value for key, value in given.items() if key not in LOADING} | {"output_dir": out}
    tokenizer = AutoTokenizer.from_pretrained(model)
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        args=SFTConfig(
            **settings, max_steps=2, per_device_train_batch_size=2, report_to="none", use_cpu=True, bf16=False
        ),
        train_dataset=splits[given["dataset_train_split"]],
        eval_dataset=splits[given["dataset_test_split"]],
        processing_class=tokenizer,
    )
    trained, tokens = [], 0
    for row in trainer.train_dataset:
        batch = trainer.data_collator([row])
        ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
        first = next(at for at, label in enumerate(labels) if label != IGNORED)
        assert labels[:first] == [IGNORED] * first
        assert labels[first:] == ids[first:]
        tokens += len(ids) - first
        trained.append([tokenizer.decode(ids[:first]), tokenizer.decode(ids[first:])])
    done = trainer.train()
    said = {"tokens": tokens, "steps": done.global_step, "finite": math.isfinite(done.training_loss), "rows": trained}
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
