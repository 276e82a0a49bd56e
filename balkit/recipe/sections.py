"""The sections of a recipe: their keys, defaults and what each of them refuses."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from balkit.own import SUFFIX

Kind = Literal["label", "choice", "number", "math", "text"]
Method = Literal[
    "random",
    "stratified",
    "k_center",
    "facility_location",
    "medoids",
    "ifd",
    "loss",
    "uncertainty",
    "ifd_coverage",
]
#: The score of a student that a method goes by, for those that need one.
SCORES_OF: Mapping[str, str] = {"ifd": "ifd", "loss": "loss", "uncertainty": "entropy", "ifd_coverage": "ifd"}
#: A file with a method of one's own (`selection.Way`).
OwnMethod = Annotated[str, AfterValidator(lambda name: _own_file(name))]
Positive = Annotated[int, Field(ge=1)]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]

_VARIABLE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")


def _own_file(name: str) -> str:
    if not name.endswith(SUFFIX):
        raise ValueError("the path of a Python file with a method of your own (docs/extending.md)")
    return name


class Section(BaseModel):
    """Unknown keys are errors; nothing in it changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _yes_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads yes, no, on and off as booleans, which pydantic would take for 1 and 0."""
        if isinstance(value, bool) and info.field_name and cls.model_fields[info.field_name].annotation is not bool:
            raise ValueError("yes and no say nothing here")
        return value


class Balance(Section):
    """How a stage's rows are shared out among domains (`balance.quotas`)."""

    policy: Literal[
        "natural",
        "uniform",
        "adaptive",
        "adaptive_release",
        "temperature",
        "effective_number",
        "weights",
        "feedback",
    ] = Field(default="adaptive", description="docs/balance.md has their formulas")
    exponent: float = Field(
        default=0.5, ge=0, le=1, description="policy temperature: share ~ n_d ** exponent; 1 is natural, 0 is uniform"
    )
    beta: float = Field(
        default=0.999,
        ge=0,
        lt=1,
        description="policy effective_number: share ~ n_d (1 - beta) / (1 - beta ** n_d); 0 is natural, near 1 uniform",
    )
    weights: dict[str, float] = Field(
        default={}, description="policy weights: share ~ weight; a domain that is not named has 1, and 0 gets nothing"
    )
    floor: float = Field(
        default=0.5, ge=0, le=1, description="policy feedback: the part of its adaptive share that a domain keeps"
    )
    shrinkage: Positive = Field(
        default=10, description="policy feedback: dev rows from which on a domain's own count more than those of all"
    )

    within: str | None = Field(
        default=None,
        description="a set of `balkit discover` by whose clusters a domain's quota is shared out inside the domain",
    )

    @field_validator("weights", mode="before")
    @classmethod
    def _weights_are_numbers(cls, weights: Any) -> Any:
        for domain, weight in weights.items() if isinstance(weights, dict) else ():
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
                raise ValueError(f"the weight of {domain!r} should be a number from 0 on, not {weight!r}")
        return weights

    @model_validator(mode="after")
    def _weights_are_given(self) -> Self:
        if self.policy == "weights" and not self.weights:
            raise ValueError("policy: weights needs `weights`, a number for each domain that shall not have 1")
        return self


class Select(Section):
    """Which real examples represent a domain (`selection.select`; docs/selection.md)."""

    first: Method | OwnMethod = Field(default="facility_location", description="stage 1, where no student exists yet")
    then: Method | OwnMethod = Field(default="ifd", description="the later stages")
    response: Literal["student", "reference"] = Field(
        default="student",
        description="scores are of the student's own answer (BalDistill) or of the reference answer (Cherry_LLM)",
    )
    scorer: str | None = Field(
        default=None,
        description="a small model that scores instead of the student (Superfiltering): a hub name or a local folder",
    )
    max_ifd: float = Field(
        default=1.0, gt=0, description="ifd, ifd_coverage: an example at or above is dropped as misaligned"
    )
    quality_weight: float = Field(
        default=0.5, ge=0, le=1, description="ifd_coverage: what IFD counts; 0 is facility_location, 1 is ifd"
    )
    candidates: Positive | Literal["all"] = Field(
        default=4, description="how many examples are scored, as a multiple of the domain's quota"
    )
    strata: Positive = Field(default=20, description="stratified: clusters a domain")

    @model_validator(mode="after")
    def _scorer_reads_references(self) -> Self:
        if self.scorer is not None and self.response == "student":
            raise ValueError(
                f"scorer: {self.scorer} would score answers of its own, and no student's; set response: reference"
            )
        return self

    @model_validator(mode="after")
    def _stage_one_has_no_student(self) -> Self:
        if self.first in SCORES_OF:
            raise ValueError(
                f"first: {self.first} needs a student's scores, and stage 1 has none; use facility_location, or "
                "another of random, stratified, k_center, medoids"
            )
        return self


