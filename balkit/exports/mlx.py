"""MLX-LM: train.jsonl, valid.jsonl (not "validation") and lora.yaml, for `mlx_lm.lora --config lora.yaml`.

Checked against mlx-lm 0.32.2: the first row decides the format of a file; without `mask_prompt` the loss covers the
prompt too; rows are cut at `max_seq_length`; a part with fewer rows than `batch_size` is an error. There is no
test.jsonl, since rows of the eval split are never exported.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from balkit.exports.files import write_jsonl, write_text, yaml_text
from balkit.exports.material import REASONED_ROW, Limit, Material, Target
from balkit.exports.readme import MODEL, about_limit, write_readme

LIMIT = Limit(2048, "max_seq_length", "longer rows are cut")
_FILES = {"train": "train", "validation": "valid"}
_BATCH = 4  # rows, mlx_lm.lora's own default


def write(material: Material, folder: Path) -> Mapping[str, object]:
    """train.jsonl, valid.jsonl where there are such rows, lora.yaml, README.md."""
    for part in material.parts:
        write_jsonl(partial(material.messages, part), folder / f"{_FILES[part]}.jsonl")
    config = {
        "model": MODEL,
        "train": True,
        "data": ".",
        "mask_prompt": True,
        "max_seq_length": material.length(LIMIT),
        "batch_size": min(_BATCH, *(rows.height for rows in material.parts.values())),
        "adapter_path": "student",
    }
    write_text(yaml_text(config), folder / "lora.yaml")
    write_readme(
        material,
        folder,
        title="chats for MLX-LM",
        row='{"messages": [...]}',
        commands=[
            "pip install 'mlx-lm[train]'",
            "mlx_lm.lora --config lora.yaml",
            f"mlx_lm.generate --model {MODEL} --adapter-path student --prompt 'Hello'",
        ],
        notes=["The loss covers the assistant's message only.", about_limit(material, LIMIT, file="lora.yaml")],
    )
    return {"max_seq_length": config["max_seq_length"], "batch_size": config["batch_size"]}


TARGET = Target(
    write=write,
    about="chats, lora.yaml",
    files="*.jsonl",
    row=REASONED_ROW,
    reader="mlx-lm 0.32.2",
    limit=LIMIT,
)
