"""TRL 1.x supervised fine-tuning: prompt-completion rows (the loss covers the completion only) and sft.yaml.

Checked against trl 1.16: `trl sft --config sft.yaml` loads `dataset_name` with `datasets.load_dataset`, takes the
splits by name, and cuts rows at `max_length`, which is 1024 unless it is set. The rows lie in a folder of their own
because `load_dataset(".")` fails (datasets 5.2: "dataset_name should be specified").
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from balkit.exports.files import Material, Written, write_jsonl, write_text, yaml_text

DEFAULT_MAX_LENGTH = 1024  # tokens a row, trl.SFTConfig
_TEMPLATE_ROOM = 64  # tokens a row that a chat template may add: role markers and a default system prompt
_STEP = 64

_README = """\
# {snapshot}: prompt-completion rows for TRL

{rows} rows, `{{"prompt": [messages], "completion": [{{assistant}}]}}`; the loss covers the completion only.
Run this in this folder; any chat model that `transformers` loads will do:

```sh
pip install trl
hf download Qwen/Qwen2.5-0.5B-Instruct
trl sft --config sft.yaml --model_name_or_path Qwen/Qwen2.5-0.5B-Instruct
```

`max_length` in sft.yaml is {max_length} (TRL alone would cut every row at {default}); the longest row has
{longest}. Snapshot digest: {digest}.
"""


def write(material: Material, folder: Path) -> Written:
    """data/train.jsonl, data/validation.jsonl where there are such rows, sft.yaml, a README.md of three commands."""
    (folder / "data").mkdir()
    for part, rows in material.parts.items():
        write_jsonl(partial(_rows, rows), folder / "data" / f"{part}.jsonl")
    length = max_length(material)
    write_text(yaml_text(_config(material, length=length)), folder / "sft.yaml")
    write_text(_readme(material, length=length), folder / "README.md")
    return Written(default_limit=DEFAULT_MAX_LENGTH, settings={"max_length": length})


def max_length(material: Material) -> int:
    """Tokens: what the caller fixed, else enough for the longest row and its template, never below TRL's default."""
    if material.options.max_length is not None:
        return material.options.max_length
    needed = material.longest + _TEMPLATE_ROOM
    return max(DEFAULT_MAX_LENGTH, -(-needed // _STEP) * _STEP)


def _rows(rows: pl.DataFrame) -> Iterator[dict[str, Any]]:
    for (messages,) in rows.select("messages").iter_rows():
        yield {"prompt": messages[:-1], "completion": messages[-1:]}


def _config(material: Material, *, length: int) -> dict[str, Any]:
    config: dict[str, Any] = {
        "dataset_name": "./data",
        "dataset_train_split": "train",
        "max_length": length,
        "completion_only_loss": True,
        "output_dir": "student",
    }
    if "validation" in material.parts:
        config |= {"dataset_test_split": "validation", "eval_strategy": "epoch"}
    return config


def _readme(material: Material, *, length: int) -> str:
    unit = "tokens" if material.options.counter.exact else "bytes, which bounds its tokens"
    return _README.format(
        snapshot=material.snapshot_id,
        rows=" + ".join(f"{rows.height} {part}" for part, rows in material.parts.items()),
        max_length=length,
        default=DEFAULT_MAX_LENGTH,
        longest=f"{material.longest} {unit}",
        digest=material.digest,
    )
