"""What of a row becomes prompt, reference answer and domain: a column, a path, a template, a chat, an expression."""

from __future__ import annotations

import difflib
import json
import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from string import Formatter
from typing import Any

from balkit import texts
from balkit.pool import chat, database


class Problem(str):
    """What is wrong with a cell, a line or a file, where text was expected."""


class RowProblem(Problem):
    """What is wrong with one row, which is left out; the other rows of its source stand without it."""


#: What a path that leads nowhere gives; a null that is written is something else.
NOWHERE = object()

Text = str | Problem | None


@dataclass(frozen=True)
class Field:
    """A column, a path into one (`meta.subject`, `messages.0.content`), or a template: `{question} {options.0}`."""

    text: str

    @cached_property
    def parts(self) -> tuple[tuple[str, str | None], ...]:
        """Literal texts, each with the path that comes after it. Raises `ValueError` for a template that is none."""
        found = []
        for literal, path, spec, conversion in Formatter().parse(self.text):
            if path == "" or spec or conversion:
                raise ValueError("name a column in every pair of braces, and nothing else; {{ stands for a brace")
            found.append((literal, path))
        if all(path is None for _, path in found):
            raise ValueError("names no column")
        return tuple(found)

    @property
    def is_template(self) -> bool:
        """Whether the text is put together, not taken from one place."""
        return "{" in self.text or "}" in self.text

    def paths(self) -> list[str]:
        """The columns and paths that it needs."""
        return [path for _, path in self.parts if path is not None] if self.is_template else [self.text]

    def value(self, values: Mapping[str, object], *, part: str) -> Text:
        """Its text in a row, given the values at its paths; `part` is prompt, answer or domain."""
        if not self.is_template:
            return as_text(values[self.text], part=part)
        found = []
        for literal, path in self.parts:
            cell = None if path is None else as_text(values[path], part="")
            if isinstance(cell, Problem):
                return Problem(f"{path!r} {cell}")
            found += [literal, cell or ""]
        return "".join(found)


@dataclass(frozen=True)
class Columns:
    """Which fields of the source hold what; without `answer` no reference answer is known.

    The domain is a field, the same for all rows (`domain_is`), or an SQL expression over the columns (`domain_sql`).
    `more` are fields that a reader wants besides, by the name of their cell. With `may_lack` a row without a key has
    null there; a column that no row has is missing all the same.
    """

    prompt: str
    answer: str | None
    domain: str | None
    domain_is: str | None = None
    domain_sql: str | None = None
    more: tuple[tuple[str, str], ...] = ()
    may_lack: bool = False

    @cached_property
    def fields(self) -> dict[str, Field]:
        """The fields by the part of an example that they make."""
        parts = {"prompt": self.prompt, "answer": self.answer, "domain": self.domain, **dict(self.more)}
        return {part: Field(named(text)) for part, text in parts.items() if text is not None}

    @cached_property
    def sql_names(self) -> list[str]:
        """The columns that `domain_sql` speaks of. Raises `ValueError` where it is no expression."""
        return [] if self.domain_sql is None else columns_of_sql(self.domain_sql)

    @cached_property
    def paths(self) -> list[str]:
        """What every row must have."""
        return list(dict.fromkeys(path for field in self.fields.values() for path in field.paths()))

    @cached_property
    def names(self) -> list[str]:
        """All that is read."""
        return list(dict.fromkeys([*self.paths, *self.sql_names]))

    @cached_property
    def keys(self) -> frozenset[str]:
        """The single names in the paths."""
        return frozenset(self.names) | {part for path in self.names for part in path.split(".")}

    def problems(self) -> list[str]:
        """What is wrong with the fields themselves."""
        found = []
        for part, field in self.fields.items():
            try:
                field.paths()
            except ValueError as error:
                found.append(f"{part} {field.text!r}: {error}")
        given = [self.domain is not None, self.domain_is is not None, self.domain_sql is not None]
        if sum(given) != 1:
            ways = "a column (domain), is the same for all rows (domain_is) or an SQL expression (domain_sql)"
            found.append(f"the domain comes from {ways}: name one")
        try:
            _ = self.sql_names
        except ValueError as error:
            found.append(f"domain_sql {self.domain_sql!r}: {error}")
        return found

    @property
    def of_domain(self) -> str:
        """How messages name where the domain comes from."""
        return repr(self.domain or self.domain_sql or "domain_is")


def at(body: object, path: str) -> object:
    """The value of a key, or at the end of a path of keys and places; `NOWHERE` where there is none."""
    if isinstance(body, dict) and path in body:
        return body[path]
    for part in path.split("."):
        if isinstance(body, dict) and part in body:
            body = body[part]
        elif isinstance(body, list) and is_place(part) and int(part) < len(body):
            body = body[int(part)]
        else:
            return NOWHERE
    return body


