"""A recipe for a file of rows, with a comment on every choice."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent

import yaml

from balkit.recipe import Kind, Price, Recipe, load
from balkit.starting.looking import Facts
from balkit.teacher.prices import Rate, price_of
from balkit.teacher.providers import KEY_NAMES, LOCAL, provider_of

_PER_DOMAIN = 20  # rows of the budget that is suggested
_FEWEST, _MOST = 60, 2_000
_CALLS_PER_ROW = 4  # of the cap
_CALL_TOKENS = (1_500, 600)  # in and out, generously
_CHARACTERS = 3  # of a token of the small student
_PLAIN_NAMES = ("train", "training", "data", "rows", "all", "examples")

#: What YAML does not read as a text.
_NO_NAMES = ("true", "false", "yes", "no", "on", "off", "null", "y", "n")

_SPLITS = {"dev": "dev", "validation": "dev", "val": "dev", "eval": "eval", "test": "eval"}

_RATIONALE = {
    "label": "Say in one or two sentences which words of the task decide its label.",
    "choice": "Weigh the choices against each other, and say why the others are wrong.",
    "number": "Calculate step by step, each step on its own line.",
    "math": "Derive the answer step by step, each step on its own line.",
    "text": "Name what in the task leads to the answer, in a few sentences.",
}


@dataclass(frozen=True)
class Wishes:
    """What the recipe is to say. `price` is in the words of a recipe: `free`, or dollars per million tokens."""

    file: str
    columns: dict[str, str | None]
    facts: Facts
    name: str
    pool: str
    out: Path
    teacher: str
    base_url: str | None
    price: str | tuple[float, float] | None
    student: str
    budget: int
    stages: int
    kind: Kind


def name_of(file: str) -> str:
    """What a recipe for a file is called: as the file, or as its folder where the file is called train or data."""
    path = Path(file)
    stem = path.name.partition(".")[0]
    if stem.lower() in _PLAIN_NAMES and (parent := path.absolute().parent.name):
        stem = parent
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_") or "mine"


def budget_for(facts: Facts) -> int:
    """Rows that are worth a try: twenty a domain, no fewer than 60, no more than 2,000."""
    return max(_FEWEST, min(_MOST, _PER_DOMAIN * max(1, len(facts.domains))))


def commands(wishes: Wishes) -> list[str]:
    """What follows, in order, as a person types it; files of the other splits are added where they lie beside."""
    columns = [f"--{part} {_in_shell(column)}" for part, column in wishes.columns.items() if column]
    whole = " ".join(columns if wishes.columns["domain"] else [*columns, "--domain-is all"])
    pool, out = _in_shell(wishes.pool), _in_shell(str(wishes.out))
    added = [(wishes.file, ""), *((str(file), f" --split {split}") for file, split in _beside(Path(wishes.file)))]
    return [
        *(f"balkit add {pool} {_in_shell(file)} {whole}{split}" for file, split in added),
        *([] if wishes.columns["domain"] else [f"balkit discover {pool} --name topics"]),
        f"balkit plan {pool} {out}",
        f"balkit run {pool} {out}",
    ]


def _beside(file: Path) -> list[tuple[Path, str]]:
    """Files of the splits dev and eval that lie beside a file of the split train, by their names."""
    stem, dot, rest = file.name.partition(".")
    if stem.lower() not in ("train", "training"):
        return []
    there = [(file.with_name(f"{name}{dot}{rest}"), split) for name, split in _SPLITS.items()]
    found = {split: one for one, split in reversed(there) if one.is_file()}
    return [(found[split], split) for split in ("dev", "eval") if split in found]


def _in_shell(text: str) -> str:
    """A word of a command; one with line breaks as bash and zsh read it."""
    if "\n" not in text:
        return shlex.quote(text)
    return "$'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


def write(wishes: Wishes) -> tuple[str, Recipe]:
    """The recipe's text, and what it says when it is read. Raises `RecipeError` for wishes that do not fit."""
    sections = [_head(wishes), _rows(wishes), _teacher(wishes), _student(wishes)]
    text = "".join(sections)
    return text, load(yaml.safe_load(text))


def _head(wishes: Wishes) -> str:
    facts = wishes.facts
    counted = f"{facts.rows:,}{' or more' if facts.more else ''} rows in {len(facts.domains) or 'no'} domains"
    lines = indent("\n".join(commands(wishes)), "#   ")
    return (
        f"# {wishes.name}: made by `balkit init` from {_shown(wishes.file)} ({counted}). What comes next:\n{lines}\n"
        "# Rows to measure the student on are added with --split eval; they are never trained on.\n"
        "# `balkit recipes schema` has every key.\n"
    )


