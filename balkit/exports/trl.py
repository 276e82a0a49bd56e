"""TRL supervised fine-tuning: prompt-completion rows (the loss covers the completion only) and sft.yaml.

Checked against trl 1.16: `trl sft --config sft.yaml` loads `dataset_name` with `datasets.load_dataset`, takes the
splits by name, and cuts rows at `max_length`, which is 1024 unless it is set. The rows lie in a folder of their own
because `load_dataset(".")` fails (datasets 5.2: "dataset_name should be specified").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from balkit.exports.files import write_jsonl, write_text, yaml_text
from balkit.exports.material import Limit, Material, Target, object_schema, turns_schema
from balkit.exports.readme import MODEL, about_limit, write_readme

LIMIT = Limit(1024, "max_length", "longer rows are cut")
_KEYS = ("reasoning_content",)


def write(material: Material, folder: Path) -> Mapping[str, object]:
    """data/train.jsonl, data/validation.jsonl where there are such rows, sft.yaml, README.md."""
    (folder / "data").mkdir()
    for part in material.parts:
        write_jsonl(partial(_rows, material, part), folder / "data" / f"{part}.jsonl")
    write_text(yaml_text(config(material)), folder / "sft.yaml")
    write_readme(
        material,
        folder,
        title="prompt-completion rows for TRL",
        row='{"prompt": [messages], "completion": [{assistant}]}',
        commands=[
            "pip install trl",
            f"hf download {MODEL}",
            f"trl sft --config sft.yaml --model_name_or_path {MODEL}",
        ],
        notes=[
            "The loss covers the completion only. Any chat model that `transformers` loads will do.",
            about_limit(material, LIMIT, file="sft.yaml"),
        ],
    )
    return {LIMIT.setting: material.length(LIMIT)}


def config(material: Material) -> dict[str, Any]:
    """sft.yaml: arguments of `trl sft`, which are fields of its ScriptArguments, SFTConfig and ModelConfig."""
    found: dict[str, Any] = {
        "dataset_name": "./data",
        "dataset_train_split": "train",
        "max_length": material.length(LIMIT),
        "completion_only_loss": True,
        "output_dir": "student",
    }
    if "validation" in material.parts:
        found |= {"dataset_test_split": "validation", "eval_strategy": "epoch"}
    return found


def _rows(material: Material, part: str) -> Iterator[dict[str, Any]]:
    for messages in material.chats(part):
        yield {"prompt": messages[:-1], "completion": messages[-1:]}


TARGET = Target(
    write=write,
    about="prompt and completion, sft.yaml",
    files="data/*.jsonl",
    row=object_schema(prompt=turns_schema("user", keys=_KEYS), completion=turns_schema("assistant", keys=_KEYS)),
    reader="trl 1.16.0",
    limit=LIMIT,
)