def named(column: str) -> str:
    """A column's name as it is compared: letters with accents may be written in two ways."""
    return unicodedata.normalize("NFC", column)


def is_place(part: str) -> bool:
    """Whether a part of a path counts into a list."""
    return part.isascii() and part.isdigit() and len(part) < 10


def as_text(value: object, *, part: str) -> Text:
    """A cell as text; a chat gives its prompt or its answer."""
    if isinstance(value, str):
        return value if texts.is_whole(value) else Problem("holds half of a surrogate pair, which is no text")
    if value is None or isinstance(value, bool):
        return None if value is None else "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return str(value) if math.isfinite(value) else Problem(not_finite(value))
    if part in ("prompt", "answer") and chat.is_chat(value):
        try:
            said = chat.prompt_of(value) if part == "prompt" else chat.answer_of(value)
        except chat.NotReadable as error:
            return Problem(str(error))
        return None if said is None else as_text(said, part="")
    return Problem(f"is a {type(value).__name__}, not text, a number or true/false")


def shown(text: str) -> str:
    """A name from outside, for a message in one line: what cannot be printed is written out."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def not_finite(value: float) -> str:
    """What is wrong with a float that is no number."""
    said = "NaN" if math.isnan(value) else value
    return f"is {said}, not text or a finite number; write null where no value is known"


def absent(source: str, wanted: Iterable[str], found: Sequence[str]) -> list[str]:
    """One line a column that the source lacks, with the name that it may have been."""
    problems = []
    for column in wanted:
        if column not in found:
            folded = {other.casefold(): shown(other) for other in found}
            close = difflib.get_close_matches(column.casefold(), list(folded), n=1, cutoff=0.5)
            hint = f"; did you mean {folded[close[0]]!r}?" if close else ""
            listed = shown(", ".join(found[:100])) + (f" and {len(found) - 100} more" if len(found) > 100 else "")
            problems.append(f"{source}: no column {column!r}{hint} (it has: {listed or 'none'})")
    return problems


def columns_of_sql(expression: str) -> list[str]:
    """The columns that an SQL expression speaks of, in the order of their names.

    Raises `ValueError` with DuckDB's words where it is no single expression over one row.
    """
    with database.connected() as con:
        text = con.execute("SELECT json_serialize_sql(?)", [f"SELECT {in_sql(expression)}"]).fetchall()[0][0]
        aggregates = "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type = 'aggregate'"
        of_many_rows = {name for (name,) in con.sql(aggregates).fetchall()}
    body = json.loads(text)
    if body.get("error"):
        raise ValueError(f"is no SQL expression: {body.get('error_message', '')}")
    nodes = [statement["node"] for statement in body["statements"]]
    if len(nodes) != 1 or len(nodes[0].get("select_list", ())) != 1 or nodes[0]["from_table"]["type"] != "EMPTY":
        raise ValueError("is no single expression over the columns of a row")
    for node in _walk(nodes[0]["select_list"]):
        kind, called = node.get("class"), node.get("function_name")
        if kind in _NOT_OF_ONE_ROW or called in of_many_rows:
            said = called or _NOT_OF_ONE_ROW.get(str(kind))
            raise ValueError(f"is no expression over the columns of one row: it has {said}")
    found = sorted(set(_names(nodes, frozenset())))
    if not found:
        raise ValueError("is no expression over a row's columns: it names none")
    return found


def in_sql(expression: str) -> str:
    """What a query selects for the domain: null for a row in which the expression fails."""
    return f"CAST(TRY(({expression}\n)) AS VARCHAR) AS domain"


_NOT_OF_ONE_ROW = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window",
    "STAR": "*",
    "POSITIONAL_REFERENCE": "a number for a column",
    "PARAMETER": "a parameter",
}


def _walk(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _walk(child)


def _names(node: Any, bound: frozenset[str]) -> Iterator[str]:
    """The columns in a parsed expression, without the parameters of lambdas, which are `bound` inside of them."""
    if isinstance(node, dict) and node.get("class") == "COLUMN_REF":
        if node["column_names"][0] not in bound:
            yield node["column_names"][0]
        return
    if isinstance(node, dict) and node.get("class") == "LAMBDA":  # or the arrow of JSON, whose left side is a column
        given = frozenset(_names(node["lhs"], frozenset()))
        if given & set(_names(node["expr"], frozenset())):
            yield from _names(node["expr"], bound | given)
            return
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _names(child, bound)