def _rows(wishes: Wishes) -> str:
    facts = wishes.facts
    named = "" if wishes.columns["domain"] else "domain_set: topics # made by `balkit discover`\n"
    domains = list(facts.domains.items())
    ends = [f"{_shown(domain)} has {count:,}" for domain, count in (*domains[:1], *domains[1:][-1:])]
    labels = facts.labels if wishes.kind == "label" else ()
    listed = f"  labels: {json.dumps(labels, ensure_ascii=False)}\n" if labels else ""
    own = wishes.kind == "label" and not labels
    kinds = "the labels are the domains' names" if own else "label, choice, number, math or text"
    return (
        f"name: {_quoted(wishes.name)}\n"
        "seed: 0\n"
        f"budget_rows: {wishes.budget} # {'; '.join(['in the final training set', *ends])}\n"
        f"stages: {wishes.stages} # each trains a student from the start, by whom the next one's rows are chosen\n"
        "fill: [real, synthetic] # what a small domain lacks the teacher writes; add `repeat` to repeat rows instead\n"
        f"{named}"
        "balance:\n"
        "  policy: adaptive # natural shares first, even ones last; `uniform` or another: docs/balance.md\n"
        "select:\n"
        "  first: facility_location # stage 1 has no student yet: rows that stand for the others\n"
        "  then: ifd # later: rows that the student finds hard to answer; docs/selection.md has the others\n"
        "vectors:\n"
        "  encoder: hashing # needs no download; sentence-transformers sees meanings (docs/vectors.md)\n"
        "answers:\n"
        f"  kind: {wishes.kind} # {kinds}\n"
        f"{listed}"
    )


def _teacher(wishes: Wishes) -> str:
    rate = rate_of(wishes)
    key = key_of(wishes.teacher) if wishes.base_url is None else None
    lines = [
        "teacher:",
        "  transport: litellm # batch: at half the price, within a day",
        f"  model: {_quoted(wishes.teacher)}",
    ]
    if wishes.base_url is not None:
        lines.append(f"  base_url: {_quoted(wishes.base_url)}")
    if key is not None:
        lines.append(f"  api_key_env: {key} # the variable that holds the key, never the key")
    if wishes.price == "free":
        lines.append("  price: free # a server of your own")
    elif isinstance(wishes.price, tuple):
        into, out = wishes.price
        lines.append(f"  price: {{input_usd_per_mtok: {into:g}, output_usd_per_mtok: {out:g}}}")
    else:
        dollars = f"${rate.input_picousd / 1e6:g} in and ${rate.output_picousd / 1e6:g} out"
        lines.append(f"  # price: balkit knows {dollars} per million tokens; give yours where it differs")
    calls = _CALLS_PER_ROW * wishes.budget
    usd = max(0.5, round(calls * rate.cost_microusd(*_CALL_TOKENS) / 1e6, 1))
    lines += [
        "rationale: # the worked answers that the student learns from",
        f"  instructions: {_quoted(_RATIONALE[wishes.kind])}",
        "synthesis: # the rows that the teacher writes; say here what a row of yours looks like, if you know more",
        *(["  votes: 0 # a second answer in other words would refuse a right row"] if wishes.kind == "text" else []),
        '  instructions: "Write tasks like those shown: as long, in the same words and form, about the same domain."',
        "caps: # hard: no call is sent that could pass one; raise them and run again to go on",
        f"  calls: {calls}",
        *([] if wishes.price == "free" else [f"  usd: {usd:g}"]),
    ]
    return "\n".join(lines) + "\n"


def _student(wishes: Wishes) -> str:
    whole = "over_length: drop # rows beyond max_length are left out of training, not cut"
    if wishes.student == "small":
        tokens = wishes.facts.typical / _CHARACTERS + 256
        context = next(size for size in (256, 512, 1024, 2048) if size >= tokens or size == 2048)
        return (
            "student:\n"
            "  base: small # a tiny transformer, to try things; then a model folder or hub name, with lora: {r: 8}\n"
            f"  context: {context}\n"
            f"train:\n  epochs: 3\n  lr: 1.0e-3\n  max_length: {context} # tokens\n  {whole}\n"
            "evaluate:\n  max_new_tokens: 128\n  limit_per_domain: 20 # eval rows a domain, for quick looks\n"
        )
    return (
        "student:\n"
        f"  base: {_quoted(wishes.student)}\n"
        "  lora: {r: 8, alpha: 16, dropout: 0.1} # leave out to train all weights\n"
        f"train:\n  epochs: 3\n  lr: 2.0e-4\n  max_length: 1024 # tokens\n  {whole}\n"
        "evaluate:\n  max_new_tokens: 256\n  limit_per_domain: 50 # eval rows a domain, for quick looks\n"
    )


def rate_of(wishes: Wishes) -> Rate:
    """What the teacher costs. Raises `PriceUnknown` where neither the wishes nor balkit's table say."""
    if isinstance(wishes.price, tuple):
        return price_of(wishes.teacher, Price(input_usd_per_mtok=wishes.price[0], output_usd_per_mtok=wishes.price[1]))
    return price_of(wishes.teacher, "free" if wishes.price == "free" else None)


def key_of(model: str) -> str | None:
    """The environment variable with the key for a model; None where the provider is not known."""
    return KEY_NAMES.get(provider_of(model))


def is_local(model: str) -> bool:
    """Whether a model runs on a server of the user's own."""
    return provider_of(model) in LOCAL


def _quoted(text: str) -> str:
    """A text as YAML has it; in JSON's quotes unless it is plainly a name."""
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*", text) and text.lower() not in _NO_NAMES
    return text if plain else json.dumps(text, ensure_ascii=False)


def _shown(text: str) -> str:
    """In a comment: one line."""
    return " ".join(text.split())[:80]
