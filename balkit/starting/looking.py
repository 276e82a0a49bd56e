"""What a file of rows seems to hold: which column is what, how many rows and domains, answers of which kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from balkit.auditing import Named, by_name, kind_of, label_set, rows_of_files
from balkit.errors import IngestError
from balkit.pool.whole import Columns, names_in, read_whole
from balkit.recipe import Kind

PARTS = ("prompt", "answer", "domain")

#: Rows that are read: of the columns, to guess what they hold; of the file, to count.
_SAMPLE, _COUNTED = 2_000, 200_000

_MOST_COLUMNS = 50
_REPEATED = 5  # rows that a domain has on average, at least
_LABEL_CHARACTERS = 60


@dataclass(frozen=True)
class Guess:
    """The column of each part, or None; `unsure` are the parts that no column's name gave away."""

    names: tuple[str, ...]
    columns: Mapping[str, str | None]
    unsure: frozenset[str]


@dataclass(frozen=True)
class Facts:
    """What the rows of a file are.

    rows      how many were read; `more` where the file goes on
    domains   the rows of each domain, the largest first; empty where no column holds the domain
    labels    of answers of the kind label; empty where they are the domains' names
    typical   characters that nineteen in twenty prompts, with their answers, do not pass
    """

    rows: int
    more: bool
    domains: Mapping[str, int]
    kind: Kind
    labels: tuple[str, ...]
    typical: int
    splits: tuple[str, ...]


def guess(file: str, *, given: Mapping[str, str | None]) -> Guess:
    """Which columns hold prompt, answer and domain: those that are given, those with telling names, else by the cells.

    By the cells, the prompt is the longest text, the domain repeats itself, and where no column is left for the answer
    it is the domain. Raises `IngestError` for a file that shows no columns.
    """
    names = names_in(file)
    if not names:
        raise IngestError(f"{file}: shows no columns", ["is it there, and JSONL, CSV, TSV, Parquet or Arrow?"])
    named = Named(**{part: given.get(part) for part in PARTS})
    found = {part: by_name(names, named)[part] for part in PARTS}
    unsure = frozenset(part for part in PARTS if found[part] is None)
    if unsure:
        taken = {column for column in found.values() if column}
        cells = _cells(file, names)
        free = {name: texts for name, texts in cells.items() if name not in taken}
        if found["prompt"] is None and free:
            longest = max(free, key=lambda name: fmean(map(len, free[name])))
            found["prompt"] = longest
            del free[longest]
        if found["domain"] is None:
            repeated = [name for name in free if _repeats(free[name])]
            answer = found["answer"]
            own = [answer] if answer in cells and _repeats(cells[answer]) else []
            found["domain"] = next(iter([*repeated, *own]), None)
        if found["answer"] is None:
            found["answer"] = found["domain"]
    return Guess(tuple(names), found, unsure)


def facts(file: str, *, columns: Mapping[str, str | None]) -> Facts:
    """Counts and kinds of the file's rows, up to about 200,000. Raises `IngestError` for rows that cannot be read."""
    rows = rows_of_files(file, Named(**{part: columns[part] for part in PARTS}), most=_COUNTED)
    domains = Counter(domain for domain in rows.domains if domain) if columns["domain"] else Counter[str]()
    kind: Kind = kind_of(rows) if columns["answer"] else "text"
    labels = label_set(rows, None) if kind == "label" else ()
    sizes = sorted(len(prompt) + len(answer or "") for prompt, answer in zip(rows.prompts, rows.answers, strict=True))
    return Facts(
        rows=len(rows),
        more=len(rows) >= _COUNTED,
        domains=dict(domains.most_common()),
        kind=kind,
        labels=() if set(labels) == set(domains) else labels,
        typical=sizes[len(sizes) * 19 // 20] if sizes else 0,
        splits=tuple(sorted(set(rows.splits))),
    )


def _cells(file: str, names: Sequence[str]) -> dict[str, list[str]]:
    """The first cells of every column of texts; a column of anything else is left out."""
    found = {}
    for name in names[:_MOST_COLUMNS]:
        if "{" in name or "}" in name:
            continue
        try:
            (table,) = read_whole([file], columns=[Columns(name, None, None, may_lack=True)], most=_SAMPLE)
        except IngestError:
            continue
        cells = [text for text in table.cells["prompt"].to_list()[:_SAMPLE] if text]
        if cells:
            found[name] = cells
    return found


def _repeats(cells: Sequence[str]) -> bool:
    """Whether they are names of a few classes."""
    distinct = set(cells)
    return 1 < len(distinct) <= len(cells) / _REPEATED and max(map(len, distinct)) <= _LABEL_CHARACTERS
