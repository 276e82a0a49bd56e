"""The recipe: one YAML file that says how a run balances, chooses, asks, checks, trains and measures.

`load` reads a file (or a mapping) and lists every problem at once. Rooms get their own section, never the
whole recipe; only `plan` and `stages` see it all.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from balkit import texts
from balkit.errors import RecipeError

Kind = Literal["label", "choice", "number", "math", "text"]
Method = Literal["random", "stratified", "ifd", "k_center", "facility_location"]
Positive = Annotated[int, Field(ge=1)]

#: How deep keys lie in each other at most; an alias of YAML can make a mapping that holds itself.
DEEPEST = 4


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _yes_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads yes, no, on and off as booleans, which pydantic would take for 1 and 0."""
        if isinstance(value, bool) and info.field_name and cls.model_fields[info.field_name].annotation is not bool:
            raise ValueError("yes and no say nothing here")
        return value


class Balance(_Section):
    """How a stage's rows are shared out among domains (`balance.quotas`)."""

    policy: Literal["natural", "uniform", "adaptive", "adaptive_release", "temperature"] = "adaptive"
    exponent: float = Field(
        default=0.5, ge=0, le=1, description="policy temperature: share ~ n_d ** exponent; 1 is natural, 0 is uniform"
    )


class Select(_Section):
    """Which real examples represent a domain (`selection.select`)."""

    first: Method = Field(default="facility_location", description="stage 1, where no student exists yet")
    then: Method = Field(default="ifd", description="the later stages")
    response: Literal["student", "reference"] = Field(
        default="student",
        description="ifd: score the student's own answer (BalDistill) or the rationale on file (Cherry_LLM)",
    )
    max_ifd: float = Field(default=1.0, gt=0, description="ifd: an example at or above is dropped as misaligned")
    candidates: Positive | Literal["all"] = Field(
        default=4, description="ifd: how many examples are scored, as a multiple of the domain's quota"
    )
    strata: Positive = Field(default=20, description="stratified: clusters a domain")

    @model_validator(mode="after")
    def _stage_one_has_no_student(self) -> Self:
        if self.first == "ifd":
            raise ValueError(
                "first: ifd needs a student's scores, and stage 1 has none; use facility_location or random"
            )
        return self


class Vectors(_Section):
    """How texts become vectors (`vectors.make_encoder`) and how neighbours are found."""

    encoder: Literal["hashing", "sentence-transformers"] = "hashing"
    model: str | None = Field(default=None, description="sentence-transformers: a hub name or a local folder")
    dim: Positive = Field(default=512, description="hashing: dimensions")
    exact_below: Positive = Field(default=50_000, description="rows under which neighbours are searched exactly")

    @model_validator(mode="after")
    def _model_is_named(self) -> Self:
        if self.encoder == "sentence-transformers" and not self.model:
            raise ValueError("encoder: sentence-transformers needs `model`, a hub name or a local folder")
        return self


class Answers(_Section):
    """What a final answer is, and so how it is parsed and compared (`answers`)."""

    kind: Kind = "text"
    labels: tuple[str, ...] = Field(default=(), description="kind label: the label set; empty means the domains' names")


class Price(_Section):
    """US dollars per million tokens."""

    input_usd_per_mtok: float = Field(ge=0)
    output_usd_per_mtok: float = Field(ge=0)


