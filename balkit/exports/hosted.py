"""Services that fine-tune what is uploaded: OpenAI, Azure OpenAI, Together, Fireworks. They share one row.

`{"messages": [...]}` with role and content, system or user first, the assistant last; one format a file. Their limits
are on their pages, not in their packages: OpenAI and Azure take at least 10 rows, Fireworks 3; Azure wants a
byte-order mark. The upload script of OpenAI and Azure was compared with openai 3.57, whose command line has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from balkit.exports.files import write_jsonl, write_text
from balkit.exports.material import CHAT_ROW, PLAIN_FORMS, Limit, Material, Target
from balkit.exports.readme import write_readme

_ROW = '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'

_UPLOAD = '''\
"""Uploads the files beside it and starts a fine-tuning job. Its settings come from the environment."""

from pathlib import Path

from openai import {client}

client = {client}({arguments})
files = {{}}
for part in ("train", "validation"):
    path = Path(__file__).with_name(f"{{part}}.jsonl")
    if path.exists():
        with path.open("rb") as file:
            files[part] = client.files.create(file=file, purpose="fine-tune").id
job = client.fine_tuning.jobs.create(
    model="{model}",
    training_file=files["train"],
    **({{"validation_file": files["validation"]}} if "validation" in files else {{}}),
)
print(job.id)
'''


@dataclass(frozen=True)
class _Service:
    name: str
    commands: tuple[str, ...]
    notes: tuple[str, ...] = ()
    script: str | None = None
    byte_order_mark: bool = False


def _write(material: Material, folder: Path, *, service: _Service) -> Mapping[str, object]:
    """train.jsonl, validation.jsonl where there are such rows, what starts a job, README.md."""
    for part in material.parts:
        write_jsonl(partial(material.messages, part), folder / f"{part}.jsonl", byte_order_mark=service.byte_order_mark)
    if service.script:
        write_text(service.script, folder / "finetune.py")
    write_readme(
        material,
        folder,
        title=f"chats for fine-tuning at {service.name}",
        row=_ROW,
        commands=service.commands,
        notes=["The service takes the loss on the assistant's messages only, unless told otherwise.", *service.notes],
    )
    return {}


_OPENAI = _Service(
    "OpenAI",
    ("pip install openai", "export OPENAI_API_KEY=...", "python finetune.py"),
    ("OpenAI takes new fine-tuning jobs from earlier users only, says its documentation of 2026.",),
    _UPLOAD.format(client="OpenAI", arguments="", model="gpt-4.1-mini-2025-04-14"),
)
_AZURE = _Service(
    "Azure OpenAI",
    (
        "pip install openai",
        "export AZURE_OPENAI_API_KEY=... AZURE_OPENAI_ENDPOINT=https://NAME.openai.azure.com",
        "python finetune.py",
    ),
    ("The files begin with a byte-order mark, which Azure asks for.",),
    _UPLOAD.format(client="AzureOpenAI", arguments='api_version="2024-10-21"', model="gpt-4.1-mini-2025-04-14"),
    byte_order_mark=True,
)
_TOGETHER = _Service(
    "Together",
    (
        "pip install together",
        "tg files check train.jsonl && tg files upload train.jsonl --purpose fine-tune",
        "tg ft create --model Qwen/Qwen2.5-7B-Instruct --training-file FILE_ID_OF_THE_UPLOAD --lora",
    ),
)
_FIREWORKS = _Service(
    "Fireworks",
    (
        "firectl signin",
        "firectl dataset create balkit-train train.jsonl",
        "firectl sftj create --base-model accounts/fireworks/models/qwen2p5-7b-instruct --dataset balkit-train",
    ),
)


def _target(service: _Service, *, least_rows: int, reader: str, limit: Limit | None = None) -> Target:
    return Target(
        write=partial(_write, service=service),
        about=f"chats to upload to {service.name}",
        files="*.jsonl",
        row=CHAT_ROW,
        reader=reader,
        limit=limit,
        forms=PLAIN_FORMS,
        least_rows=least_rows,
    )


_SERVICE_LIMIT = Limit(65_536, "none: shorten the rows", "longer rows are cut")
OPENAI = _target(_OPENAI, least_rows=10, reader="OpenAI's documentation, openai 3.57.0", limit=_SERVICE_LIMIT)
AZURE = _target(_AZURE, least_rows=10, reader="Azure's documentation, openai 3.57.0", limit=_SERVICE_LIMIT)
TOGETHER = _target(_TOGETHER, least_rows=1, reader="together 3.1.1")
FIREWORKS = _target(_FIREWORKS, least_rows=3, reader="Fireworks' documentation, fireworks-ai 1.2.30")