class Vectors(Section):
    """How texts become vectors (`vectors.make_encoder`; docs/vectors.md)."""

    encoder: Literal["hashing", "static", "sentence-transformers"] = Field(
        default="hashing",
        description="hashing: spelling, needs no model; static: a model2vec table; sentence-transformers: a model",
    )
    model: str | None = Field(default=None, description="static, sentence-transformers: a hub name or a local folder")
    dim: Positive = Field(default=512, description="hashing: dimensions")
    backend: Literal["torch", "onnx", "openvino"] = Field(
        default="torch", description="sentence-transformers: what runs the model"
    )
    precision: Literal["full", "half"] = Field(
        default="full", description="sentence-transformers: half is float16, on a GPU only"
    )

    @model_validator(mode="after")
    def _model_is_named(self) -> Self:
        if self.encoder != "hashing" and not self.model:
            raise ValueError(f"encoder: {self.encoder} needs `model`, a hub name or a local folder")
        return self

    @model_validator(mode="after")
    def _backend_has_a_model(self) -> Self:
        if self.encoder != "sentence-transformers" and (self.backend != "torch" or self.precision != "full"):
            raise ValueError(f"backend and precision are for encoder: sentence-transformers, not {self.encoder}")
        if self.backend != "torch" and self.precision == "half":
            raise ValueError(f"precision: half is for backend: torch, not {self.backend}")
        return self


class Answers(Section):
    """What a final answer is, and so how it is parsed and compared (`answers`)."""

    kind: Kind = Field(default="text", description="a label, a letter, a number, an expression, or a short text")
    labels: tuple[str, ...] = Field(default=(), description="kind label: the label set; empty means the domains' names")


class Price(Section):
    """US dollars per million tokens."""

    input_usd_per_mtok: float = Field(ge=0, description="of what the teacher reads")
    output_usd_per_mtok: float = Field(ge=0, description="of what it writes, reasoning included")


class Teacher(Section):
    """Who is asked, and how (`teacher`)."""

    name: str = Field(default="teacher", description="the endpoint's name, part of every call's key")
    transport: Literal["litellm", "batch", "recorded", "offline"] = Field(
        default="litellm",
        description="litellm: any model or server that LiteLLM knows; batch: a provider's batch API, half the price, "
        "within a day; recorded: replies of a file; offline: the quickstart's rules",
    )
    model: str = Field(
        default="", description="litellm: a model string such as openai/gpt-4o-mini or ollama/llama3; batch: openai/..."
    )
    base_url: str | None = Field(
        default=None, description="litellm, batch: of a server of your own; no passwords in it"
    )
    api_key_env: str | tuple[str, ...] | None = Field(
        default=None, description="the environment variable that holds the key; of several, the keys are used in turn"
    )
    headers: dict[HeaderName, str] = Field(
        default_factory=dict,
        description="litellm, batch: sent with every request; the value `$NAME` is read from that environment variable",
    )
    file: Path | None = Field(
        default=None, description="recorded: a JSONL file of earlier replies, relative to the recipe"
    )
    price: Price | Literal["free"] | None = Field(default=None, description="overrides the shipped table")
    concurrency: Positive = Field(default=8, description="litellm: requests in flight at most")
    rpm: Positive | None = Field(default=None, description="requests a minute, never passed; none: as 429s teach")
    tpm: Positive | None = Field(
        default=None, description="tokens a minute, never passed: of each request its estimated prompt and max_tokens"
    )
    timeout_s: float = Field(default=120.0, gt=0, description="seconds that one attempt may take")
    tries: Positive = Field(default=4, description="attempts for a transient failure before the run pauses")

    @field_validator("base_url")
    @classmethod
    def _no_password(cls, url: str | None) -> str | None:
        """A recipe is kept with every snapshot; the message does not show the value either."""
        if url is not None and "@" in url.partition("://")[2].partition("/")[0]:
            raise ValueError("holds a user's name or password; send them by `headers`, as $NAME of a variable")
        return url

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

    def header_variables(self) -> dict[str, str]:
        """The environment variable of each header that names one."""
        found = {name: _VARIABLE.fullmatch(value) for name, value in self.headers.items()}
        return {name: match[1] for name, match in found.items() if match}

    @field_serializer("headers")
    def _no_values(self, headers: Mapping[str, str]) -> dict[str, str]:
        """A value that is written out may be a secret, and a dumped recipe is kept: a variable's name stands for it."""
        named = self.header_variables()
        return {name: f"${named.get(name) or name.upper().replace('-', '_')}" for name in headers}


