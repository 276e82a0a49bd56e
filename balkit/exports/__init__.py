"""Snapshots into the formats of other training stacks: one file a target, one report about all of them.

out/
  trl/ hf/ jsonl/       what was asked for
  rows.parquet          every row that was considered: its lineage, its line in the files, or why it was left out
  EXPORT_REPORT.json    rows, drops, lengths, limits and settings; written last
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from balkit import texts
from balkit.errors import ExportError
from balkit.exports import files, hf, jsonl, trl
from balkit.exports.files import Material, Written
from balkit.exports.report import build
from balkit.exports.rows import EXPORT_ROWS, PROVENANCE, Options, prepare

if TYPE_CHECKING:
    from balkit.pool import Snapshot

__all__ = ["TARGETS", "ExportReport", "Options", "export"]

#: Every target by name.
TARGETS: Mapping[str, Callable[[Material, Path], Written]] = {"trl": trl.write, "hf": hf.write, "jsonl": jsonl.write}

DEFAULTS = Options()


@dataclass(frozen=True)
class ExportReport:
    """What was written. `content` is EXPORT_REPORT.json; `warnings` are sentences for a person."""

    out: Path
    rows: Mapping[str, int]
    dropped: Mapping[str, Mapping[str, int]]
    warnings: tuple[str, ...]
    content: Mapping[str, Any]


def export(
    snapshot: Snapshot,
    *,
    to: Sequence[str],
    out: str | Path,
    validation: pl.DataFrame | None = None,
    options: Options = DEFAULTS,
) -> ExportReport:
    """Write a snapshot for the targets named in `to`, each into `out/<target>/`, all or nothing.

    `validation` holds SNAPSHOT_ROWS from the pool's dev split. A row whose prompt stands in the train part is left
    out of the validation part. The same snapshot and options give the same bytes under the same package versions.
    Raises `ExportError` (unknown target, folder not empty, rows of a wrong split, nothing to write) and `FrameError`.
    """
    targets = _targets(to)
    _sound(options)
    train = prepare(snapshot.rows, part="train", snapshot_id=snapshot.snapshot_id, options=options)
    taken = frozenset(texts.normalised(prompt) for prompt in _prompts(train))
    held_out = EXPORT_ROWS.empty()
    if validation is not None:
        held_out = prepare(
            validation, part="validation", snapshot_id=snapshot.snapshot_id, options=options, taken=taken
        )
    material = Material(
        train=train.filter("kept"),
        validation=held_out.filter("kept"),
        snapshot_id=snapshot.snapshot_id,
        digest=snapshot.digest,
        version=snapshot.version,
        options=options,
    )
    considered = pl.concat([train, held_out])
    if not material.train.height:
        reasons = ", ".join(sorted(set(train["reason"].drop_nulls()))) or "the snapshot has no rows"
        raise ExportError(f"snapshot {snapshot.snapshot_id}: no row is left to export ({reasons})")
    return _write(material, considered, targets=targets, out=Path(out))


def _write(material: Material, considered: pl.DataFrame, *, targets: list[str], out: Path) -> ExportReport:
    with files.place(out, overwrite=material.options.overwrite) as folder:
        written = {}
        for target in targets:
            (folder / target).mkdir()
            written[target] = TARGETS[target](material, folder / target)
        files.write_parquet(considered.select(PROVENANCE), folder / files.SIDECAR)
        content = build(material, considered, written=written, listing=files.listing(folder))
        files.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", folder / files.REPORT)
    return ExportReport(
        out=out,
        rows=content["rows"],
        dropped=content["dropped"],
        warnings=tuple(content["warnings"]),
        content=content,
    )


def _targets(to: Sequence[str]) -> list[str]:
    named = [to] if isinstance(to, str) else list(dict.fromkeys(to))
    unknown = [name for name in named if name not in TARGETS]
    if unknown or not named:
        asked = ", ".join(repr(name) for name in unknown) or "none was named"
        raise ExportError(f"unknown export target: {asked}; known: {', '.join(TARGETS)}")
    return named


def _sound(options: Options) -> None:
    for name in ("system", "license"):
        value = getattr(options, name)
        if value is not None and not value.strip():
            raise ExportError(f"{name}: is empty; leave it out instead")
        try:
            (value or "").encode()
        except UnicodeEncodeError as error:
            raise ExportError(f"{name}: character {error.start} is a lone surrogate and cannot be written") from error
    if options.max_length is not None and options.max_length < 1:
        raise ExportError(f"max_length: {options.max_length} is not a positive number of tokens")


def _prompts(prepared: pl.DataFrame) -> list[str]:
    return [messages[-2]["content"] for messages in prepared.filter("kept")["messages"].to_list()]
