"""An experiment file: a base recipe, the arms as changes to it, and the seeds."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, PrivateAttr, ValidationError, model_validator

from balkit import recipe as recipes
from balkit.errors import RecipeError, RunError
from balkit.recipe import Recipe
from balkit.recipe.sections import Positive, Section

#: The pool that ships with balkit; any other name is a pool's folder.
SHIPPED = "quickstart"
UNTRAINED = "untrained"

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


class Experiment(Section):
    """What is compared. A change is a recipe's key with dots (`balance.policy`) and its value."""

    name: Name
    pool: str = Field(default=SHIPPED, description="quickstart, or a pool's folder, relative to the file")
    base: Path = Field(description="the recipe of all arms, relative to the file")
    common: dict[str, Any] = Field(default={}, description="changes of all arms")
    arms: dict[Name, Literal["untrained"] | dict[str, Any]] = Field(
        description="name: its changes; untrained is the student before training"
    )
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0, 1, 2)
    baseline: str = Field(default="random", description="the arm from which every other arm's difference is taken")
    against: str | None = Field(
        default=None, description="another such arm; its balanced quotas also say which domains are head and tail"
    )
    also: dict[Positive, tuple[str, ...]] = Field(default={}, description="another budget_rows: arms run at it too")

    #: Where the file is: relative paths in the changes count from there, as in a recipe.
    _folder: Path | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _arms_are_there(self) -> Self:
        named = [
            self.baseline,
            *([self.against] if self.against else []),
            *(n for arms in self.also.values() for n in arms),
        ]
        unknown = [said_of_unknown(name, self.arms) for name in dict.fromkeys(named) if name not in self.arms]
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            unknown.append("seeds: name each once, and at least one")
        if self.arms.get(self.split_by) == UNTRAINED:
            unknown.append(f"{self.split_by} is not trained, so no quotas of it split head from tail")
        if unknown:
            raise ValueError("; ".join(unknown))
        return self

    @property
    def split_by(self) -> str:
        """The arm whose quotas say which domains are head and which tail, for all arms alike."""
        return self.against or self.baseline

    def recipe(self, arm: str, *, budget: int | None = None) -> Recipe:
        """An arm's whole recipe, without its seed. Raises `RecipeError` for changes that no recipe can have."""
        own = self.arms[arm]
        more = {} if budget is None else {"budget_rows": budget}
        body = self._base
        for key, value in {**self.common, **(own if isinstance(own, dict) else {}), **more}.items():
            body = _with(body, key.split("."), value)
        try:
            return recipes.load(body | {"name": f"{self.name}-{arm}"}, folder=self._folder)
        except RecipeError as error:
            raise RecipeError(f"arm {arm} of experiment {self.name}", error.problems) from None

    @cached_property
    def _base(self) -> dict[str, Any]:
        return recipes.load(self.base).model_dump(mode="json")

    def cells(self) -> list[Cell]:
        """Every arm, budget and seed: all arms of a seed, then the next; other budgets come last."""
        planned = [(self.arms, None), *((arms, budget) for budget, arms in self.also.items())]
        found = []
        for arms, budget in planned:
            made = {arm: self.recipe(arm, budget=budget) for arm in arms}
            found += [
                Cell(arm, recipe.model_copy(update={"seed": seed}), self.arms[arm] != UNTRAINED)
                for seed in self.seeds
                for arm, recipe in made.items()
            ]
        return found


@dataclass(frozen=True)
class Cell:
    """One arm with one seed at one budget."""

    arm: str
    recipe: Recipe
    trained: bool

    @property
    def name(self) -> str:
        """As its file is called."""
        return f"{self.arm}.{self.recipe.budget_rows}.s{self.recipe.seed}"

    def __str__(self) -> str:
        return f"{self.arm}, {self.recipe.budget_rows:,} rows, seed {self.recipe.seed}"


def load(file: str | Path) -> Experiment:
    """A checked experiment from its YAML file, every arm's recipe checked too.

    Paths count from its folder, as a recipe's do. Raises `RecipeError` with every problem of the file, or of the first
    arm that has any.
    """
    path = Path(file)
    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: cannot be read as an experiment", [" ".join(str(error).split())]) from error
    if not isinstance(body, dict):
        raise RecipeError(f"{path}: an experiment is a mapping of keys", [f"this file holds {type(body).__name__}"])
    try:
        found = Experiment.model_validate(body)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, one['loc'])) or 'experiment'}: {one['msg'].removeprefix('Value error, ')}"
            for one in error.errors(include_url=False)
        ]
        raise RecipeError(f"{path}: not an experiment", problems) from None
    folder = path.absolute().parent
    pool = found.pool if found.pool == SHIPPED else str(folder / found.pool)
    placed = found.model_copy(update={"base": folder / found.base, "pool": pool})
    placed._folder = folder
    placed.cells()  # a wrong change in the last arm is said before the first one has run
    return placed


def chosen(
    experiment: Experiment, *, only: Sequence[str], seeds: Sequence[int] | None, budgets: Sequence[int] | None
) -> list[Cell]:
    """The cells of some arms, seeds and budgets, all where none are named. Raises `RunError` for what is not there."""
    cells = experiment.cells()
    wrong = [said_of_unknown(name, experiment.arms) for name in only if name not in experiment.arms]
    for what, asked, there in (
        ("seed", seeds, experiment.seeds),
        ("budget", budgets, sorted({cell.recipe.budget_rows for cell in cells})),
    ):
        wrong += [f"no {what} {one}; there are: {_listed(there)}" for one in asked or () if one not in there]
    if wrong:
        raise RunError(f"experiment {experiment.name}: {'; '.join(wrong)}")
    return [
        cell
        for cell in cells
        if (not only or cell.arm in only)
        and (seeds is None or cell.recipe.seed in seeds)
        and (budgets is None or cell.recipe.budget_rows in budgets)
    ]


def said_of_unknown(name: str, arms: Mapping[str, Any]) -> str:
    """That there is no such arm, and which was meant."""
    close = difflib.get_close_matches(name, arms, n=1)
    return f"no arm is called {name!r}; " + (f"did you mean {close[0]!r}?" if close else f"there are: {_listed(arms)}")


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values))


def _with(body: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    first, *rest = path
    inner = body.get(first)
    return {**body, first: _with(inner if isinstance(inner, dict) else {}, rest, value) if rest else value}