class Teacher(_Section):
    """Who is asked, and how (`teacher`)."""

    name: str = Field(default="teacher", description="the endpoint's name, part of every call's key")
    transport: Literal["litellm", "batch", "recorded", "offline"] = Field(
        default="litellm", description="batch: the provider's batch API, at half the price and within a day"
    )
    model: str = Field(
        default="", description="litellm: a model string such as openai/gpt-4o-mini or ollama/llama3; batch: openai/..."
    )
    base_url: str | None = None
    api_key_env: str | tuple[str, ...] | None = Field(
        default=None, description="the environment variable that holds the key; of several, the keys are used in turn"
    )
    file: Path | None = Field(
        default=None, description="recorded: a JSONL file of earlier replies, relative to the recipe"
    )
    price: Price | Literal["free"] | None = Field(default=None, description="overrides the shipped table")
    concurrency: Positive = 8
    rpm: Positive | None = Field(default=None, description="requests a minute, never passed; none: as 429s teach")
    tpm: Positive | None = Field(
        default=None, description="tokens a minute, never passed: of each request its estimated prompt and max_tokens"
    )
    timeout_s: float = Field(default=120.0, gt=0)
    tries: Positive = Field(default=4, description="attempts for a transient failure before the run pauses")

    @model_validator(mode="after")
    def _transport_is_complete(self) -> Self:
        if self.transport in ("litellm", "batch") and not self.model:
            raise ValueError(f"transport: {self.transport} needs `model`, for example openai/gpt-4o-mini")
        if self.transport == "recorded" and self.file is None:
            raise ValueError("transport: recorded needs `file`, a JSONL file of replies")
        return self

    def key_names(self) -> tuple[str, ...]:
        """The environment variables that hold keys."""
        names = self.api_key_env or ()
        return (names,) if isinstance(names, str) else names


class Teachers(_Section):
    """Who is asked instead of `teacher`, by purpose. Each has a `name` of its own.

    With `rationale_first` or `vote_first` a cheap one answers first, and only what it fails at is asked of the other:
    an example's first try is the cheap one's; votes of the other count where the cheap one's do not agree.
    """

    synthesis: Teacher | None = None
    rationale: Teacher | None = None
    rationale_first: Teacher | None = None
    vote: Teacher | None = None
    vote_first: Teacher | None = None

    def named(self) -> dict[str, Teacher]:
        """Those that are given."""
        return {name: getattr(self, name) for name in type(self).model_fields if getattr(self, name) is not None}


class Rationale(_Section):
    """How a worked answer is asked for (`synthesize.rationales`)."""

    hint: bool = Field(default=True, description="show the teacher the reference answer (the paper does)")
    tries: Positive = Field(default=2, description="samples an example may use up before it is rejected")
    max_tokens: Positive = 512
    temperature: float = Field(default=0.7, ge=0, le=2)
    instructions: str = Field(default="", description="added to the request: what a good worked answer looks like")

    @model_validator(mode="after")
    def _tries_differ(self) -> Self:
        if self.tries > 1 and self.temperature == 0:
            raise ValueError(
                "tries above 1 at temperature 0 would buy the same text again; raise temperature or set tries: 1"
            )
        return self


class Synthesis(_Section):
    """How missing tail examples are written (`synthesize.write_examples`)."""

    per_call: Positive = Field(default=4, description="examples asked for in one call")
    demonstrations: Positive = Field(default=5, description="real examples shown in one call")
    votes: int = Field(
        default=1, ge=0, description="independent answers that must agree with the written one; 0 trusts it"
    )
    calls_per_row: float = Field(
        default=2.0, gt=0, description="a domain's sub-budget: synthesis calls x per_call for every row that is missing"
    )
    max_tokens: Positive = 1024
    temperature: float = Field(default=1.0, gt=0, le=2)
    instructions: str = Field(default="", description="added to the request: what an example of this task looks like")
    near_duplicate: float = Field(
        default=0.9, gt=0, le=1, description="token similarity from which a text is a near duplicate"
    )
    semantic_duplicate: float = Field(
        default=0.97, gt=0, le=1, description="cosine from which a text is a semantic duplicate"
    )


class Limits(_Section):
    """Caps; rejected and failed work counts."""

    calls: Positive | None = None
    tokens: Positive | None = None
    usd: float | None = Field(default=None, gt=0)


class Caps(Limits):
    """Caps of the whole run, of every stage and of every domain."""

    per_stage: Limits = Limits()
    per_domain: Limits = Limits()


class Lora(_Section):
    """Low-rank adapters (the paper: r 8, alpha 16, dropout 0.1)."""

    r: Positive = 8
    alpha: Positive = 16
    dropout: float = Field(default=0.1, ge=0, lt=1)
    quantize: Literal["4bit"] | None = Field(default=None, description="QLoRA; needs bitsandbytes and a GPU")


