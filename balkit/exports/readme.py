"""README.md beside the data of every target: the shape of a row, three commands, the limit on lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from balkit.exports.files import write_text
from balkit.exports.material import Limit, Material

#: The model of the commands: small, and of a known chat template. Any other will do.
MODEL = "Qwen/Qwen2.5-0.5B-Instruct"


def write_readme(
    material: Material,
    folder: Path,
    *,
    title: str,
    row: str,
    commands: Sequence[str],
    notes: Sequence[str] = (),
    counts: Mapping[str, int] | None = None,
) -> None:
    """README.md; `row` shows the shape of a row, `notes` are sentences, `counts` the rows of each part."""
    rows = counts or {part: rows.height for part, rows in material.parts.items()}
    told = " + ".join(f"{count} {part}" for part, count in rows.items())
    said = "\n".join(notes)
    write_text(
        f"# {material.snapshot_id}: {title}\n\n{told} rows, `{row}`.\nRun this in this folder:\n\n"
        f"```sh\n{chr(10).join(commands)}\n```\n\n{said}{chr(10) if said else ''}"
        "Whose texts these are, how they were balanced and under which terms: the card of the target `hf`.\n"
        f"Snapshot digest: {material.digest} (pool version {material.version}).\n",
        folder / "README.md",
    )


def about_limit(material: Material, limit: Limit, *, file: str, longest: int | None = None) -> str:
    """A sentence on the length that a config sets, and why."""
    exact = material.options.counter.exact
    unit = "tokens" if exact else "bytes, which bounds its tokens"
    there, length = material.longest if longest is None else longest, material.length(limit, longest=longest)
    return (
        f"`{limit.setting}` in {file} is {length} (alone it is {limit.tokens}, and {limit.fate}); the longest row has "
        f"{there} {unit}."
    )
