"""Unsloth: chats and train.py, which trains on the assistant's messages only.

Compared with unsloth 2026.10.9: `standardize_data_formats` guesses which key is the role by the values it sees, so a
message has exactly two keys here; `max_seq_length` is 2048 unless set.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from balkit.exports.files import write_jsonl, write_text
from balkit.exports.material import CHAT_ROW, PLAIN_FORMS, Limit, Material, Target
from balkit.exports.readme import about_limit, write_readme

LIMIT = Limit(2048, "MAX_LENGTH", "longer rows are cut")

_TRAIN = '''\
"""Fine-tunes a LoRA on the chats beside this file; needs a GPU."""

from pathlib import Path

from unsloth import FastLanguageModel  # before trl and transformers, which it patches
from unsloth.chat_templates import train_on_responses_only
from datasets import load_dataset
from trl import SFTConfig, SFTTrainer

MAX_LENGTH = {length}

here = Path(__file__).parent
files = {{path.stem: str(path) for path in sorted(here.glob("*.jsonl"))}}
rows = load_dataset("json", data_files=files)
model, tokenizer = FastLanguageModel.from_pretrained(
    "unsloth/Qwen2.5-0.5B-Instruct", max_seq_length=MAX_LENGTH, load_in_4bit=True
)
model = FastLanguageModel.get_peft_model(model, r=8, lora_alpha=16)


def rendered(some):
    return {{"text": [tokenizer.apply_chat_template(chat, tokenize=False) for chat in some["messages"]]}}


rows = rows.map(rendered, batched=True, remove_columns=["messages"])
trainer = SFTTrainer(
    model=model,
    processing_class=tokenizer,
    train_dataset=rows["train"],
    eval_dataset=rows.get("validation"),
    args=SFTConfig(dataset_text_field="text", max_length=MAX_LENGTH, output_dir=str(here / "student")),
)
trainer = train_on_responses_only(
    trainer, instruction_part="<|im_start|>user\\n", response_part="<|im_start|>assistant\\n"
)
trainer.train()
'''


def write(material: Material, folder: Path) -> Mapping[str, object]:
    """train.jsonl, validation.jsonl where there are such rows, train.py, README.md."""
    for part in material.parts:
        write_jsonl(partial(material.messages, part), folder / f"{part}.jsonl")
    write_text(_TRAIN.format(length=material.length(LIMIT)), folder / "train.py")
    write_readme(
        material,
        folder,
        title="chats for Unsloth",
        row='{"messages": [...]}',
        commands=["pip install unsloth", "nvidia-smi", "python train.py"],
        notes=[
            "The two markers in train.py are ChatML's: another model's template needs its own.",
            about_limit(material, LIMIT, file="train.py"),
        ],
    )
    return {"max_seq_length": material.length(LIMIT)}


TARGET = Target(
    write=write,
    about="chats, train.py",
    files="*.jsonl",
    row=CHAT_ROW,
    reader="unsloth 2026.10.9",
    limit=LIMIT,
    forms=PLAIN_FORMS,
)
