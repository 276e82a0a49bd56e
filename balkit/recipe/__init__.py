"""The recipe: one YAML file that says how a run balances, chooses, asks, checks, trains and measures.

`load` reads a file (or a mapping) and lists every problem at once. Rooms get their own section, never the
whole recipe; only `plan` and `stages` see it all.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from balkit import own, texts
from balkit.errors import RecipeError
from balkit.recipe.card import Card
from balkit.recipe.sections import (
    SCORES_OF,
    Answers,
    Balance,
    Caps,
    EarlyStopping,
    Evaluate,
    Kind,
    Limits,
    Lora,
    Method,
    Positive,
    Price,
    Rationale,
    Section,
    Select,
    Student,
    Synthesis,
    Teacher,
    Teachers,
    Train,
    Vectors,
)

__all__ = [
    "SCORES_OF",
    "Answers",
    "Balance",
    "Caps",
    "Card",
    "EarlyStopping",
    "Evaluate",
    "Kind",
    "Limits",
    "Lora",
    "Method",
    "Price",
    "Rationale",
    "Recipe",
    "Select",
    "Student",
    "Synthesis",
    "Teacher",
    "Teachers",
    "Train",
    "Vectors",
    "dump",
    "load",
    "schema",
]

#: How deep keys lie in each other at most; an alias of YAML can make a mapping that holds itself.
DEEPEST = 4

#: Keys that are in a run's digest only where they are set: without them it is what it was.
_LATER_OF_SYNTHESIS = (
    *("semantic_eval", "min_chars", "max_chars", "languages"),
    *("attributes", "rationale", "max_calls_per_domain", "verify", "share"),
)


class Recipe(Section):
    """Everything a run does. `run_digest` leaves out what cannot change its data."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="what its runs are called: letters, digits, `_`, `.`, `-`"
    )
    seed: int = Field(
        default=0, ge=0, description="of all that is drawn: choices, samples, the student's first weights, dropout"
    )
    budget_rows: Positive = Field(description="rows in the final snapshot, repeats included, rejected ones never")
    stages: Positive = Field(default=3, description="each adds its part of the rows and trains a student anew")
    fill: tuple[Literal["real", "synthetic", "repeat"], ...] = Field(
        default=("real", "synthetic"), description="where a domain's rows come from, in this order; real goes first"
    )
    domain_set: str | None = Field(
        default=None, description="a set of domains of the pool (`balkit discover`) instead of the labels' own"
    )
    balance: Balance = Balance()
    select: Select = Select()
    vectors: Vectors = Vectors()
    answers: Answers = Answers()
    teacher: Teacher
    teachers: Teachers = Teachers()
    rationale: Rationale = Rationale()
    synthesis: Synthesis = Synthesis()
    caps: Caps = Caps()
    student: Student = Student()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    card: Card = Card()

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        problems = []
        if not self.fill or len(set(self.fill)) != len(self.fill):
            problems.append("fill: name each of real, synthetic, repeat at most once, and at least one")
        if "real" in self.fill and self.fill[0] != "real":
            problems.append("fill: real comes first; what is there is used before anything is written or repeated")
        if self.domain_set is not None and self.answers.kind == "label" and not self.answers.labels:
            problems.append("domain_set: its domains are no labels that an answer could be; list answers.labels")
        if self.balance.within is not None and self.balance.within == self.domain_set:
            problems.append("balance.within: these are the domains already (domain_set); name clusters inside them")
        if self.budget_rows < self.stages:
            problems.append(f"budget_rows {self.budget_rows} is smaller than stages {self.stages}")
        if "synthetic" in self.fill and self.synthesis.votes > 1 and self.rationale.temperature == 0:
            problems.append(
                f"synthesis.votes {self.synthesis.votes} at rationale.temperature 0 would buy the same answer again: "
                "raise the temperature or set votes: 1"
            )
        if self.teachers.rationale_first and self.rationale.tries < 2:
            problems.append("teachers.rationale_first: rationale.tries 1 leaves no try to the other one; set 2 or more")
        asked = [self.teacher, *self.teachers.named().values()]
        by_name = {one.name: one for one in asked}
        if any(by_name[one.name] != one for one in asked):
            problems.append("teachers: two of the same name differ; give each a `name`, which its calls are kept under")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def asked(self, purpose: str) -> tuple[Teacher, ...]:
        """Who is asked for a purpose, the first of a cascade first."""
        first, own = (getattr(self.teachers, name, None) for name in (f"{purpose}_first", purpose))
        return (*([first] if first else []), own or self.teacher)

    def run_digest(self) -> str:
        """sha256 of all that can change the run's data: no caps, prices, terms, paths, URLs, nor how fast it asks."""
        body = self.model_dump(mode="json", exclude={"caps": True, "teachers": True, "card": True})
        body["teacher"] = _asked(self.teacher)
        if self.teachers.named():
            body["teachers"] = {name: _asked(one) for name, one in self.teachers.named().items()}
        if self.domain_set is None:
            del body["domain_set"]
        for key in (
            "beta",
            "weights",
            "floor",
            "shrinkage",
            "within",
        ):  # came later: without them a digest is what it was
            if body["balance"][key] == Balance.model_fields[key].default:
                del body["balance"][key]
        if self.select.quality_weight == Select.model_fields["quality_weight"].default:
            del body["select"]["quality_weight"]
        if self.select.scorer is None:
            del body["select"]["scorer"]
        for key in _LATER_OF_SYNTHESIS:
            if getattr(self.synthesis, key) == Synthesis.model_fields[key].default:
                del body["synthesis"][key]
        for name in ("per_example", "votes"):
            if getattr(self.rationale, name) == Rationale.model_fields[name].default:
                del body["rationale"][name]
        body["train"] = self.train.settings()
        for key in ("first", "then"):
            if body["select"][key].endswith(own.SUFFIX):
                body["select"][key] = f"{Path(body['select'][key]).name} {own.digest(body['select'][key])}"
        for section, key in (("student", "base"), ("vectors", "model"), ("select", "scorer")):
            if _is_folder(body[section].get(key)):
                body[section][key] = Path(body[section][key]).name
        return texts.digest(body)


