"""verl: Parquet for supervised fine-tuning (`verl`) and for reinforcement learning (`verl-rl`), with their commands.

Checked against verl 0.9.1. Fine-tuning: `data.max_length` is 1024 unless set, and a longer row raises. Learning:
prompts longer than `data.max_prompt_length` (512) are left out without a word, and an unknown `data_source` needs a
reward function of its own: reward.py compares final answers. With fewer rows than `data.train_batch_size` no step is
made: the commands set it. verl merges its settings by Hydra, so they stand on the command line, in run.sh.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from balkit.exports.files import arrow_schema, write_parquet, write_text
from balkit.exports.material import REASONED_ROW, Limit, Material, Target, object_schema, turns_schema
from balkit.exports.readme import MODEL, about_limit, write_readme

SFT_LIMIT = Limit(1024, "data.max_length", "longer rows raise an error")
RL_LIMIT = Limit(512, "data.max_prompt_length", "longer prompts are left out")
#: Rows a step: verl's own defaults.
_SFT_BATCH, _RL_BATCH = 256, 1024
_FILES = {"train": "train", "validation": "val"}
_SOURCE = "balkit"

_STRING = {"type": "string"}
_RL_ROW = object_schema(
    data_source={"const": _SOURCE},
    prompt=turns_schema("user"),
    ability=_STRING,
    reward_model=object_schema(style={"const": "rule"}, ground_truth={"type": "string", "minLength": 1}),
    extra_info=object_schema(split={"enum": ["train", "validation"]}, index={"type": "integer"}),
)

_REWARD = '''\
"""The reward of an answer: 1 where its final answer is that of the teacher, letter case and space aside, else 0."""

import re

_DECLARED = re.compile(r"answer\\s*:\\s*(.*)", re.IGNORECASE)


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    after_thought = solution_str.rsplit("</think>", 1)[-1]
    found = _DECLARED.findall(after_thought)
    said = found[-1] if found else after_thought
    return float(_plain(said) == _plain(ground_truth))


def _plain(text):
    return " ".join(text.split()).rstrip(".").casefold()
'''


def write(material: Material, folder: Path) -> Mapping[str, object]:
    """train.parquet, val.parquet where there are such rows, run.sh, README.md."""
    message = ("role", "content", "reasoning_content")[: 3 if material.options.rationale == "reasoning_content" else 2]
    schema = arrow_schema(["messages"], message=message)
    for part in material.parts:
        write_parquet(partial(material.messages, part), folder / f"{_FILES[part]}.parquet", schema=schema)
    length = material.length(SFT_LIMIT)
    settings = {
        "data.train_files": "train.parquet",
        "data.val_files": "val.parquet" if "validation" in material.parts else "null",
        "data.messages_key": "messages",
        "data.max_length": length,
        "data.max_token_len_per_gpu": max(8192, length),
        "data.train_batch_size": min(_SFT_BATCH, material.train.height),
        "model.path": MODEL,
        "trainer.default_local_dir": "student",
    }
    _script("torchrun --standalone --nproc_per_node=1 -m verl.trainer.sft_trainer", settings, folder=folder)
    write_readme(
        material,
        folder,
        title="chats for verl's fine-tuning",
        row='{"messages": [...]}',
        commands=["pip install verl", "nvidia-smi", "sh run.sh"],
        notes=[about_limit(material, SFT_LIMIT, file="run.sh")],
    )
    return {name: settings[name] for name in ("data.max_length", "data.train_batch_size")}


def write_rl(material: Material, folder: Path) -> Mapping[str, object]:
    """train.parquet, val.parquet where there are such rows, reward.py, run.sh, README.md."""
    for part in material.parts:
        write_parquet(partial(_rl_rows, material, part), folder / f"{_FILES[part]}.parquet", schema=_rl_schema())
    length = material.length(RL_LIMIT)  # of whole rows: room for any prompt, and for an answer as long
    settings = {
        "data.train_files": "train.parquet",
        "data.val_files": "val.parquet" if "validation" in material.parts else "train.parquet",
        "data.max_prompt_length": length,
        "data.max_response_length": length,
        "data.train_batch_size": min(_RL_BATCH, material.train.height),
        "algorithm.adv_estimator": "grpo",
        "actor_rollout_ref.model.path": MODEL,
        "actor_rollout_ref.rollout.n": 5,
        "reward.custom_reward_function.path": "reward.py",
        "trainer.default_local_dir": "student",
    }
    write_text(_REWARD, folder / "reward.py")
    _script("python -m verl.trainer.main_ppo", settings, folder=folder)
    write_readme(
        material,
        folder,
        title="prompts for verl's reinforcement learning",
        row='{"data_source", "prompt": [messages], "ability", "reward_model": {"style", "ground_truth"}, "extra_info"}',
        commands=["pip install verl vllm", "nvidia-smi", "sh run.sh"],
        notes=[
            "The reward is 1 for the teacher's final answer and 0 for any other: see reward.py.",
            about_limit(material, RL_LIMIT, file="run.sh"),
        ],
    )
    return {name: settings[name] for name in ("data.max_prompt_length", "data.train_batch_size")}


def _rl_rows(material: Material, part: str) -> Iterator[dict[str, Any]]:
    rows = (row for some in material.blocks(part) for row in some.select("domain", "answer").iter_rows())
    for at, ((domain, answer), messages) in enumerate(zip(rows, material.chats(part), strict=True)):
        yield {
            "data_source": _SOURCE,
            "prompt": [{"role": turn["role"], "content": turn["content"]} for turn in messages[:-1]],
            "ability": domain,
            "reward_model": {"style": "rule", "ground_truth": answer.strip()},
            "extra_info": {"split": part, "index": at},
        }


def _rl_schema() -> pa.Schema:
    text = pa.string()
    return pa.schema(
        {
            "data_source": text,
            "prompt": arrow_schema(["messages"]).field("messages").type,
            "ability": text,
            "reward_model": pa.struct({"style": text, "ground_truth": text}),
            "extra_info": pa.struct({"split": text, "index": pa.int64()}),
        }
    )


def _script(program: str, settings: Mapping[str, object], *, folder: Path) -> None:
    lines = " \\\n".join([program, *(f"  {name}={value}" for name, value in settings.items())])
    write_text(f"#!/bin/sh\n{lines}\n", folder / "run.sh")


SFT = Target(
    write=write,
    about="chats in Parquet, run.sh",
    files="*.parquet",
    row=REASONED_ROW,
    reader="verl 0.9.1",
    limit=SFT_LIMIT,
)
RL = Target(
    write=write_rl,
    about="prompts with their answers in Parquet, reward.py, run.sh",
    files="*.parquet",
    row=_RL_ROW,
    reader="verl 0.9.1",
    limit=RL_LIMIT,
    learns="nothing",
)
