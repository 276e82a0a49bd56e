"""The datasets of verl and NeMo Automodel over an export: `python own_datasets.py verl|nemo SOURCES EXPORT MODEL`.

Prints JSON: of every training row the text that the loss covers. SOURCES holds the unpacked wheel. Both packages bring
a whole training stack, so they are entered by the one module that reads, with stubs for what reading does not use. They
need torch, transformers and datasets, which balkit's development environment has; verl needs omegaconf too.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import yaml
from transformers import AutoTokenizer

from balkit.exports.loaders import _stub

IGNORED = -100


def by_nemo(sources: Path, export: Path, tokenizer: object) -> list[list[int]]:
    """Its ChatDataset, with the arguments of automodel.yaml."""
    for part in ("", ".components", ".components.datasets", ".components.datasets.llm"):
        _stub(f"nemo_automodel{part}", path=sources / f"nemo_automodel{part}".replace(".", "/"))
    given = yaml.safe_load((export / "automodel.yaml").read_text(encoding="utf-8"))["dataset"]
    module, _, name = given.pop("_target_").rpartition(".")
    rows = getattr(importlib.import_module(module), name)(
        **given | {"path_or_dataset_id": str(export / given["path_or_dataset_id"])}, tokenizer=tokenizer
    )
    return [[label for label in rows[at]["labels"] if label != IGNORED] for at in range(len(rows))]


def by_verl(sources: Path, export: Path, tokenizer: object) -> list[list[int]]:
    """Its MultiTurnSFTDataset, with the settings of run.sh."""
    for name in ("verl", "verl.utils", "verl.utils.dataset"):
        _stub(name, path=sources / name.replace(".", "/"), hf_tokenizer=None)
    for name in ("verl.models", "verl.models.transformers"):
        _stub(name)
    _stub("verl.models.transformers.qwen2_vl", get_rope_index=None)
    _stub("verl.utils.dataset.vision_utils", process_image=None, process_video=None)
    pads = SimpleNamespace(RIGHT="right", NO_PADDING="no_padding")
    _stub("verl.utils.dataset.dataset_utils", DatasetPadMode=pads)
    reader = importlib.import_module("verl.utils.dataset.multiturn_sft_dataset")
    given = dict(re.findall(r"^  data\.(\w+)=(\S+)", (export / "run.sh").read_text(encoding="utf-8"), re.MULTILINE))
    config = {"messages_key": given["messages_key"], "max_length": int(given["max_length"]), "pad_mode": "right"}
    rows = reader.MultiTurnSFTDataset([str(export / given["train_files"])], tokenizer, config)
    covered = []
    for at in range(len(rows)):
        row = rows[at]
        pairs = zip(row["input_ids"].tolist(), row["loss_mask"].tolist(), strict=True)
        covered.append([token for token, covers in pairs if covers])
    return covered


def main(package: str, sources: str, export: str, model: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    reader = {"verl": by_verl, "nemo": by_nemo}[package]
    covered = reader(Path(sources), Path(export), tokenizer)
    print(json.dumps([tokenizer.decode(tokens) for tokens in covered]))


if __name__ == "__main__":
    main(*sys.argv[1:])
