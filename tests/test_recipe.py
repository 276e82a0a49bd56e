"""Recipes: every problem at once, and a digest that changes with what can change a run's data, and nothing else."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from balkit import recipe as recipes
from balkit.errors import RecipeError
from balkit.recipe import Recipe

SMALLEST = {"name": "x", "budget_rows": 30, "teacher": {"transport": "offline"}}

PURPOSES = ("synthesis", "rationale", "rationale_first", "vote", "vote_first")
RECORDED = {"transport": "recorded", "model": "m", "file": "replies.jsonl", "price": "free"}
OTHER_TEACHER = {
    "transport": "offline",
    "model": "n",
    "name": "another",
    "base_url": "http://127.0.0.1:8000",
    "api_key_env": "KEY",
    "headers": {"x-team": "a"},
    "file": "others.jsonl",
    "price": {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2},
}
#: A recipe in which every key may change alone, and another value where the type does not tell one.
FULL: dict[str, Any] = {
    "name": "x",
    "budget_rows": 30,
    "teacher": RECORDED,
    "vectors": {"encoder": "sentence-transformers", "model": "org/encoder"},
    "student": {"base": "org/model", "lora": {"r": 4}},
    "select": {"response": "reference"},
    "train": {"early_stopping": {}},
    "caps": {"per_stage": {}, "per_domain": {}},
    "teachers": {name: RECORDED | {"name": name} for name in PURPOSES},
}
OTHER: dict[str, Any] = {
    **{f"teachers.{name}.{key}": value for name in PURPOSES for key, value in OTHER_TEACHER.items()},
    **{f"teacher.{key}": value for key, value in OTHER_TEACHER.items()},
    "name": "y",
    "fill": ["real", "repeat"],
    "domain_set": "topics",
    "answers.labels": ["a", "b"],
    "vectors.model": "org/another",
    "rationale.temperature": 0.9,
    "rationale.votes": 3,
    "rationale.instructions": "Be brief.",
    "synthesis.instructions": "Be various.",
    "synthesis.languages": ["de"],
    "synthesis.attributes": {"tone": ["calm", "angry"]},
    "student.base": "org/another",
    "student.gguf_file": "model.gguf",
    "student.heads": 2,
    "student.width": 256,
    "select.candidates": "all",
    "select.scorer": "org/scorer",
    "balance.weights": {"a": 2},
    "balance.within": "styles",
    "card.language": ["en"],
    "card.license": "mit",
    "card.source_licenses": {"*": "MIT"},
    "card.teacher_terms": {"m": "ask its maker"},
}
#: What cannot change a run's data.
OUTSIDE = {
    *(
        f"{place}.{key}"
        for place in ("teacher", *(f"teachers.{name}" for name in PURPOSES))
        for key in (
            *("base_url", "api_key_env", "headers", "file", "price", "concurrency", "rpm", "tpm", "timeout_s", "tries"),
        )
    ),
    *(f"caps.{scope}{unit}" for scope in ("", "per_stage.", "per_domain.") for unit in ("calls", "tokens", "usd")),
    *(f"card.{key}" for key in ("language", "license", "source_licenses", "teacher_terms")),
}


def models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in models(part)]


def keys(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[str]:
    """Every key of the schema that holds a value, as a dotted path. A price is one value."""
    for name, field in model.model_fields.items():
        inner = models(field.annotation)
        if inner and name != "price":
            yield from keys(inner[0], f"{prefix}{name}.")
        else:
            yield prefix + name


def value_at(body: Any, path: str) -> Any:
    for part in path.split("."):
        body = body[part] if isinstance(body, Mapping) else getattr(body, part)
    return body


def changed(path: str) -> Recipe:
    """FULL with another value at one place."""
    return recipes.load(with_value(FULL, path.split("."), another(path)))


def with_value(body: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    first, *rest = path
    return {**body, first: with_value(body.get(first, {}), rest, value) if rest else value}


def another(path: str) -> Any:
    if path in OTHER:
        return OTHER[path]
    section = Recipe
    *inside, name = path.split(".")
    for part in inside:
        section = models(section.model_fields[part].annotation)[0]
    now, annotation = value_at(recipes.load(FULL), path), section.model_fields[name].annotation
    allowed = [value for part in (annotation, *typing.get_args(annotation)) for value in literals(part)]
    if allowed:
        return next(value for value in allowed if value not in (now, "ifd"))
    if isinstance(now, bool):
        return not now
    if now is None:
        return 3
    assert isinstance(now, int | float), f"say in OTHER what else {path} can be"
    return now + 1 if isinstance(now, int) else now / 2 or 0.25


def literals(annotation: Any) -> tuple[Any, ...]:
    return typing.get_args(annotation) if typing.get_origin(annotation) is typing.Literal else ()


def problems(body: Mapping[str, Any]) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        recipes.load(dict(body))
    return caught.value.problems


def from_file(path: Path, text: str | bytes) -> RecipeError:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RecipeError) as caught:
        recipes.load(path)
    assert str(path) in str(caught.value)
    return caught.value


# -- problems


def test_all_problems_come_at_once_each_with_its_path() -> None:
    found = problems(
        {
            "name": "x y",
            "budget_rows": 0,
            "blance": {},
            "balance": {"policy": "unform"},
            "caps": {"per_stage": {"usd": -1, "call": 3}},
            "teacher": {"transport": "offline"},
        }
    )
    starts = [
        "name: ",
        "budget_rows: ",
        "blance: ",
        "balance.policy: ",
        "caps.per_stage.usd: ",
        "caps.per_stage.call: ",
    ]
    assert len(found) == len(starts)
    assert all(any(line.startswith(start) for line in found) for start in starts)


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ({"budget_row": 3}, "budget_row: unknown key; did you mean 'budget_rows'?"),
        ({"balance": {"polcy": 1}}, "balance.polcy: unknown key; did you mean 'policy'?"),
        ({"student": {"lora": {"rank": 8}}}, "student.lora.rank: unknown key; known here: alpha, dropout, quantize, r"),
        ({"caps": {"per_domain": {"eur": 1}}}, "caps.per_domain.eur: unknown key; known here: calls, tokens, usd"),
        ({"teacher": {"transport": "offline", "price": {"input_usd_per_mtok": 1, "output_usd": 2}}},
         "teacher.price.output_usd: unknown key; did you mean 'output_usd_per_mtok'?"),
    ],
)  # fmt: skip
def test_a_misspelt_key_gets_a_suggestion_at_every_depth(body: dict[str, Any], line: str) -> None:
    assert line in problems(SMALLEST | body)


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"budget_rows": "many"}, "budget_rows: "),
        ({"budget_rows": 3.5}, "budget_rows: "),
        ({"seed": True}, "seed: yes and no say nothing here"),
        ({"train": {"lr": False}}, "train.lr: yes and no say nothing here"),
        ({"train": {"lr": float("nan")}}, "train.lr: should be a finite number"),
        ({"caps": {"usd": float("inf")}}, "caps.usd: should be a finite number"),
        ({"balance": "natural"}, "balance: should be a mapping with keys out of beta, exponent, floor, policy, "),
        ({"fill": ["real", "reel"]}, "fill.1: should be 'real', 'synthetic' or 'repeat'"),
        ({"name": 2.5}, "name: "),
        ({1: 2}, "1: Keys should be strings"),
    ],
)
def test_a_value_of_a_wrong_type_is_named_with_what_was_given(body: dict[str, Any], path: str) -> None:
    (line,) = problems(SMALLEST | body)
    assert line.startswith(path)
    assert "(given: " in line


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"select": {"candidates": 0}}, ["select.candidates: ", "greater than or equal to 1", "'all'"]),
        ({"teacher": {"transport": "offline", "price": "cheap"}}, ["teacher.price: ", "a mapping", "'free'"]),
    ],
)
def test_a_value_that_may_be_of_two_kinds_is_one_problem(body: dict[str, Any], said: list[str]) -> None:
    (line,) = problems(SMALLEST | body)
    assert all(part in line for part in said)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"fill": ["synthetic", "real"]}, "real comes first"),
        ({"fill": []}, "at least one"),
        ({"fill": ["real", "real"]}, "at most once"),
        ({"budget_rows": 2, "stages": 3}, "budget_rows 2 is smaller than stages 3"),
        ({"select": {"first": "ifd"}}, "stage 1 has none"),
        ({"select": {"first": "uncertainty"}}, "first: uncertainty needs a student's scores"),
        ({"vectors": {"encoder": "sentence-transformers"}}, "needs `model`"),
        ({"teacher": {}}, "needs `model`"),
        ({"teacher": {"transport": "recorded"}}, "needs `file`"),
        ({"rationale": {"tries": 2, "temperature": 0}}, "the same text again"),
        ({"student": {"width": 10, "heads": 4}}, "not a multiple"),
        ({"student": {"lora": {}}}, "trained whole"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(body: dict[str, Any], said: str) -> None:
    assert said in "\n".join(problems(SMALLEST | body))


def test_contradictions_come_together_too() -> None:
    (line,) = problems(SMALLEST | {"fill": ["synthetic", "real"], "budget_rows": 2})
    assert "real comes first" in line
    assert "smaller than stages" in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"name: \xff\xfe", "cannot be read"),
        ("name: [", "not YAML"),
        ("{[1]: 2}", "not YAML"),
        ("- name: x", "this file holds a list"),
        ("", "this file holds nothing"),
        ("name: x\nname: y\nbalance: {policy: natural, policy: uniform}", "balance.policy: a second time on line 3"),
        ("name: &a {b: *a}", "budget_rows: missing"),
    ],
)
def test_a_file_that_is_no_recipe_says_why(tmp_path: Path, text: str | bytes, said: str) -> None:
    assert said in str(from_file(tmp_path / "recipe.yaml", text))


def test_a_missing_file_says_where_recipes_are(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="balkit recipes list"):
        recipes.load(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="cannot be read"):
        recipes.load(tmp_path)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"policy": "weights"}, "balance: policy: weights needs `weights`"),
        ({"weights": {"tin": -1}}, "balance.weights: the weight of 'tin' should be a number from 0 on, not -1"),
        ({"weights": {"tin": True}}, "balance.weights: the weight of 'tin' should be a number from 0 on, not True"),
    ],
)
def test_weights_that_are_none_are_named_with_their_domain(section: dict[str, Any], said: str) -> None:
    (line,) = problems(SMALLEST | {"balance": section})
    assert line.startswith(said)


def test_a_number_may_be_written_as_2e_4() -> None:
    body = yaml.safe_load("lr: 2e-4")
    assert recipes.load(SMALLEST | {"train": body}).train.lr == 2e-4


# -- the digest


@pytest.mark.parametrize("path", list(keys()))
def test_the_digest_changes_with_every_key_that_can_change_the_data(path: str) -> None:
    assert value_at(changed(path), path) != value_at(recipes.load(FULL), path)
    same = changed(path).run_digest() == recipes.load(FULL).run_digest()
    assert same == (path in OUTSIDE)


def test_the_list_of_keys_outside_the_digest_names_real_ones() -> None:
    assert set(keys()) >= OUTSIDE
    assert set(keys()) >= OTHER.keys()


def test_the_digest_is_the_same_wherever_the_recipe_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = FULL | {"student": {"base": "tiny", "lora": {}}}
    digests = set()
    for place in ("here", "there"):
        (tmp_path / place / "tiny").mkdir(parents=True)
        (tmp_path / place / "recipe.yaml").write_text(yaml.safe_dump(body))
        digests.add(recipes.load(tmp_path / place / "recipe.yaml").run_digest())
        monkeypatch.chdir(tmp_path / place)
        digests.add(recipes.load("recipe.yaml").run_digest())
    assert len(digests) == 1


# -- files beside the recipe


def test_relative_paths_count_from_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("model", "encoder"):
        (tmp_path / "recipes" / name).mkdir(parents=True)
    body = FULL | {"student": {"base": "model"}, "vectors": {"encoder": "sentence-transformers", "model": "encoder"}}
    (tmp_path / "recipes" / "recipe.yaml").write_text(yaml.safe_dump(body))
    monkeypatch.chdir(tmp_path)
    loaded = recipes.load("recipes/recipe.yaml")
    assert loaded.teacher.file == tmp_path / "recipes" / "replies.jsonl"
    assert loaded.student.base == str(tmp_path / "recipes" / "model")
    assert loaded.vectors.model == str(tmp_path / "recipes" / "encoder")


def test_a_hub_name_stays_a_hub_name(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(FULL))
    loaded = recipes.load(tmp_path / "recipe.yaml")
    assert (loaded.student.base, loaded.vectors.model) == ("org/model", "org/encoder")


def test_the_small_student_is_never_a_folder_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(SMALLEST))
    assert recipes.load(tmp_path / "recipe.yaml").student.base == "small"


@pytest.mark.parametrize("body", [SMALLEST, FULL], ids=["smallest", "full"])
def test_a_dumped_recipe_loads_as_itself_from_any_folder(tmp_path: Path, body: dict[str, Any]) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(body))
    loaded = recipes.load(tmp_path / "recipe.yaml")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text(recipes.dump(loaded), encoding="utf-8")
    assert recipes.load(tmp_path / "run" / "recipe.yaml") == loaded


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        recipes.load(SMALLEST).seed = 3  # type: ignore[misc]


# -- the schema


def resolved(schema: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    for option in (node, *node.get("anyOf", ())):
        if "$ref" in option:
            return schema["$defs"][option["$ref"].removeprefix("#/$defs/")]
    return node


@pytest.mark.parametrize("path", list(keys()))
def test_the_schema_names_every_key_and_refuses_others(path: str) -> None:
    schema = recipes.schema()
    node: Mapping[str, Any] = schema
    for part in path.split("."):
        assert node["additionalProperties"] is False
        node = resolved(schema, node["properties"][part])


def test_the_schema_says_what_a_recipe_must_have() -> None:
    assert recipes.schema()["required"] == ["name", "budget_rows", "teacher"]


def test_votes_that_could_not_differ_are_refused() -> None:
    body = {"name": "a", "budget_rows": 10, "teacher": {"transport": "offline"}}
    cold = {"rationale": {"tries": 1, "temperature": 0}}
    assert recipes.load(body | cold).synthesis.votes == 1
    with pytest.raises(RecipeError, match=r"synthesis\.votes 3 at rationale\.temperature 0"):
        recipes.load(body | cold | {"synthesis": {"votes": 3}})


def test_a_header_written_out_is_dumped_as_a_variables_name() -> None:
    headers = {"X-Team-Token": "canary-3c1a", "x-user": "$WHO"}
    dumped = recipes.dump(recipes.load(SMALLEST | {"teacher": {"transport": "offline", "headers": headers}}))
    assert "canary-3c1a" not in dumped
    assert recipes.load(yaml.safe_load(dumped)).teacher.headers == {"X-Team-Token": "$X_TEAM_TOKEN", "x-user": "$WHO"}
