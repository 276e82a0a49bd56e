"""EXPORT_REPORT.json: what went into an export, what was left out and why, how long the rows are, what was checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from balkit.exports.material import Material, Target
from balkit.exports.rows import quantiles

#: What an export says, first of all, where lengths could not be counted.
NO_TOKENIZER = (
    "NO TOKENIZER: lengths are by {counter}, so no length was checked against the student's context; give the "
    "student's tokenizer (--tokenizer FOLDER or NAME) for exact ones"
)


def build(
    material: Material,
    *,
    targets: Mapping[str, Target],
    settings: Mapping[str, Mapping[str, object]],
    checked: Mapping[str, Mapping[str, object]],
    left_out: Mapping[str, str],
    listing: Mapping[str, Mapping[str, object]],
) -> dict[str, Any]:
    """The report as a JSON value. Lengths are tokens of the counter named there.

    `settings` are those written beside the data of each target, `checked` what the targets' own loaders said;
    `left_out` says why targets were not written.
    """
    options = material.options
    named = ("rationale", "system", "max_length", "drop_long", "drop_refused", "license", "pairs", "keep_formulas")
    return {
        "snapshot": {"id": material.snapshot_id, "digest": material.digest, "version": material.version},
        "options": {name: getattr(options, name) for name in named},
        "rows": {part: rows.height for part, rows in material.parts.items()},
        "dropped": material.dropped,
        "tokens": _tokens(material),
        "targets": {
            name: _target(material, target, settings[name], checked.get(name)) for name, target in targets.items()
        },
        "targets_left_out": dict(left_out),
        "warnings": _warnings(material, targets=targets, settings=settings, left_out=left_out),
        "check": {"done": "every data file was read back and compared", "loader": f"pyarrow {pa.__version__}"},
        "files": dict(listing),
    }


def _tokens(material: Material) -> dict[str, Any]:
    counter = material.options.counter
    lengths = {
        part: quantiles(rows["n_tokens"].to_list())
        | {"total": int(rows["n_tokens"].sum()), "trainable": int(rows["completion_tokens"].sum())}
        for part, rows in material.parts.items()
    }
    about = {"counter": counter.name, "exact": counter.exact, "context": counter.context}
    return about | {"template": counter.chats is not None} | lengths


def _over(material: Material, target: Target) -> int:
    limit = 0 if target.limit is None else target.limit.tokens
    parts = material.pairs if target.paired else material.parts
    return sum(int((rows["n_tokens"] > limit).sum()) for rows in parts.values())


def _target(
    material: Material, target: Target, settings: Mapping[str, object], checked: Mapping[str, object] | None
) -> dict[str, Any]:
    found: dict[str, Any] = {"compared_with": target.reader, "settings": dict(settings), "default_limit": None}
    found["trainable_tokens"] = target.trainable(material)
    found["check"] = None if checked is None else dict(checked)
    if target.paired:
        found["pairs"] = {part: pairs.height for part, pairs in material.pairs.items()}
        found["rows_without_a_pair"] = {
            part: rows.join(material.pairs[part], on="row_id", how="anti").height
            if part in material.pairs
            else rows.height
            for part, rows in material.parts.items()
        }
    if target.limit is not None:
        found["default_limit"] = target.limit.tokens
        found["rows_over_default_limit"] = _over(material, target)
        found["setting"], found["fate"] = target.limit.setting, target.limit.fate
    return found


def _warnings(
    material: Material,
    *,
    targets: Mapping[str, Target],
    settings: Mapping[str, Mapping[str, object]],
    left_out: Mapping[str, str],
) -> list[str]:
    counter, said = material.options.counter, []
    if not counter.exact:
        said.append(NO_TOKENIZER.format(counter=counter.name))
    said += [note for name, target in targets.items() for note in target.notes(material, settings[name])]
    considered = sum(rows.height for rows in material.considered.values())
    dropped = considered - sum(rows.height for rows in material.parts.values())
    if dropped:
        said.append(f"{dropped} of {considered} rows were left out; rows.parquet says why")
    marked = [row for rows in material.parts.values() for row in rows.filter("marked")["row_id"]]
    if marked:
        shown = ", ".join(marked[:3])
        said.append(f"{len(marked)} rows hold a chat template's control tokens, kept as they stand: {shown}")
    for name, target in targets.items():
        over = 0 if target.limit is None else _over(material, target)
        if over and target.limit is not None:
            said.append(
                f"{name}: {over} rows pass its default of {target.limit.tokens} tokens ({target.limit.fate}); use its "
                f"config here, or set {target.limit.setting}"
            )
    for name, target in targets.items():
        if target.paired:
            some, rows = material.pairs["train"]["row_id"].n_unique(), material.train.height
            said.append(f"{name}: {some} of {rows} train rows have a pair; the others are not in it")
    said += [f"{name} was not written: it {why}" for name, why in left_out.items()]
    return said