class Teachers(Section):
    """Who is asked instead of `teacher`, by purpose. Each has a `name` of its own.

    With `rationale_first` or `vote_first` a cheap one answers first, and only what it fails at is asked of the other:
    an example's first try is the cheap one's; votes of the other count where the cheap one's do not agree.
    """

    synthesis: Teacher | None = Field(default=None, description="writes examples")
    rationale: Teacher | None = Field(default=None, description="works out answers")
    rationale_first: Teacher | None = Field(default=None, description="gets the first try at an example")
    vote: Teacher | None = Field(default=None, description="answers written examples a second time")
    vote_first: Teacher | None = Field(default=None, description="votes first; the other where these do not agree")

    def named(self) -> dict[str, Teacher]:
        """Those that are given."""
        return {name: getattr(self, name) for name in type(self).model_fields if getattr(self, name) is not None}


class Rationale(Section):
    """How a worked answer is asked for (`synthesize.rationales`)."""

    hint: bool = Field(
        default=True,
        description="show the teacher the reference answer (the paper does); without it, its answer must agree",
    )
    per_example: Positive = Field(
        default=1, description="different worked answers of an example, each of them a row of the budget"
    )
    tries: Positive = Field(
        default=2, description="samples an example may use up for each worked answer before it is rejected"
    )
    votes: int = Field(
        default=0,
        ge=0,
        description="for an example without a reference: answers asked for, of which more than half must agree",
    )
    max_tokens: Positive = Field(default=512, description="of one reply, reasoning included")
    temperature: float = Field(default=0.7, ge=0, le=2, description="of worked answers, and of votes on written rows")
    instructions: str = Field(default="", description="added to the request: what a good worked answer looks like")

    @model_validator(mode="after")
    def _tries_differ(self) -> Self:
        again = [name for name in ("tries", "per_example", "votes") if getattr(self, name) > 1]
        if again and self.temperature == 0:
            raise ValueError(
                f"{again[0]} above 1 at temperature 0 would buy the same text again; raise temperature or set "
                f"{again[0]}: {'0' if again[0] == 'votes' else '1'}"
            )
        return self

    @model_validator(mode="after")
    def _votes_can_decide(self) -> Self:
        if self.votes == 1:
            raise ValueError("votes: 1 is a vote that nothing agrees with; set 2 or more, or 0 to take any whole text")
        if 0 < self.votes < self.per_example:
            raise ValueError(f"votes {self.votes} cannot bring per_example {self.per_example} worked answers; raise it")
        return self


class Synthesis(Section):
    """How missing tail examples are written (`synthesize.write_examples`)."""

    per_call: Positive = Field(default=4, description="examples asked for in one call")
    demonstrations: Positive = Field(default=5, description="real examples shown in one call")
    votes: int = Field(
        default=1, ge=0, description="independent answers that must agree with the written one; 0 trusts it"
    )
    verify: bool = Field(
        default=True,
        description="false: kept as written, unless empty, exact duplicates or in eval (BalDistill checks no more)",
    )
    share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="of every domain's rows that are written though real ones are left: other words for what it knows",
    )
    calls_per_row: float = Field(
        default=2.0, gt=0, description="a domain's sub-budget: synthesis calls x per_call for every row that is missing"
    )
    max_tokens: Positive = Field(default=1024, description="of one reply, reasoning included")
    temperature: float = Field(default=1.0, gt=0, le=2, description="of written examples")
    instructions: str = Field(default="", description="added to the request: what an example of this task looks like")
    near_duplicate: float = Field(
        default=0.9, gt=0, le=1, description="token similarity from which a text is a near duplicate"
    )
    semantic_duplicate: float = Field(
        default=0.97, gt=0, le=1, description="cosine from which a text is a semantic duplicate"
    )
    semantic_eval: float = Field(
        default=0.95,
        gt=0,
        le=1,
        description="cosine to an eval text from which a text counts as a reworded copy of it",
    )
    min_chars: Positive | None = Field(
        default=None, description="of prompt and answer; none: half the domain's shortest real example"
    )
    max_chars: Positive | None = Field(
        default=None, description="of prompt and answer; none: twice the domain's longest real example"
    )
    languages: tuple[str, ...] = Field(
        default=(), description="ISO 639 codes that a text may be in; none: those of the domain's real examples"
    )

    attributes: dict[str, tuple[str, ...]] = Field(
        default={}, description="name: values; every call asks for one value of each, all combinations in turn"
    )
    rationale: bool = Field(
        default=False, description="have a worked answer come with each example, which must declare the same answer"
    )
    max_calls_per_domain: Positive | None = Field(
        default=None, description="synthesis calls of a domain in a whole run, beside calls_per_row"
    )

    @field_validator("attributes")
    @classmethod
    def _attributes_vary(cls, attributes: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for name, values in attributes.items():
            if not name.strip() or not values or len(set(values)) < len(values) or not all(map(str.strip, values)):
                raise ValueError(f"{name!r} should be a name with a list of different texts, not {list(values)}")
        return attributes

    @model_validator(mode="after")
    def _lengths_are_possible(self) -> Self:
        if self.min_chars is not None and self.max_chars is not None and self.min_chars > self.max_chars:
            raise ValueError(f"min_chars {self.min_chars} is above max_chars {self.max_chars}")
        return self


class Limits(Section):
    """Caps; rejected and failed work counts."""

    calls: Positive | None = Field(default=None, description="attempts that are or may be charged")
    tokens: Positive | None = Field(default=None, description="read and written")
    usd: float | None = Field(default=None, gt=0, description="US dollars")


class Caps(Limits):
    """Caps of the whole run, of every stage and of every domain."""

    per_stage: Limits = Field(default=Limits(), description="of each stage")
    per_domain: Limits = Field(default=Limits(), description="of each domain, over all stages")


class Lora(Section):
    """Low-rank adapters (the paper: r 8, alpha 16, dropout 0.1)."""

    r: Positive = Field(default=8, description="rank")
    alpha: Positive = Field(default=16, description="the adapters' output is scaled by alpha / r")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="on the adapters' input, in training")
    quantize: Literal["4bit"] | None = Field(default=None, description="QLoRA; needs bitsandbytes and a GPU")


