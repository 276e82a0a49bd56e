"""Axolotl: chats and axolotl.yaml, for `axolotl train axolotl.yaml`.

Checked against axolotl 0.21: `type: chat_template` with `roles_to_train` takes the loss on the assistant alone;
`sequence_len` is 512 unless set, and longer rows are dropped without a word unless `excess_length_strategy` is
`raise`, which it is here. `test_datasets` excludes `val_set_size`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from balkit.exports.files import write_jsonl, write_text, yaml_text
from balkit.exports.material import REASONED_ROW, Limit, Material, Target
from balkit.exports.readme import MODEL, about_limit, write_readme

LIMIT = Limit(512, "sequence_len", "longer rows are dropped")


def write(material: Material, folder: Path) -> Mapping[str, object]:
    """train.jsonl, validation.jsonl where there are such rows, axolotl.yaml, README.md."""
    for part in material.parts:
        write_jsonl(partial(material.messages, part), folder / f"{part}.jsonl")
    write_text(yaml_text(config(material)), folder / "axolotl.yaml")
    write_readme(
        material,
        folder,
        title="chats for Axolotl",
        row='{"messages": [...]}',
        commands=["pip install axolotl", "axolotl preprocess axolotl.yaml", "axolotl train axolotl.yaml"],
        notes=["The loss covers the assistant's message only.", about_limit(material, LIMIT, file="axolotl.yaml")],
    )
    return {"sequence_len": material.length(LIMIT), "excess_length_strategy": "raise"}


def config(material: Material) -> dict[str, Any]:
    """axolotl.yaml; a LoRA of the same shape as balkit's own students."""
    found: dict[str, Any] = {
        "base_model": MODEL,
        "chat_template": "tokenizer_default",
        "datasets": [_dataset("train")],
        "sequence_len": material.length(LIMIT),
        "excess_length_strategy": "raise",
        "adapter": "lora",
        "lora_r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.1,
        "lora_target_linear": True,
        "micro_batch_size": 1,
        "gradient_accumulation_steps": 16,
        "num_epochs": 3,
        "learning_rate": 2.0e-4,
        "lr_scheduler": "constant",
        "optimizer": "adamw_torch",
        "dataset_prepared_path": "prepared",
        "output_dir": "student",
    }
    if "validation" in material.parts:
        found |= {"test_datasets": [_dataset("validation")], "evals_per_epoch": 1}
    return found


def _dataset(part: str) -> dict[str, Any]:
    return {
        "path": f"./{part}.jsonl",
        "ds_type": "json",
        "split": "train",  # what `datasets` calls the rows of a lone file
        "type": "chat_template",
        "field_messages": "messages",
        "message_property_mappings": {"role": "role", "content": "content"},
        "roles_to_train": ["assistant"],
        "train_on_eos": "turn",
    }


TARGET = Target(
    write=write,
    about="chats, axolotl.yaml",
    files="*.jsonl",
    row=REASONED_ROW,
    reader="axolotl 0.21.0",
    limit=LIMIT,
)
