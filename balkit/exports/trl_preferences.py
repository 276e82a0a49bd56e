"""TRL's DPO and KTO: pairs, or the two sides of pairs with a label, and dpo.yaml or kto.yaml.

Checked against trl 1.16: `trl dpo --config dpo.yaml` takes preference rows with an explicit prompt, `trl kto` unpaired
ones. Both cut at `max_length`, 1024 unless set. KTO wants the weighed numbers of wanted and unwanted rows to lie
between 1:1 and 4:3 (its documentation); the config sets the weight of the fewer ones where they do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from balkit.exports import preferences
from balkit.exports.files import write_jsonl, write_text, yaml_text
from balkit.exports.material import Limit, Material, Target, object_schema, turns_schema
from balkit.exports.readme import MODEL, about_limit, write_readme

LIMIT = Limit(1024, "max_length", "longer rows are cut")
_KEYS = ("reasoning_content",)
_ASSISTANT = turns_schema("assistant", keys=_KEYS)
_PROMPT = turns_schema("user", keys=_KEYS)


def write(material: Material, folder: Path, *, method: str) -> Mapping[str, object]:
    """data/train.jsonl, data/validation.jsonl where there are such pairs, METHOD.yaml, README.md."""
    (folder / "data").mkdir()
    rows = {"dpo": pairs_of, "kto": judgements_of}[method]
    for part in material.pairs:
        write_jsonl(partial(rows, material, part), folder / "data" / f"{part}.jsonl")
    write_text(yaml_text(config(material, method=method)), folder / f"{method}.yaml")
    counts = {part: preferences.count(pairs, once=method == "kto") for part, pairs in material.pairs.items()}
    write_readme(
        material,
        folder,
        title=f"{'preference pairs' if method == 'dpo' else 'wanted and unwanted answers'} for TRL",
        row={
            "dpo": '{"prompt": [messages], "chosen": [{assistant}], "rejected": [{assistant}]}',
            "kto": '{"prompt": [messages], "completion": [{assistant}], "label": true}',
        }[method],
        commands=[
            "pip install trl",
            f"hf download {MODEL}",
            f"trl {method} --config {method}.yaml --model_name_or_path {MODEL}",
        ],
        notes=[
            "Begin from a student that was trained on the snapshot itself (target `trl`), not from the base model.",
            "`pairs.parquet` beside this folder says of every pair where both sides come from.",
            about_limit(material, LIMIT, file=f"{method}.yaml", longest=material.longest_pair),
        ],
        counts=counts,
    )
    return {LIMIT.setting: material.length(LIMIT, longest=material.longest_pair)}


def config(material: Material, *, method: str) -> dict[str, Any]:
    """Arguments of `trl dpo` or `trl kto`: fields of its ScriptArguments, and of DPOConfig or KTOConfig."""
    found: dict[str, Any] = {
        "dataset_name": "./data",
        "dataset_train_split": "train",
        "max_length": material.length(LIMIT, longest=material.longest_pair),
        "beta": 0.1,
        "output_dir": "student",
    }
    if method == "kto":
        sides = material.pairs["train"]
        found |= weights(*(sides[which].n_unique() for which in ("rationale_id", "rejected_id")))
    if "validation" in material.pairs:
        found |= {"dataset_test_split": "validation", "eval_strategy": "epoch"}
    return found


def weights(wanted: int, unwanted: int) -> dict[str, float]:
    """KTO's weights (at least 1, in thousandths) by which wanted rows are to unwanted ones as 1:1 to 4:3."""
    return {
        "desirable_weight": max(1000, -(-1000 * unwanted // wanted)) / 1000,
        "undesirable_weight": max(1000, -(-750 * wanted // unwanted)) / 1000,
    }


def pairs_of(material: Material, part: str) -> Iterator[dict[str, Any]]:
    """Preference rows of a part."""
    for prompt, good, bad in preferences.chats(material.pair_blocks(part), options=material.options):
        yield {"prompt": prompt, "chosen": [good], "rejected": [bad]}


def judgements_of(material: Material, part: str) -> Iterator[dict[str, Any]]:
    """Unpaired rows of a part."""
    for prompt, message, wanted in preferences.judgements(material.pair_blocks(part), options=material.options):
        yield {"prompt": prompt, "completion": [message], "label": wanted}


DPO = Target(
    write=partial(write, method="dpo"),
    about="prompt, chosen and rejected; dpo.yaml",
    files="data/*.jsonl",
    row=object_schema(prompt=_PROMPT, chosen=_ASSISTANT, rejected=_ASSISTANT),
    reader="trl 1.16.0",
    limit=LIMIT,
    learns="pairs",
)
KTO = Target(
    write=partial(write, method="kto"),
    about="prompt, completion and label; kto.yaml",
    files="data/*.jsonl",
    row=object_schema(prompt=_PROMPT, completion=_ASSISTANT, label={"type": "boolean"}),
    reader="trl 1.16.0",
    limit=LIMIT,
    learns="sides",
)