def load(source: str | Path | dict[str, Any], *, folder: str | Path | None = None) -> Recipe:
    """A checked recipe from a YAML file or a mapping.

    Relative paths (`teacher.file`, methods in files, and `student.base`, `vectors.model` or `select.scorer` where they
    name an existing folder) count from the recipe's own folder; those of a mapping from `folder`, and without one they
    stay. Raises `RecipeError` with every problem, its path and a suggestion.
    """
    if isinstance(source, dict):
        return _validate(source, "recipe", folder=None if folder is None else Path(folder))
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
        body, twice = yaml.safe_load(text), list(_twice(yaml.compose(text, Loader=yaml.SafeLoader)))
    except FileNotFoundError:
        raise RecipeError(
            f"{path}: no such recipe", ["`balkit recipes list` shows those that ship with balkit"]
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read", [str(error)]) from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not YAML", [" ".join(str(error).split())]) from error
    if not isinstance(body, dict):
        held = "nothing" if body is None else f"a {type(body).__name__}"
        raise RecipeError(f"{path}: a recipe is a mapping of keys", [f"this file holds {held}"])
    if twice:
        raise RecipeError(f"{path}: keys that stand twice", twice)
    return _validate(body, str(path), folder=path.parent)


def schema() -> dict[str, Any]:
    """The JSON Schema of a recipe, for editors."""
    return Recipe.model_json_schema()


