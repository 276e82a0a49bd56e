"""From the rows of a snapshot to rows of a training file: the assistant's text, its length, and what is left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from balkit import answers, texts
from balkit.errors import ExportError
from balkit.frames import SNAPSHOT_ROWS, Kind, check
from balkit.tokens import Counter, estimate

RationaleForm = Literal["inline", "think", "none"]
Part = Literal["train", "validation"]

_S, _I = pl.String(), pl.Int64()
_MESSAGE = pl.Struct({"role": pl.String(), "content": pl.String()})

#: Every row that was considered, in the snapshot's order. `messages` ends with the assistant; `line` counts from 0 in
#: the written file and is null for a row that was left out; lengths are in tokens of the report's counter.
EXPORT_ROWS = Kind(
    "EXPORT_ROWS",
    {
        "row_id": _S, "part": _S, "line": _I, "kept": pl.Boolean(), "reason": _S, "snapshot": _S, "stage": _I,
        "domain": _S, "split": _S, "origin": _S, "example_id": _S, "rationale_id": _S, "copy": _I, "author": _S,
        "reference": _S, "rationale": _S, "answer": _S, "messages": pl.List(_MESSAGE), "completion_tokens": _I,
        "n_tokens": _I,
    },
    frozenset({"line", "reason", "reference"}),
)  # fmt: skip

#: What the pool says of a row. It stays out of trainers' files and goes to `rows.parquet`, keyed by `row_id`.
PROVENANCE = [name for name in EXPORT_ROWS.columns if name not in ("reference", "rationale", "answer", "messages")]

#: The row behind every target, as the targets `hf` and `jsonl` write it.
CANONICAL = [
    "row_id", "stage", "domain", "split", "messages", "rationale", "answer", "reference", "origin", "teacher",
    "example_id", "rationale_id", "copy", "snapshot", "n_tokens",
]  # fmt: skip

_SLICE = 10_000  # rows held as Python objects at once

#: Strings that chat templates give a meaning of their own. They are kept as they stand, counted and reported.
CONTROL_TOKEN = re.compile(r"<\|[^|<>\s]{1,40}\|>|</?s>|\[/?INST\]|<(?:bos|eos|pad|unk|start_of_turn|end_of_turn)>")


@dataclass(frozen=True)
class Options:
    """How rows become training text.

    rationale: `inline` is "<rationale> Answer: <answer>", `think` puts the rationale between <think> tags before the
    answer, `none` leaves it out. system: one system message for every row. tokens: the student's counter; without
    one, lengths are estimates and the report says so. max_length: tokens; longer rows are left out, since a trainer
    would cut off their answers. license: an identifier for the card; balkit states none by itself. overwrite: replace
    an earlier export (and nothing else) in the same place.
    """

    rationale: RationaleForm = "inline"
    system: str | None = None
    tokens: Counter | None = None
    max_length: int | None = None
    license: str | None = None
    overwrite: bool = False

    @property
    def counter(self) -> Counter:
        """The counter to use: the given one, or an estimate."""
        return self.tokens or estimate()


def prepare(
    rows: pl.DataFrame, *, part: Part, snapshot_id: str, options: Options, taken: frozenset[str] = frozenset()
) -> pl.DataFrame:
    """EXPORT_ROWS for each of the SNAPSHOT_ROWS, kept or not, in the order of `position`.

    `taken` holds prompts (`texts.normalised`) that must not come again: those of the train part, for validation.
    Raises `ExportError` where a row comes from the wrong split or a row_id comes twice.
    """
    rows = check(rows, SNAPSHOT_ROWS).sort("position", "row_id")
    _right_split(rows, part=part)
    if rows["row_id"].is_duplicated().any():
        twice = rows.filter(rows["row_id"].is_duplicated())["row_id"][0]
        raise ExportError(f"the {part} rows hold row_id {twice} more than once; export each row of a snapshot once")
    done = [EXPORT_ROWS.empty()]
    for some in rows.iter_slices(_SLICE):
        made = [_row(row, options=options, taken=taken) for row in some.iter_rows(named=True)]
        done.append(EXPORT_ROWS.of([row | {"part": part, "snapshot": snapshot_id} for row in made]))
    prepared = pl.concat(done)
    return prepared.with_columns(line=pl.when("kept").then(pl.col("kept").cast(pl.Int64).cum_sum() - 1))


def canonical(prepared: pl.DataFrame) -> pl.DataFrame:
    """The kept rows with the columns of `CANONICAL`."""
    return prepared.filter("kept").rename({"author": "teacher"}).select(CANONICAL)


def control_tokens(prepared: pl.DataFrame) -> list[str]:
    """The row_ids of kept rows whose texts hold strings that chat templates treat as their own."""
    kept = prepared.filter("kept")
    return [
        row_id
        for row_id, messages in zip(kept["row_id"], kept["messages"].to_list(), strict=True)
        if any(CONTROL_TOKEN.search(message["content"]) for message in messages)
    ]


def completion(rationale: str, *, answer: str, form: RationaleForm) -> str:
    """The assistant's text of one row."""
    if form == "inline":
        return answers.completion(rationale, answer)
    if form == "think":
        return f"<think>\n{rationale.strip()}\n</think>\n\n{answer.strip()}"
    return answer.strip()


def _row(row: dict[str, str], *, options: Options, taken: frozenset[str]) -> dict[str, object]:
    said = completion(row["rationale"], answer=row["answer"], form=options.rationale)
    messages = [] if options.system is None else [{"role": "system", "content": options.system}]
    messages += [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": said}]
    lengths = [options.counter.count(message["content"]) for message in messages]
    reason = _reason(row, length=sum(lengths), options=options, taken=taken)
    return {name: row[name] for name in EXPORT_ROWS.columns if name in row} | {
        "messages": messages,
        "completion_tokens": lengths[-1],
        "n_tokens": sum(lengths),
        "kept": reason is None,
        "reason": reason,
        "line": None,
    }


def _reason(row: dict[str, str], *, length: int, options: Options, taken: frozenset[str]) -> str | None:
    if not row["prompt"].strip():
        return "empty_prompt"
    if not row["answer"].strip():
        return "empty_answer"
    if options.rationale == "think" and "think>" in row["rationale"]:
        return "think_tag_in_rationale"
    if taken and texts.normalised(row["prompt"]) in taken:
        return "prompt_in_train"
    if options.max_length is not None and length > options.max_length:
        return "over_length"
    return None


def _right_split(rows: pl.DataFrame, *, part: Part) -> None:
    right = "train" if part == "train" else "dev"
    wrong = rows.filter(pl.col("split") != right)
    if wrong.height:
        first = wrong.row(0, named=True)
        raise ExportError(
            f"{wrong.height} of the {part} rows come from another split than {right!r}: "
            f"row {first['row_id']} is {first['split']!r}; eval rows are never exported"
        )


def quantiles(lengths: Sequence[int]) -> dict[str, int]:
    """p50, p95 (nearest rank) and max of the lengths, 0 for none."""
    ordered = sorted(lengths) or [0]
    at = {"p50": 50, "p95": 95, "max": 100}
    return {name: ordered[max(0, -(-percent * len(ordered) // 100) - 1)] for name, percent in at.items()}
