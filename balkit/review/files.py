"""Cases and verdicts as a file, for a script or a spreadsheet: a line a worked answer, JSON lines or CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from balkit import texts
from balkit.errors import IngestError, PoolError
from balkit.pool import Pool
from balkit.review.cases import Case, cases_of
from balkit.review.judging import Known, Verdict, problems_of

#: What a line says, and what a person may fill in.
SHOWN = (
    "example_id", "rationale_id", "domain", "why", "prompt", "reference", "answer", "times", "accepted", "reason",
    "rationale",
)  # fmt: skip
FILLED_IN = ("verdict", "fixed_answer", "fixed_reference", "fixed_rationale", "note")

_VERDICTS = ("accept", "reject", "fix")
#: The longest cell in characters; csv alone stops at 131,072.
_CELL = 1 << 30
#: What a spreadsheet takes for a formula; in CSV an apostrophe goes before it, and before an apostrophe.
_ESCAPED = ("=", "+", "-", "@", "\t", "\r", "\n", "'")


def write_cases(cases: Sequence[Case], path: Path) -> int:
    """Writes the cases for a person to fill in; the number of lines. The file appears whole, or not at all.

    A line a worked answer, one for an example without any; `.csv` with cells escaped that a spreadsheet could take for
    formulas. Raises `PoolError` for another ending.
    """
    ending = _ending(path)
    draft = path.with_name(f".{path.name}.new")
    lines = [line for case in cases for line in _lines(case)]
    try:
        with draft.open("w", encoding="utf-8", newline="") as file:
            if ending == ".csv":
                writer = csv.DictWriter(file, [*SHOWN, *FILLED_IN], lineterminator="\n")
                writer.writeheader()
                writer.writerows({name: _cell(value) for name, value in line.items()} for line in lines)
            else:
                file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        draft.replace(path)
    except OSError as error:
        raise PoolError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        draft.unlink(missing_ok=True)
    return len(lines)


def read_verdicts(pool: Pool, path: Path) -> list[tuple[Case, list[Verdict]]]:
    """The verdicts of a file by case, in the file's order; lines without one are passed over.

    Nothing but the ids and what a person fills in is read. Raises `IngestError` with every problem and its line (from
    1): no JSON object, an unknown column, verdict, example or rationale, two verdicts on one worked answer, no column
    for verdicts, and what `problems_of` finds.
    """
    problems: list[str] = []
    rows: dict[str, list[tuple[int, Verdict]]] = {}
    for number, line in _read(path, problems):
        said = _verdict(line, where=f"{path}:{number}", problems=problems)
        if said is not None:
            rows.setdefault(said.example_id, []).append((number, said))
    found = {case.example_id: case for case in cases_of(pool, dict.fromkeys(rows, "file"))}
    known = Known.of(pool, [(case, [one for _, one in rows[example_id]]) for example_id, case in found.items()])
    now = _fixed(pool) if len(found) < len(rows) else {}
    for example_id, some in rows.items():
        first = f"{path}:{some[0][0]}"
        if example_id not in found:
            problems.append(f"{first}: the pool has no example {example_id!r} in use{now.get(example_id, '')}")
            continue
        problems += _doubled(some, path=path)
        verdicts = [one for _, one in some]
        problems += [f"{first}: {said}" for said in problems_of(found[example_id], verdicts, known=known)]
    if problems:
        raise IngestError(f"{path}: no verdict was stored", problems)
    return [(found[example_id], [one for _, one in some]) for example_id, some in rows.items()]


def _fixed(pool: Pool) -> dict[str, str]:
    """What is to be said of examples whose reference was fixed before."""
    reviews = pool.at(pool.version).reviews().select("example_id", "detail")
    made = {example_id: json.loads(detail).get("example") for example_id, detail in reviews.iter_rows()}
    said = ": its reference was fixed, it is {} now; take its lines out"
    return {example_id: said.format(new) for example_id, new in made.items() if new}


def _lines(case: Case) -> Iterator[dict[str, Any]]:
    about = {name: getattr(case, name) for name in ("example_id", "domain", "why", "prompt", "reference")}
    blank = dict.fromkeys(FILLED_IN)
    for one in case.worked:
        own = {name: getattr(one, name) for name in ("rationale_id", "answer", "times", "accepted", "reason")}
        line = about | own | {"rationale": one.text} | blank
        yield {name: line[name] for name in (*SHOWN, *FILLED_IN)}
    if not case.worked:
        yield {name: about.get(name) for name in (*SHOWN, *FILLED_IN)}


def _read(path: Path, problems: list[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Each line with its number; CSV cells as they were before they were escaped, empty ones as None."""
    read = _csv_lines if _ending(path) == ".csv" else _json_lines
    longest = csv.field_size_limit(_CELL)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from read(file, path, problems)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise IngestError(f"{path}: cannot be read", [str(error)]) from error
    finally:
        csv.field_size_limit(longest)