def dump(recipe: Recipe) -> str:
    """The recipe as YAML with every default filled in."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _validate(body: dict[str, Any], where: str, *, folder: Path | None) -> Recipe:
    try:
        recipe = Recipe.model_validate(body)
    except ValidationError as error:
        problems = _problems(error.errors(include_url=False))
        raise RecipeError(f"{where}: {len(problems)} problem{'s' * (len(problems) > 1)}", problems) from None
    return recipe if folder is None else _from_folder(recipe, folder.absolute())


def _from_folder(recipe: Recipe, folder: Path) -> Recipe:
    def beside(name: str | None) -> str | None:
        return str(folder / name) if name and name != "small" and (folder / name).is_dir() else name

    def method(name: str) -> str:
        return str(folder / name) if name.endswith(own.SUFFIX) else name

    def from_there(teacher: Teacher) -> Teacher:
        return teacher.model_copy(update={"file": None if teacher.file is None else folder / teacher.file})

    others = {name: from_there(one) for name, one in recipe.teachers.named().items()}
    return recipe.model_copy(
        update={
            "teacher": from_there(recipe.teacher),
            "teachers": recipe.teachers.model_copy(update=others),
            "vectors": recipe.vectors.model_copy(update={"model": beside(recipe.vectors.model)}),
            "select": recipe.select.model_copy(
                update={
                    "scorer": beside(recipe.select.scorer),
                    **{key: method(getattr(recipe.select, key)) for key in ("first", "then")},
                }
            ),
            "student": recipe.student.model_copy(update={"base": beside(recipe.student.base)}),
        }
    )


def _asked(teacher: Teacher) -> dict[str, Any]:
    """What of a teacher can change the data; a batch answers as single calls do."""
    unsaid = {"base_url", "api_key_env", "headers", "file", "price", "concurrency", "rpm", "tpm", "timeout_s", "tries"}
    body = teacher.model_dump(mode="json", exclude=unsaid)
    return body | {"transport": "litellm"} if teacher.transport == "batch" else body


def _is_folder(name: str | None) -> bool:
    return bool(name) and name != "small" and (Path(name or "").is_absolute() or Path(name or "").is_dir())


def _twice(node: yaml.Node | None, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Keys that a mapping has twice, which YAML forbids and PyYAML lets pass: the last would win."""
    if not isinstance(node, yaml.MappingNode) or len(path) > DEEPEST:
        return
    seen: set[str] = set()
    for key, value in node.value:
        here = (*path, str(key.value))
        if here[-1] in seen:
            yield f"{'.'.join(here)}: a second time on line {key.start_mark.line + 1}; keep one"
        seen.add(here[-1])
        yield from _twice(value, here)


def _problems(items: Sequence[Any]) -> list[str]:
    """One line a place in the file; what the parts of a union say of one value becomes one line."""
    found: dict[str, list[str]] = {}
    of_unions: set[str] = set()
    for item in items:
        path, in_union = _place(item)
        found.setdefault(".".join(path), []).append(_message(item, path))
        of_unions |= {".".join(path)} if in_union else set()
    deeper = {place for place in of_unions if any(other.startswith(f"{place}.") for other in found)}
    return [f"{place or 'recipe'}: {' or '.join(messages)}" for place, messages in found.items() if place not in deeper]


def _place(item: Any) -> tuple[list[str], bool]:
    """The path of a problem in the file, and whether pydantic had put the part of a union into it."""
    path, fields, unknown = list[str](), Recipe.model_fields, item["type"] == "extra_forbidden"
    for left, part in zip(reversed(range(len(item["loc"]))), item["loc"], strict=True):
        if isinstance(part, int) or part in fields or (unknown and not left):
            path.append(str(part))
        if part in fields:
            models = _models_of(fields[part].annotation)
            fields = models[0].model_fields if models else {}
    return path, len(path) < len(item["loc"])


def _message(item: Any, path: Sequence[str]) -> str:
    if item["type"] == "extra_forbidden":
        known = _keys_at(path[:-1])
        close = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        return f"unknown key; {hint}"
    if item["type"] == "missing":
        return "missing"
    if item["type"] == "model_type":
        message = f"should be a mapping with keys out of {', '.join(_keys_at(path))}"
    else:
        message = item["msg"].removeprefix("Value error, ").replace("Input should", "should")
    given = item.get("input")
    if path[-1:] == ["base_url"]:
        return message  # it may hold a password
    return message if isinstance(given, dict | BaseModel) else f"{message} (given: {reprlib.repr(given)})"


def _keys_at(path: Sequence[str]) -> list[str]:
    fields = Recipe.model_fields
    for part in path:
        fields = next((model.model_fields for model in _models_of(fields[part].annotation)), {})
    return sorted(fields)


def _models_of(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_of(part)]
