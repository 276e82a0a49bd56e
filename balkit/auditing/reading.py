"""From pools, files and frames to the rows of an audit, with columns found by their names where none are given."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from balkit.auditing.rows import Rows
from balkit.errors import IngestError
from balkit.pool import Pool
from balkit.pool.whole import Columns, Table, is_hub_name, names_in, read_whole, sources_of
from balkit.texts import example_id

log = logging.getLogger(__name__)

#: Column names by what they hold, the likelier first.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "prompt": ("prompt", "question", "problem", "instruction", "messages", "conversations", "text", "input", "query"),
    "answer": (
        "answer", "final_answer", "reference", "gt_choice", "label", "prediction", "output", "response", "completion",
        "target", "messages", "conversations",
    ),
    "rationale": ("rationale", "solution", "reasoning", "cot", "explanation", "worked_answer", "org"),
    "domain": ("domain", "topic", "subject", "category", "source", "class"),
    "split": ("split",),
}  # fmt: skip
_SPLITS = {"train": "train", "training": "train", "dev": "dev", "val": "dev", "valid": "dev", "validation": "dev"}
_SPLITS |= {"test": "eval", "eval": "eval", "evaluation": "eval", "heldout": "eval", "testing": "eval"}


@dataclass(frozen=True)
class Named:
    """The columns that the user named: a column, a path or a template each, as `balkit add` takes them."""

    prompt: str | None = None
    answer: str | None = None
    rationale: str | None = None
    domain: str | None = None
    split: str | None = None


def rows_of_pool(pool: Pool) -> Rows:
    """The examples in use at the newest version, by id, with their accepted rationales that nobody rejected."""
    found = pool.examples()
    accepted = pool.reviewed().standing(pool.rationales()).filter("accepted")
    worked: dict[str, list[str]] = {}
    for example, text in accepted.select("example_id", "text").iter_rows():
        worked.setdefault(example, []).append(text)
    ids = found["example_id"].to_list()
    return Rows(
        sources=[str(pool.path)],
        place=[(0, row) for row in range(len(ids))],
        example_ids=ids,
        prompts=found["prompt"].to_list(),
        answers=found["reference"].to_list(),
        rationales=[tuple(worked.get(example, ())) for example in ids],
        domains=found["domain"].to_list(),
        splits=found["split"].to_list(),
        has_rationales=bool(worked),
    )


def rows_of_files(source: Any, named: Named, *, most: int | None = None) -> Rows:
    """The rows of files and frames; of each about `most`, where that is given.

    Raises `IngestError` with every problem, by file and line.
    """
    sources = sources_of(source)
    if not sources:
        raise IngestError("nothing to audit:", ["no file was given"])
    columns = [_columns(one, named) for one in sources]
    tables = read_whole(sources, columns=columns, most=most)
    given = any(name == "rationale" for wanted in columns for name, _ in wanted.more)
    cells = pl.concat([_cells(table, number, sure=named.split is not None) for number, table in enumerate(tables)])
    prompts = cells["prompt"].fill_null("").to_list()
    answers = [answer if answer and answer.strip() else None for answer in cells["reference"].to_list()]
    worked = cells["rationale"].to_list()
    return Rows(
        sources=[table.name for table in tables],
        place=list(cells.select("source", "row").iter_rows()),
        example_ids=[example_id(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)],
        prompts=prompts,
        answers=answers,
        rationales=[(text,) if text is not None else () for text in worked],
        domains=cells["domain"].to_list(),
        splits=cells["split"].to_list(),
        has_rationales=given,
        columns=[{part: field.text for part, field in wanted.fields.items()} for wanted in columns],
    )


def by_name(names: Sequence[str], named: Named) -> dict[str, str | None]:
    """The parts of a row (prompt, answer, rationale, domain, split), each with its column; None where no name tells it.

    Where the prompt is `instruction` and there is an `input` beside it, both make the prompt, as Alpaca has them.
    """
    folded = {name.casefold(): name for name in reversed(names)}
    taken = [text for text in (named.prompt, named.answer, named.rationale, named.domain) if text]
    found: dict[str, str | None] = {}
    for part, likely in _NAMES.items():
        given = getattr(named, part)
        own = (folded[name] for name in likely if name in folded)
        chats = ("messages", "conversations")
        free = (name for name in own if name not in taken or (part == "answer" and name.casefold() in chats))
        found[part] = given or next(free, None)
        taken += [found[part] or ""] if part != "prompt" or found[part] not in chats else []
    prompt, beside = found["prompt"], folded.get("input")
    if named.prompt is None and prompt == folded.get("instruction", "") and beside and beside not in taken:
        found["prompt"] = f"{{{prompt}}}\n\n{{{beside}}}"
    return found


def _columns(source: Any, named: Named) -> Columns:
    """What is read: the named columns, and those that the source's names give away."""
    names = [] if str(source) == "-" else names_in(source)
    found = by_name(names, named)
    prompt = found["prompt"]
    if prompt is None:
        listed = f" (it has: {', '.join(names[:50])})" if names else ""
        where = "stdin" if str(source) == "-" else source if isinstance(source, str | Path) else "frame"
        if is_hub_name(str(source)):
            raise IngestError(
                "nothing can be audited yet:", [f"{where}: name its columns: --prompt, --answer and others"]
            )
        if names or str(source) == "-":
            problem = f"{where}: no column is called as prompts are{listed}; name it with --prompt"
            raise IngestError("nothing can be audited yet:", [problem])
        prompt = "prompt"  # reading says what is wrong with the source
    more = tuple((part, column) for part in ("rationale", "split") if (column := found[part]) is not None)
    wanted = Columns(prompt, found["answer"], found["domain"], more=more, may_lack=True)
    problems = []
    for part, field in wanted.fields.items():
        try:
            field.paths()
        except ValueError as error:
            problems.append(f"--{part} {field.text!r}: {error}")
    if problems:
        raise IngestError("these columns cannot be read:", problems)
    return wanted


def _cells(table: Table, number: int, *, sure: bool) -> pl.DataFrame:
    """The cells, with splits. Of a column that nobody named (not `sure`) and that says one thing of all rows, no word
    is taken against the file's own name: released test sets have been seen to say `train` throughout."""
    cells = table.cells.with_columns(pl.lit(number, pl.Int64).alias("source"))
    for part in ("rationale", "split"):
        if part not in cells.columns:
            cells = cells.with_columns(pl.lit(None, pl.String).alias(part))
    told = _split_of_name(table.name)
    split = cells["split"].str.strip_chars().str.to_lowercase().replace(_SPLITS)
    if not sure and told not in (None, "train") and split.unique().to_list() == ["train"]:
        log.warning(
            "%s: taken for %s, as its name says; its column `split` says train in every row (--split split keeps that)",
            *(table.name, told),
        )
        split = split.clear(len(split))
    return cells.with_columns(split.fill_null(told or "train").alias("split")).select(
        "source", "row", "prompt", "reference", "domain", "rationale", "split"
    )


def _split_of_name(name: str) -> str | None:
    """The split that a file's own name gives away, else its folder's."""
    path = Path(name.lower())
    words: Sequence[str] = re.split(r"[^a-z]+", path.name)
    return next((_SPLITS[word] for word in (*words, path.parent.name) if word in _SPLITS), None)
