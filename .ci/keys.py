"""The tables of docs/recipes.md, from the recipe's own classes. `make pages` puts them into the page.

A table stands between `<!-- keys: SECTION -->` and `<!-- end -->`; SECTION is a key of the recipe, or `recipe` itself.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from balkit.recipe import Recipe
from balkit.recipe.sections import OwnMethod

PAGE = Path(__file__).resolve().parent.parent / "docs" / "recipes.md"
_TABLE = re.compile(r"(<!-- keys: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "file", type(None): "null"}


def page() -> str:
    """The page with its tables as they should be."""
    return _TABLE.sub(lambda found: found[1] + table(found[2]) + found[3], PAGE.read_text(encoding="utf-8"))


def table(section: str) -> str:
    """One row a key: its values, its default, what it does."""
    rows = own_keys() if section == "recipe" else keys(section)
    lines = [f"| `{name}` | {values} | {default} | {said} |" for name, values, default, said in rows]
    return "\n".join(["| key | takes | default | what it does |", "| --- | --- | --- | --- |", *lines, ""])


def sections() -> list[str]:
    """The keys of a recipe that hold keys."""
    return [name for name, field in Recipe.model_fields.items() if _models(field.annotation)]


def own_keys() -> Iterator[tuple[str, str, str, str]]:
    """The keys of a recipe that hold no others."""
    for name, field in Recipe.model_fields.items():
        if name not in sections():
            yield _row(name, field)


def keys(section: str) -> Iterator[tuple[str, str, str, str]]:
    """The keys inside a section, those of sections inside it too; `teachers` holds whole teachers, told once."""
    yield from _keys(_models(Recipe.model_fields[section].annotation)[0], "")


def _keys(model: type[BaseModel], before: str) -> Iterator[tuple[str, str, str, str]]:
    for name, field in model.model_fields.items():
        inside = _models(field.annotation)
        yield _row(before + name, field)
        if inside and inside[0].__name__ != "Teacher":
            yield from _keys(inside[0], f"{before}{name}.")


def _row(name: str, field: FieldInfo) -> tuple[str, str, str, str]:
    inside = _models(field.annotation)
    said = field.description or (inside[0].__doc__ or "").partition("\n")[0] if inside else field.description
    if not said:
        raise SystemExit(f"the recipe's key {name} has no description: add one where it is declared")
    said = re.sub(r"\bdocs/(\w+\.md)", r"[\1](\1)", said.replace("|", "\\|").strip())
    return name, _values(field), _default(field), said


def _values(field: FieldInfo) -> str:
    said = _of_type(field.annotation)
    bounds = [_bound(piece) for piece in field.metadata if _bound(piece)]
    return ", ".join([said, *bounds]).replace("whole number, >= 1", "whole number from 1")


def _of_type(kind: Any) -> str:
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if kind is OwnMethod:
        return "a `.py` file ([extending.md](extending.md))"
    if origin is Annotated:
        return ", ".join([_of_type(inside[0]), *filter(None, map(_bound, getattr(inside[1], "metadata", ())))])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inside)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_of_type(one) for one in inside if one is not type(None)))
    if origin is tuple:
        return f"list of {_plural(_of_type(inside[0]))}"
    if origin is dict:
        return f"name: {_of_type(inside[1])}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "a teacher" if kind.__name__ == "Teacher" else "keys"
    return _NAMES[kind]


def _plural(said: str) -> str:
    return said.replace("text", "texts", 1) if said.startswith("text") else said


def _bound(piece: Any) -> str:
    for name, sign in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<")):
        if getattr(piece, name, None) is not None:
            return f"{sign} {getattr(piece, name)}"
    return ""


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if value is None or value in ((), {}, "") or isinstance(value, BaseModel):
        return "-"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models(part)]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
