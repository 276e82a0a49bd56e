"""A Hugging Face dataset folder: README.md (the card) and data/<split>-*.parquet, with provenance in every row."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import polars as pl

from balkit.exports.files import write_parquet, write_text, yaml_text
from balkit.exports.material import Material, Target
from balkit.exports.plain import CANONICAL_ROW, canonical_rows, canonical_schema

_SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M", 10_000_000: "1M<n<10M"}
_NO_LICENSE = "No license was stated when it was exported; ask whoever made it."

_CARD = """\
---
{front}---
# {snapshot}

A training set for distilling a teacher model into a student, balanced over {domains} domains by balkit.
{rights}

| column | meaning |
| --- | --- |
| `messages` | the conversation; the last message is what the student learns to write |
| `rationale`, `answer`, `reference` | the worked answer, the final answer in it, the answer on file or null |
| `domain`, `origin`, `stage` | the class that is balanced; `source` or `synthetic`; the round of the row |
| `teacher` | who wrote the rationale |
| `row_id`, `example_id`, `rationale_id`, `copy`, `snapshot` | lineage in the pool |
| `n_tokens` | length of all messages, by {counter} |

| domain | rows | synthetic |
| --- | --- | --- |
{table}

Rationales by: {authors}. Snapshot digest: {digest} (pool version {version}).

```python
from datasets import load_dataset

rows = load_dataset("path/to/this/folder", split="train")  # or the name you publish it under
```
"""


def write(material: Material, folder: Path) -> Mapping[str, object]:
    """The card and one Parquet file a split, under an explicit Arrow schema."""
    (folder / "data").mkdir()
    for part in material.parts:
        path = folder / "data" / f"{part}-00000-of-00001.parquet"
        write_parquet(partial(canonical_rows, material, part), path, schema=canonical_schema(material))
    write_text(_card(material), folder / "README.md")
    return {}


def _card(material: Material) -> str:
    rows, rights = material.train, material.options.license
    files = [{"split": part, "path": f"data/{part}-*.parquet"} for part in material.parts]
    front = {
        "license": rights or "unknown",
        "tags": ["balkit", "distillation"],
        "size_categories": [_size(sum(part.height for part in material.parts.values()))],
        "configs": [{"config_name": "default", "data_files": files}],
    }
    by_domain = rows.group_by("domain").agg(pl.len(), (pl.col("origin") == "synthetic").sum().alias("made"))
    return _CARD.format(
        front=yaml_text(front),
        snapshot=_cell(material.snapshot_id),
        domains=by_domain.height,
        rights=f"License: {_cell(rights)}." if rights else _NO_LICENSE,
        counter=_cell(material.options.counter.name),
        table="\n".join(f"| {_cell(name)} | {n} | {made} |" for name, n, made in by_domain.sort("domain").rows()),
        authors=", ".join(_cell(author) for author in sorted(rows["author"].unique())),
        digest=material.digest,
        version=material.version,
    )


def _size(rows: int) -> str:
    return next((name for below, name in _SIZES.items() if rows < below), "n>10M")


def _cell(text: str) -> str:
    """Text that cannot break out of a Markdown table cell or turn into markup."""
    plain = " ".join(text.split())
    return "".join(f"\\{char}" if char in "\\`*_{}[]<>#|!" else char for char in plain)


TARGET = Target(
    write=write,
    about="a dataset folder with its card",
    files="data/*.parquet",
    row=CANONICAL_ROW,
    reader="datasets 5.2.0",
)