class Student(_Section):
    """The model that is trained (`student.model`)."""

    base: str = Field(
        default="small", description="small: built from the sizes below; else a hub name or a local folder"
    )
    gguf_file: str | None = Field(default=None, description="the file in `base`, where its weights are GGUF")
    layers: Positive = 2
    width: Positive = 128
    heads: Positive = 4
    vocabulary: Positive = Field(
        default=2000, description="BPE tokens, learned from the pool's train prompts and references"
    )
    context: Positive = Field(default=256, description="positions, in tokens")
    lora: Lora | None = None

    @model_validator(mode="after")
    def _shape_is_possible(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.base == "small" and self.lora is not None:
            raise ValueError("base: small is trained whole; remove `lora`, or name a pretrained base")
        return self


class Train(_Section):
    """The training loop (`student.train`)."""

    epochs: float = Field(default=3.0, gt=0)
    max_steps: Positive | None = Field(default=None, description="stops earlier, whatever `epochs` says")
    lr: float = Field(default=2e-4, gt=0)
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    batch_size: Positive = Field(default=16, description="rows")
    max_length: Positive = Field(default=1024, description="tokens; a longer row is an error before training")
    over_length: Literal["error", "drop"] = "error"
    threads: Positive | None = Field(default=None, description="CPU threads; the same number gives the same weights")


class Evaluate(_Section):
    """How a checkpoint is measured on the eval split (`student.evaluate`)."""

    max_new_tokens: Positive = 256
    batch_size: Positive = 32
    limit_per_domain: Positive | None = Field(default=None, description="first so many by id, for quick looks")


class Recipe(_Section):
    """Everything a run does. `run_digest` leaves out what cannot change its data."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    seed: int = Field(default=0, ge=0)
    budget_rows: Positive = Field(description="rows in the final snapshot, repeats included, rejected ones never")
    stages: Positive = 3
    fill: tuple[Literal["real", "synthetic", "repeat"], ...] = ("real", "synthetic")
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

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        problems = []
        if not self.fill or len(set(self.fill)) != len(self.fill):
            problems.append("fill: name each of real, synthetic, repeat at most once, and at least one")
        if "real" in self.fill and self.fill[0] != "real":
            problems.append("fill: real comes first; what is there is used before anything is written or repeated")
        if self.budget_rows < self.stages:
            problems.append(f"budget_rows {self.budget_rows} is smaller than stages {self.stages}")
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
        """sha256 of all that can change the run's data: no caps, prices, paths, URLs, nor how fast it asks."""
        body = self.model_dump(mode="json", exclude={"caps": True, "teachers": True})
        body["teacher"] = _asked(self.teacher)
        if self.teachers.named():
            body["teachers"] = {name: _asked(one) for name, one in self.teachers.named().items()}
        del body["vectors"]["exact_below"]
        for section, key in (("student", "base"), ("vectors", "model")):
            if _is_folder(body[section][key]):
                body[section][key] = Path(body[section][key]).name
        return texts.digest(body)


def load(source: str | Path | dict[str, Any]) -> Recipe:
    """A checked recipe from a YAML file or a mapping.

    Relative paths (`teacher.file`, and `student.base` or `vectors.model` where they name an existing folder)
    count from the recipe's own folder. Raises `RecipeError` with every problem, its path and a suggestion.
    """
    if isinstance(source, dict):
        return _validate(source, "recipe", folder=None)
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

    def from_there(teacher: Teacher) -> Teacher:
        return teacher.model_copy(update={"file": None if teacher.file is None else folder / teacher.file})

    others = {name: from_there(one) for name, one in recipe.teachers.named().items()}
    return recipe.model_copy(
        update={
            "teacher": from_there(recipe.teacher),
            "teachers": recipe.teachers.model_copy(update=others),
            "vectors": recipe.vectors.model_copy(update={"model": beside(recipe.vectors.model)}),
            "student": recipe.student.model_copy(update={"base": beside(recipe.student.base)}),
        }
    )


def _asked(teacher: Teacher) -> dict[str, Any]:
    """What of a teacher can change the data; a batch answers as single calls do."""
    unsaid = {"base_url", "api_key_env", "file", "price", "concurrency", "rpm", "tpm", "timeout_s", "tries"}
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
