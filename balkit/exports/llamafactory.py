"""LLaMA-Factory: chats, dataset_info.json that names them, and train.yaml.

Checked against llamafactory 0.9.5. A row that its converter dislikes becomes an empty one with a mere warning, so
roles alternate here and come in pairs after the system message. A column or tag that dataset_info.json leaves out of
a section that it has becomes None: both sections are whole. Rows are cut at `cutoff_len`, and other keys of a message
than role and content are dropped, so that `reasoning_content` is refused. The loss covers the assistant's message.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from balkit.exports import preferences
from balkit.exports.files import write_jsonl, write_text, yaml_text
from balkit.exports.material import CHAT_ROW, PLAIN_FORMS, Limit, Material, Target, object_schema, turns_schema
from balkit.exports.readme import MODEL, about_limit, write_readme

LIMIT = Limit(2048, "cutoff_len", "longer rows are cut")

_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}


def write(material: Material, folder: Path) -> Mapping[str, object]:
    """train.jsonl, validation.jsonl where there are such rows, dataset_info.json, train.yaml, README.md."""
    for part in material.parts:
        write_jsonl(partial(material.messages, part), folder / f"{part}.jsonl")
    info = {
        f"balkit_{part}": {
            "file_name": f"{part}.jsonl",
            "formatting": "sharegpt",
            "columns": {"messages": "messages"},
            "tags": _TAGS,
        }
        for part in material.parts
    }
    write_text(json.dumps(info, indent=2) + "\n", folder / "dataset_info.json")
    write_text(yaml_text(config(material)), folder / "train.yaml")
    write_readme(
        material,
        folder,
        title="chats for LLaMA-Factory",
        row='{"messages": [...]}',
        commands=[
            "pip install llamafactory",
            "llamafactory-cli train train.yaml",
            f"llamafactory-cli chat --model_name_or_path {MODEL} --adapter_name_or_path student --template qwen",
        ],
        notes=[
            "`template` in train.yaml must be that of the model: another model needs another.",
            about_limit(material, LIMIT, file="train.yaml"),
        ],
    )
    return {"cutoff_len": material.length(LIMIT)}


def config(material: Material) -> dict[str, Any]:
    """train.yaml: arguments of `llamafactory-cli train`."""
    found: dict[str, Any] = {
        "model_name_or_path": MODEL,
        "template": "qwen",
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "dataset_dir": ".",
        "dataset": "balkit_train",
        "cutoff_len": material.length(LIMIT),
        "output_dir": "student",
    }
    if "validation" in material.parts:
        found |= {"eval_dataset": "balkit_validation", "eval_strategy": "epoch"}
    return found


def write_dpo(material: Material, folder: Path) -> Mapping[str, object]:
    """train.jsonl, validation.jsonl where there are such pairs, dataset_info.json, train.yaml, README.md."""
    for part in material.pairs:
        write_jsonl(partial(_ranked, material, part), folder / f"{part}.jsonl")
    info = {
        f"balkit_{part}": {
            "file_name": f"{part}.jsonl",
            "formatting": "sharegpt",
            "ranking": True,
            "columns": {"messages": "messages", "chosen": "chosen", "rejected": "rejected"},
            "tags": _TAGS,
        }
        for part in material.pairs
    }
    write_text(json.dumps(info, indent=2) + "\n", folder / "dataset_info.json")
    length = material.length(LIMIT, longest=material.longest_pair)
    body = config(material) | {"stage": "dpo", "pref_beta": 0.1, "pref_loss": "sigmoid", "cutoff_len": length}
    if "validation" not in material.pairs:
        body = {key: value for key, value in body.items() if key not in ("eval_dataset", "eval_strategy")}
    write_text(yaml_text(body), folder / "train.yaml")
    write_readme(
        material,
        folder,
        title="preference pairs for LLaMA-Factory",
        row='{"messages": [...], "chosen": {...}, "rejected": {...}}',
        commands=[
            "pip install llamafactory",
            "llamafactory-cli train train.yaml",
            f"llamafactory-cli chat --model_name_or_path {MODEL} --adapter_name_or_path student --template qwen",
        ],
        notes=[
            "`template` in train.yaml must be that of the model: another model needs another.",
            "Begin from a student that was trained on the snapshot itself (target `llamafactory`).",
            about_limit(material, LIMIT, file="train.yaml", longest=material.longest_pair),
        ],
        counts={part: pairs.height for part, pairs in material.pairs.items()},
    )
    return {"cutoff_len": length}


def _ranked(material: Material, part: str) -> Iterator[dict[str, Any]]:
    for prompt, good, bad in preferences.chats(material.pair_blocks(part), options=material.options):
        yield {"messages": prompt, "chosen": good, "rejected": bad}


_ANSWER = object_schema(role={"const": "assistant"}, content={"type": "string", "minLength": 1})
DPO = Target(
    write=write_dpo,
    about="pairs, dataset_info.json, train.yaml",
    files="*.jsonl",
    row=object_schema(messages=turns_schema("user"), chosen=_ANSWER, rejected=_ANSWER),
    reader="llamafactory 0.9.5",
    limit=LIMIT,
    forms=PLAIN_FORMS,
    learns="pairs",
)
TARGET = Target(
    write=write,
    about="chats, dataset_info.json, train.yaml",
    files="*.jsonl",
    row=CHAT_ROW,
    reader="llamafactory 0.9.5",
    limit=LIMIT,
    forms=PLAIN_FORMS,
)