class Student(Section):
    """The model that is trained (`student.model`)."""

    base: str = Field(
        default="small", description="small: built from the sizes below; else a hub name or a local folder"
    )
    gguf_file: str | None = Field(default=None, description="the file in `base`, where its weights are GGUF")
    layers: Positive = Field(default=2, description="base small: transformer layers")
    width: Positive = Field(default=128, description="base small: of the hidden state, a multiple of heads")
    heads: Positive = Field(default=4, description="base small: attention heads")
    vocabulary: Positive = Field(
        default=2000, description="base small: BPE tokens, learned from the pool's train prompts and references"
    )
    context: Positive = Field(default=256, description="base small: positions, in tokens")
    lora: Lora | None = None

    @model_validator(mode="after")
    def _shape_is_possible(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.base == "small" and self.lora is not None:
            raise ValueError("base: small is trained whole; remove `lora`, or name a pretrained base")
        return self


class EarlyStopping(Section):
    """When training ends before its last step, by the loss on the dev split; the weights that did best are kept."""

    patience: Positive = Field(default=2, description="looks at dev that may pass without a lower loss")
    every_steps: Positive | None = Field(default=None, description="how often dev is looked at; each epoch if null")


class Train(Section):
    """The training loop (`student.train`)."""

    epochs: float = Field(default=3.0, gt=0, description="passes over the snapshot's rows")
    max_steps: Positive | None = Field(default=None, description="stops earlier, whatever `epochs` says")
    lr: float = Field(default=2e-4, gt=0, description="learning rate of AdamW, at its highest")
    schedule: Literal["constant", "cosine", "linear"] = Field(
        default="constant", description="of the learning rate after the warm-up; cosine and linear end at 0"
    )
    warmup_steps: int = Field(default=0, ge=0, description="steps in which the learning rate rises from 0")
    weight_decay: float = Field(default=0.0, ge=0, description="not of norms and biases")
    batch_size: Positive = Field(default=16, description="rows of a step")
    max_length: Positive = Field(default=1024, description="tokens; a longer row is an error before training")
    over_length: Literal["error", "drop"] = Field(
        default="error", description="drop leaves longer rows out and says so"
    )
    threads: Positive | None = Field(default=None, description="CPU threads; the same number gives the same weights")
    pass_tokens: Positive = Field(
        default=16_384,
        description="padded tokens that go through the model at once; a step's passes add up to the same gradient, so "
        "less only takes less memory",
    )
    precision: Literal["auto", "bf16", "float32"] = Field(
        default="auto", description="of the forward pass; auto is bf16 on a GPU and float32 on a CPU"
    )
    gradient_checkpointing: bool = Field(default=False, description="a third more time for much less memory")
    row_weights: Literal["none", "balanced"] = Field(
        default="none", description="balanced: each domain's tokens count the same in all, by weights in the loss"
    )
    early_stopping: EarlyStopping | None = None

    def settings(self) -> dict[str, Any]:
        """All that decides the weights; what came later is left out where it has its default, so that names stay."""
        body = self.model_dump(mode="json")
        later = ("pass_tokens", "precision", "gradient_checkpointing", "row_weights", "early_stopping")
        return {
            key: value
            for key, value in body.items()
            if key not in later or value != type(self).model_fields[key].default
        }


class Evaluate(Section):
    """How a checkpoint is measured on the eval split (`student.evaluate`)."""

    max_new_tokens: Positive = Field(default=256, description="of an answer")
    batch_size: Positive = Field(default=32, description="rows that are answered at once")
    limit_per_domain: Positive | None = Field(default=None, description="first so many by id, for quick looks")
