"""docs/api.md, the API reference, from the signatures and docstrings that griffe reads. `make pages` writes it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import griffe

import balkit

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "api.md"

#: Public names of the package by what they are for; those that are not here come under "Others".
GROUPS = {
    "The pool": ["Pool", "Commit", "Snapshot", "SnapshotDraft", "answered", "training_rows"],
    "Recipes": ["Recipe", "load_recipe", "dump_recipe"],
    "Planning and running": ["plan", "Plan", "run", "RunResult", "compare", "progress", "quickstart_folder"],
    "The steps of a run": [
        *("Basis", "select", "Evidence", "channel", "Channel", "rationales", "write_examples", "Sources"),
        *("train", "score", "evaluate", "summarise", "validation_rows"),
    ],
    "Teachers": ["Teacher", "Request", "Reply", "Ledger", "make_teacher", "Scripted", "Recorded"],
    "Vectors": ["Vectors", "make_encoder"],
    "Audit, reports and exports": ["audit", "Audit", "write_report", "export"],
    "Errors": ["BalkitError"],
}
#: Names that stand in a room of the package, for extending it and for what one person in ten needs.
ROOMS = {
    "selection": ["Way", "Task", "Ranking", "preferring", "spread"],
    "exports": ["Target", "Material", "Limit", "Options", "ExportReport"],
    "vectors": ["Encoder", "neighbours", "Neighbours", "most_similar", "distil"],
    "student": ["intervals", "compare", "confusion", "macro_f1", "errors"],
    "review": ["cases", "judge", "Verdict", "Case"],
}
_HEAD = """# API reference

Made from the code by `make pages`; a test compares it. Names with `balkit.` before them are imported from there, the
others from the room in their heading. What is not here may change without a word. Every error is in
[troubleshooting.md](troubleshooting.md).

"""
_FOOT = "\n\n[All pages](README.md) | next: [how balkit is built](design.md)\n"
_LISTED = re.compile(r"^(\w[\w, .*]*?) {2,}(\S.*)$")


def page() -> str:
    """The whole page."""
    package = griffe.load("balkit", search_paths=[ROOT], resolve_aliases=False)
    parts = [_HEAD, *_contents(), "\n"]
    for title, names in _groups().items():
        parts.append(f"## {title}\n\n")
        parts += [_entry(_object(package, *balkit._HOME[name]), f"balkit.{name}") for name in names]
    for room, names in ROOMS.items():
        parts.append(f"## balkit.{room}\n\n")
        parts += [_entry(_object(package, f"balkit.{room}", name), name) for name in names]
    return "".join(parts).rstrip() + _FOOT


def _contents() -> Iterator[str]:
    seen: Counter[str] = Counter()

    def link(title: str) -> str:
        anchor = title.lower().replace(".", "")
        seen[anchor] += 1
        return f"[{title.rpartition('.')[2]}](#{anchor}{f'-{seen[anchor] - 1}' if seen[anchor] > 1 else ''})"

    for title, names in _groups().items():
        yield f"- {title}: {', '.join([link(f'balkit.{name}') for name in names])}\n"
    for room, names in ROOMS.items():
        yield f"- `balkit.{room}`: {', '.join([link(name) for name in names])}\n"


def _groups() -> dict[str, list[str]]:
    """The groups, and a last one with the public names that are in none."""
    placed = {name for names in GROUPS.values() for name in names}
    others = [name for name in balkit._HOME if name not in placed]
    return {**GROUPS, **({"Others": others} if others else {})}


def _object(package: griffe.Object, module: str, name: str) -> griffe.Object:
    """Where a public name is written, through the imports that lead there."""
    found = package[f"{module}.{name}".removeprefix("balkit.")]
    while found.is_alias:
        found = package[found.target_path.removeprefix("balkit.")]
    return found


def _entry(found: griffe.Object, title: str) -> str:
    said = f"### {title}\n\n"
    if found.is_function:
        return said + _code(_signature(found, title.rpartition(".")[2])) + _text(found)
    said += _text(found)
    fields = [one for one in _own(found) if one.is_attribute and "property" not in one.labels]
    if fields:
        said += _code("\n".join(_field(one) for one in fields))
    for one in _own(found):
        if one.is_function or "property" in one.labels:
            said += f"#### {found.name}.{one.name}\n\n" + _code(_signature(one, one.name)) + _text(one)
    return said


def _own(found: griffe.Object) -> Iterator[griffe.Object]:
    """Public members in the order of the source: methods and properties with a docstring, and declared fields."""
    for one in found.members.values():
        if one.is_alias or one.name.startswith("_"):
            continue
        declared = one.is_attribute and "instance-attribute" in one.labels and one.annotation is not None
        if one.docstring is not None or declared:
            yield one


def _field(one: griffe.Object) -> str:
    value = f" = {one.value}" if one.value is not None and len(str(one.value)) < 50 else ""
    return f"{one.name}: {one.annotation}{value}"


def _signature(one: griffe.Object, name: str) -> str:
    """The signature; one a parameter a line where it is long."""
    if one.is_attribute:
        return f"{name}: {one.annotation}"
    parameters = [part for part in one.parameters if part.name not in ("self", "cls")]
    pieces: list[str] = []
    for part in parameters:
        if part.kind is griffe.ParameterKind.keyword_only and "*" not in pieces and not _gathers(pieces):
            pieces.append("*")
        star = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}.get(part.kind, "")
        annotation = f": {part.annotation}" if part.annotation is not None else ""
        default = f" = {part.default}" if part.default is not None and not star else ""
        pieces.append(f"{star}{part.name}{annotation}{default}")
    returned = f" -> {one.returns}" if one.returns is not None else ""
    line = f"{name}({', '.join(pieces)}){returned}"
    if len(line) <= 100:
        return line
    inside = "".join(f"    {piece},\n" for piece in pieces)
    return f"{name}(\n{inside}){returned}"


def _gathers(pieces: list[str]) -> bool:
    return any(piece.startswith("*") for piece in pieces)


def _code(text: str) -> str:
    return f"```text\n{text}\n```\n\n" if text else ""


def _text(found: griffe.Object) -> str:
    """The docstring as Markdown: lines of `name  meaning` become a list, indented code a block."""
    if found.docstring is None:
        return ""
    said = "\n\n".join(_paragraph(part) for part in found.docstring.value.strip().split("\n\n"))
    return f"{said}\n\n"


def _paragraph(part: str) -> str:
    lines = part.split("\n")
    if all(line.startswith("    ") for line in lines):
        return "```text\n" + "\n".join(line[4:] for line in lines) + "\n```"
    if not all(_LISTED.match(line) or line.startswith("  ") for line in lines) or not _LISTED.match(lines[0]):
        outside = [re.sub(r"<(\w+)>", r"\\<\1>", piece) for piece in part.split("`")[::2]]
        inside = part.split("`")[1::2]
        return "`".join(piece for pair in zip_longest(outside, inside) for piece in pair if piece is not None)
    items: list[str] = []
    for line in lines:
        found = _LISTED.match(line)
        if found:
            items.append(f"- `{found[1]}`: {found[2]}")
        else:
            items[-1] += f" {line.strip()}"
    return "\n".join(items)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
