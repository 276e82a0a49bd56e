"""NeMo: chats under the names that Megatron-Bridge looks for, and a config each for it and for NeMo Automodel.

Compared with megatron-bridge 0.6.2, whose builder reads `training.jsonl` and `validation.jsonl` under `dataset_root`,
and with nemo-automodel 0.7.0, whose ChatDataset reads any JSON lines by their path. Both render `messages` with the
tokenizer's own template and take the loss on the assistant alone; `test.jsonl` is not there, hence `do_test=False`.
Megatron-Bridge renders role and content; a template may or may not show it `reasoning_content`, so that is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from balkit.exports.files import write_jsonl, write_text, yaml_text
from balkit.exports.material import CHAT_ROW, PLAIN_FORMS, Limit, Material, Target
from balkit.exports.readme import about_limit, write_readme

LIMIT = Limit(1024, "seq_length", "longer rows are cut")
_FILES = {"train": "training", "validation": "validation"}

_BRIDGE = '''\
"""The dataset part of a Megatron-Bridge recipe: `config.dataset = dataset()` in a script beside this one."""

from pathlib import Path

from megatron.bridge.data.builders.gpt_sft import GPTSFTDatasetConfig
from megatron.bridge.data.sft_processing import ChatSFTPreprocessingConfig


def dataset() -> GPTSFTDatasetConfig:
    return GPTSFTDatasetConfig(
        dataset_root=str(Path(__file__).parent.resolve()),
        seq_length={length},
        preprocessing=ChatSFTPreprocessingConfig(loss_mode="assistant"),
        do_validation={validation},
        do_test=False,
    )
'''


def write(material: Material, folder: Path) -> Mapping[str, object]:
    """training.jsonl, validation.jsonl where there are such rows, bridge.py, automodel.yaml, README.md."""
    for part in material.parts:
        write_jsonl(partial(material.messages, part), folder / f"{_FILES[part]}.jsonl")
    length = material.length(LIMIT)
    write_text(_BRIDGE.format(length=length, validation="validation" in material.parts), folder / "bridge.py")
    write_text(yaml_text(_automodel(material, length=length)), folder / "automodel.yaml")
    write_readme(
        material,
        folder,
        title="chats for NeMo (Megatron-Bridge and Automodel)",
        row='{"messages": [...]}',
        commands=[
            "pip install megatron-bridge nemo-automodel",
            'python -c "import bridge; print(bridge.dataset())"  # then config.dataset = bridge.dataset()',
            "automodel YOUR_RECIPE.yaml  # with the sections of automodel.yaml in place of its own",
        ],
        notes=[about_limit(material, LIMIT, file="bridge.py")],
    )
    return {"seq_length": length}


def _automodel(material: Material, *, length: int) -> dict[str, Any]:
    names = {"train": "dataset", "validation": "validation_dataset"}
    return {
        names[part]: {
            "_target_": "nemo_automodel.components.datasets.llm.chat_dataset.ChatDataset",
            "path_or_dataset_id": f"./{_FILES[part]}.jsonl",
            "seq_length": length,
            "mask_generation_prompt": True,  # else the loss covers the assistant's header too
        }
        for part in material.parts
    }


TARGET = Target(
    write=write,
    about="chats, bridge.py, automodel.yaml",
    files="*.jsonl",
    row=CHAT_ROW,
    reader="megatron-bridge 0.6.2, nemo-automodel 0.7.0",
    limit=LIMIT,
    forms=PLAIN_FORMS,
)