def _csv_lines(file: TextIO, path: Path, problems: list[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(file)
    names = list(reader.fieldnames or ())
    if "verdict" not in names:
        other = next((mark for mark in (";", "\t", "|") if len(names) == 1 and mark in names[0]), None)
        why = "has no column 'verdict'" if other is None else f"separate its cells by commas, not by {other!r}"
        problems.append(f"{path}:1: {why if names else 'is empty'}")
        return
    for row in reader:
        if None in row or None in row.values():
            problems.append(f"{path}:{reader.line_num}: has not as many cells as the first line")
            continue
        yield reader.line_num, {name: _uncell(cell) for name, cell in row.items()}


def _json_lines(file: TextIO, path: Path, problems: list[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    before, rows, judged = len(problems), 0, 0
    for number, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            problems.append(f"{path}:{number}: is no JSON: {error}")
            continue
        if isinstance(row, dict):
            rows, judged = rows + 1, judged + ("verdict" in row)
            yield number, row
        else:
            problems.append(f"{path}:{number}: is no JSON object")
    if rows and not judged and len(problems) == before:
        problems.append(f"{path}: no line says 'verdict'")


def _verdict(line: Mapping[str, Any], *, where: str, problems: list[str]) -> Verdict | None:
    before = len(problems)
    unknown = sorted(set(line) - {*SHOWN, *FILLED_IN})
    if unknown:
        problems.append(f"{where}: unknown column {unknown[0]!r}; there are: {', '.join((*SHOWN, *FILLED_IN))}")
    values = {name: _text(line.get(name)) for name in ("example_id", "rationale_id", *FILLED_IN)}
    odd = [name for name in values if not isinstance(line.get(name), str | None)]
    problems += [f"{where}: {name} is {line[name]!r}, not a text" for name in odd]
    odd = [name for name in ("example_id", "rationale_id") if not texts.is_whole(values[name] or "")]
    problems += [f"{where}: {name} holds half of a surrogate pair, which is no text" for name in odd]
    verdict = None if values["verdict"] is None else values["verdict"].strip().casefold()
    fixed = [name for name in FILLED_IN[1:4] if values[name]]
    if verdict is None and fixed:
        problems.append(f"{where}: {fixed[0]} is filled in, and verdict is not; write fix there")
    if verdict is not None and verdict not in _VERDICTS:
        problems.append(f"{where}: verdict {verdict!r} is none of {', '.join(_VERDICTS)}")
    if verdict is not None and values["example_id"] is None:
        problems.append(f"{where}: has no example_id")
    if verdict is None or len(problems) > before:
        return None
    return Verdict(
        example_id=str(values["example_id"]),
        verdict=verdict,  # type: ignore[arg-type]
        rationale_id=values["rationale_id"],
        rationale=values["fixed_rationale"],
        answer=values["fixed_answer"],
        reference=values["fixed_reference"],
        note=values["note"],
    )


def _doubled(some: Sequence[tuple[int, Verdict]], *, path: Path) -> Iterator[str]:
    first: dict[str | None, tuple[int, Verdict]] = {}
    for number, one in some:
        at, other = first.setdefault(one.rationale_id, (number, one))
        if at != number:
            what = "another verdict" if other.verdict != one.verdict else "a second verdict"
            yield f"{path}:{number}: {one.verdict} is {what} on the worked answer of line {at} ({other.verdict})"


def _ending(path: Path) -> str:
    if path.suffix not in (".jsonl", ".csv"):
        raise PoolError(f"{path}: ends in neither .jsonl nor .csv")
    return path.suffix


def _text(value: object) -> str | None:
    """What somebody wrote, None where it is blank."""
    return value if isinstance(value, str) and value.strip() else None


def _cell(value: object) -> object:
    return "'" + value if isinstance(value, str) and value.startswith(_ESCAPED) else value


def _uncell(cell: str) -> str | None:
    escaped = cell.startswith("'") and cell[1:].startswith(_ESCAPED)
    return (cell[1:] if escaped else cell) or None
