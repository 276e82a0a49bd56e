"""Snapshots into the formats of other training stacks: one file a target, one report about all of them.

out/
  trl/ hf/ jsonl/       what was asked for
  rows.parquet          every row that was considered: its lineage, its line in the files, or why it was left out
  pairs.parquet         every pair, where a target learns from preferences: its line, and where both sides come from
  EXPORT_REPORT.json    rows, drops, lengths, limits and settings; written last
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from balkit import own
from balkit.errors import ExportError
from balkit.exports import (
    axolotl,
    checks,
    files,
    hf,
    hosted,
    llamafactory,
    mlx,
    nemo,
    plain,
    preferences,
    trl,
    trl_preferences,
    unsloth,
    verl,
)
from balkit.exports.background import Background, around
from balkit.exports.material import Limit, Material, Target
from balkit.exports.report import build
from balkit.exports.rows import (
    PROVENANCE,
    SLICE,
    Options,
    families,
    kept_apart,
    prepare,
    refuse_unfit,
    refuse_unheard,
    sliced,
)
from balkit.frames import SNAPSHOT_ROWS
from balkit.pool import Snapshot, SnapshotScan

__all__ = [
    "TARGETS",
    "Background",
    "ExportReport",
    "Limit",
    "Material",
    "Options",
    "Target",
    "around",
    "export",
    "target_of",
]

#: Every target by name.
TARGETS: Mapping[str, Target] = {
    "trl": trl.TARGET,
    "trl-dpo": trl_preferences.DPO,
    "trl-kto": trl_preferences.KTO,
    "axolotl": axolotl.TARGET,
    "llamafactory": llamafactory.TARGET,
    "llamafactory-dpo": llamafactory.DPO,
    "unsloth": unsloth.TARGET,
    "mlx": mlx.TARGET,
    "nemo": nemo.TARGET,
    "verl": verl.SFT,
    "verl-rl": verl.RL,
    "openai": hosted.OPENAI,
    "azure": hosted.AZURE,
    "together": hosted.TOGETHER,
    "fireworks": hosted.FIREWORKS,
    "hf": hf.TARGET,
    "jsonl": plain.JSONL,
    "parquet": plain.PARQUET,
    "csv": plain.CSV,
}

#: The columns of rows.parquet. Cost is that of the call that wrote the rationale, in US dollars.
SIDECAR = [*PROVENANCE, "version", "call_key", "model", "cost_usd"]

#: Stands for every target that can take the rows; the others are named in the report.
ALL = "all"

DEFAULTS, NOTHING = Options(), Background()


@dataclass(frozen=True)
class ExportReport:
    """What was written. `content` is EXPORT_REPORT.json; `warnings` are sentences for a person."""

    out: Path
    rows: Mapping[str, int]
    dropped: Mapping[str, Mapping[str, int]]
    warnings: tuple[str, ...]
    content: Mapping[str, Any]

    def by_target(self) -> pl.DataFrame:
        """One row a target: tokens that the loss covers, its default limit, what passes it, the settings written."""
        rows = [
            {
                "target": name,
                "trainable": body["trainable_tokens"],
                "default limit": body["default_limit"],
                "rows over it": body.get("rows_over_default_limit"),
                "which": body.get("fate"),
                "set here": ", ".join(f"{key}={value}" for key, value in body["settings"].items()),
                "compared with": body["compared_with"],
                "read by its loader": body["check"]["version"] if body["check"] else None,
            }
            for name, body in self.content["targets"].items()
        ]
        return pl.DataFrame(rows)

    def lengths(self) -> pl.DataFrame:
        """One row a part: rows, and tokens (p50, p95, max, total, trainable)."""
        tokens = self.content["tokens"]
        return pl.DataFrame([{"part": part, "rows": count} | tokens[part] for part, count in self.rows.items()])


def export(
    snapshot: Snapshot | SnapshotScan,
    *,
    to: Sequence[str],
    out: str | Path,
    validation: pl.DataFrame | None = None,
    options: Options = DEFAULTS,
    background: Background = NOTHING,
) -> ExportReport:
    """Write a snapshot for the targets named in `to`, each into `out/<target>/`, all or nothing.

    One of `Pool.scan` stays on disk: then memory grows with the rows by their ids only.
    `to` may be `all`: every target that can take these rows. A path that ends in .py is a file with a `Target` of your
    own, whose folder is called as the file is. `validation` holds SNAPSHOT_ROWS from the pool's dev
    split. A row whose prompt stands in the train part is left out of the validation part, and so is one of a family
    (`background.parents`) that has a row in the train part. The same snapshot and options give the same bytes under
    the same package versions. With `options.check` the targets' own loaders read the files before any is placed.
    Raises `ExportError` (unknown target, rows that a target cannot take, folder not empty,
    rows of a wrong split, nothing to write) and `FrameError`.
    """
    _sound(options)
    named = _named(to)
    with TemporaryDirectory(prefix="balkit-export-") as spool:
        material = _material(snapshot, validation, options=options, background=background, spool=Path(spool))
        if not material.train.height:
            reasons = ", ".join(sorted(set(material.considered["train"]["reason"].drop_nulls())))
            raise ExportError(
                f"snapshot {snapshot.snapshot_id}: no row is left to export ({reasons or 'the snapshot has no rows'})"
            )
        refusals = {name: why for name, target in named.items() if (why := target.refusal(material))}
        if refusals and not named.keys() >= TARGETS.keys():
            raise ExportError("; ".join(f"{name} {why}" for name, why in refusals.items()))
        targets = {name: target for name, target in named.items() if name not in refusals}
        return _write(material, targets=targets, left_out=refusals, out=Path(out))


def _material(
    snapshot: Snapshot | SnapshotScan,
    validation: pl.DataFrame | None,
    *,
    options: Options,
    background: Background,
    spool: Path,
) -> Material:
    """Every row judged, and where its texts are. Raises `ExportError` for rows that would not train as they stand."""
    given = partial(prepare, snapshot_id=snapshot.snapshot_id, options=options)
    sources = {
        "train": snapshot.blocks if isinstance(snapshot, SnapshotScan) else sliced(snapshot.rows),
        "validation": sliced(SNAPSHOT_ROWS.empty() if validation is None else validation),
    }
    material = Material(
        considered={"train": given(sources["train"], part="train")},
        sources=sources,
        spool=spool,
        snapshot_id=snapshot.snapshot_id,
        digest=snapshot.digest,
        version=snapshot.version,
        options=options,
        background=background,
    )
    apart = {}
    if validation is not None:
        apart = kept_apart(material.blocks("train"), sources["validation"], family=families(background.parents))
    held_out = given(sources["validation"], part="validation", apart=apart)
    refuse_unfit(pl.concat([material.considered["train"], held_out]), options=options)
    refuse_unheard(material.blocks("train"), options=options)
    return replace(material, considered={**material.considered, "validation": held_out})


def _write(
    material: Material, *, targets: Mapping[str, Target], left_out: Mapping[str, str], out: Path
) -> ExportReport:
    with files.place(out, overwrite=material.options.overwrite) as folder:
        settings, checked = {}, {}
        for name, target in targets.items():
            (folder / name).mkdir()
            settings[name] = target.write(material, folder / name)
            if material.options.check and name in checks.REQUIREMENTS:
                checked[name] = checks.check(name, folder / name, material)
        files.write_parquet(_lineage(material), folder / files.SIDECAR, schema=files.arrow_schema(SIDECAR))
        if any(target.paired for target in targets.values()):
            schema = files.arrow_schema(preferences.SIDECAR)
            files.write_parquet(partial(preferences.lineage, material.pairs), folder / files.PAIRS, schema=schema)
        content = build(
            material,
            targets=targets,
            settings=settings,
            checked=checked,
            left_out=left_out,
            listing=files.listing(folder),
        )
        files.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", folder / files.REPORT)
    return ExportReport(
        out=out,
        rows=content["rows"],
        dropped=content["dropped"],
        warnings=tuple(content["warnings"]),
        content=content,
    )


def _lineage(material: Material) -> files.Rows:
    """What gives the rows of the sidecar; the calls are looked up once."""
    calls = material.background.calls
    known = calls.select("rationale_id").with_row_index("call")
    parts = [
        (rows, rows.select("rationale_id").join(known, on="rationale_id", how="left", maintain_order="left")["call"])
        for rows in material.considered.values()
    ]

    def lineage() -> Iterator[dict[str, Any]]:
        for rows, places in parts:
            for at in range(0, rows.height, SLICE):
                here = places.slice(at, SLICE)
                found = calls.select(pl.all().gather(here)).drop("rationale_id")
                some = rows.slice(at, SLICE).select(PROVENANCE).hstack(found)
                yield from some.with_columns(version=material.version).select(SIDECAR).iter_rows(named=True)

    return lineage


def target_of(name: str) -> Target | None:
    """The target of a name, or the one in a Python file; None for a name that is not known."""
    return own.object_of(name, Target) if name.endswith(own.SUFFIX) else TARGETS.get(name)


def _named(to: Sequence[str]) -> dict[str, Target]:
    """The targets asked for, by the names of their folders."""
    named = [to] if isinstance(to, str) else list(dict.fromkeys(to))
    found = {name: target_of(name) for name in named if name != ALL}
    unknown = [name for name, target in found.items() if target is None]
    if unknown or not named:
        asked = ", ".join(repr(name) for name in unknown) or "none was named"
        raise ExportError(f"unknown export target: {asked}; known: {', '.join([*TARGETS, ALL])}, or a Python file")
    by_folder = [Path(name).stem if name.endswith(own.SUFFIX) else name for name in found]
    twice = sorted({name for name in by_folder if by_folder.count(name) > 1 or (name in TARGETS and name not in found)})
    if twice:
        raise ExportError(f"{twice[0]}: two targets would have one folder of that name; rename the file")
    placed = dict(zip(by_folder, filter(None, found.values()), strict=True))
    return {**TARGETS, **placed} if ALL in named else placed


def _sound(options: Options) -> None:
    for name in ("system", "license"):
        value = getattr(options, name)
        if value is not None and not value.strip():
            raise ExportError(f"{name}: is empty; leave it out instead")
        try:
            (value or "").encode()
        except UnicodeEncodeError as error:
            raise ExportError(f"{name}: character {error.start} is a lone surrogate and cannot be written") from error
    if options.pairs < 1:
        raise ExportError(f"pairs: {options.pairs} is not a positive number of pairs an example")
    if options.max_length is not None and options.max_length < 1:
        raise ExportError(f"max_length: {options.max_length} is not a positive number of tokens")
