"""The text of a data set's card: what it is, how it was balanced, whose texts these are, costs, limits, how to repeat.

What nobody stated is called "not stated". Of the recipe folders and addresses are left out; everything else is in.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from balkit import recipe as recipes
from balkit.exports.files import yaml_text
from balkit.exports.material import Material
from balkit.exports.rows import quantiles
from balkit.recipe import Card, Recipe, Teacher

NOT_STATED = "not stated"
FIGURE, RECIPE = "balance.png", "recipe.yaml"

_SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M", 10_000_000: "1M<n<10M"}
_LONGEST_CELL = 120  # characters

_COLUMNS = """\
| column | meaning |
| --- | --- |
| `messages` | the conversation; the last message is what the student learns to write |
| `rationale`, `answer`, `reference` | the worked answer, the final answer in it, the answer on file or null |
| `domain`, `origin`, `stage` | the class that is balanced; `source` or `synthetic`; the round of the row |
| `teacher` | who wrote the rationale |
| `row_id`, `example_id`, `rationale_id`, `copy`, `snapshot` | lineage in the pool; `copy` counts repeats from 0 |
| `n_tokens` | length of all messages, by {counter} |

```python
from datasets import load_dataset

rows = load_dataset("path/to/this/folder", split="train")  # or the name you publish it under
```"""


def stated(material: Material) -> Card:
    """The terms that count: those of the options, else those of the snapshot's recipe."""
    making = material.background.making
    own = making.recipe.card if making and making.recipe else Card()
    found = material.options.card or own
    return found.model_copy(update={"license": material.options.license or found.license})


def unstated(material: Material) -> list[str]:
    """What a reader of the card has to ask for, as parts of a sentence; empty when all is stated."""
    card = stated(material)
    silent = [domain for domain in _sourced(material) if card.source_license(domain) is None]
    said = [] if card.license else ["the license of the data set"]
    if silent:
        shown = ", ".join(repr(domain) for domain in silent[:3]) + (", ..." if len(silent) > 3 else "")
        said.append(f"the license of the sources of {len(silent)} of {len(_sourced(material))} domains ({shown})")
    said += [f"the terms of {model}" for model in _teachers(material) if card.terms(model) is None]
    return said + ([] if card.language else ["the language"])


def domains(material: Material) -> pl.DataFrame:
    """By domain of the train part: domain, quota (null where unknown), rows, real, synthetic, repeated, rejected."""
    making, first = material.background.making, pl.col("copy") == 0
    counted = material.train.group_by("domain").agg(
        rows=pl.len().cast(pl.Int64),
        real=(first & (pl.col("origin") == "source")).sum().cast(pl.Int64),
        synthetic=(first & (pl.col("origin") == "synthetic")).sum().cast(pl.Int64),
        repeated=(~first).sum().cast(pl.Int64),
    )
    if making is None:
        return counted.with_columns(quota=pl.lit(None, pl.Int64), rejected=pl.lit(0, pl.Int64)).sort("domain")
    rejected = making.rejected.group_by("domain").agg(rejected=pl.col("rows").sum())
    quotas = making.quotas.filter(pl.col("quota") > 0)
    joined = counted.join(quotas, on="domain", how="full", coalesce=True)
    joined = joined.join(rejected, on="domain", how="left")
    return joined.with_columns(pl.col("rows", "real", "synthetic", "repeated", "rejected").fill_null(0)).sort("domain")


def text(material: Material, *, figure: bool) -> str:
    """README.md: the front matter that the hub reads, and the card. `figure`: one lies beside it."""
    table = domains(material)
    parts = [
        f"---\n{yaml_text(_front(material))}---\n# {_cell(material.snapshot_id)}",
        _what(material, table),
        _balance(material, table, figure=figure),
        _teaching(material),
        f"## Columns\n\n{_COLUMNS.format(counter=_cell(_counter(material)))}",
        _costs(material),
        "## Known limits\n\n" + "\n".join(f"- {line}" for line in _limits(material, table)),
        _again(material),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def published(material: Material) -> Recipe | None:
    """The recipe without addresses, with names instead of paths, and with the terms that count; its run is the same."""
    making = material.background.making
    if making is None or making.recipe is None:
        return None
    recipe = making.recipe
    others = {name: _unplaced(one) for name, one in recipe.teachers.named().items()}
    return recipe.model_copy(
        update={
            "teacher": _unplaced(recipe.teacher),
            "teachers": recipe.teachers.model_copy(update=others),
            "vectors": recipe.vectors.model_copy(update={"model": _name(recipe.vectors.model)}),
            "select": recipe.select.model_copy(
                update={key: _name(getattr(recipe.select, key)) for key in ("first", "then", "scorer")}
            ),
            "student": recipe.student.model_copy(update={"base": _name(recipe.student.base)}),
            "card": stated(material),
        }
    )


def _front(material: Material) -> dict[str, Any]:
    card = stated(material)
    files = [{"split": part, "path": f"data/{part}-*.parquet"} for part in material.parts]
    made = any((rows["origin"] == "synthetic").any() for rows in material.parts.values())
    front = {
        "pretty_name": material.snapshot_id,
        "language": list(card.language),
        "license": card.license or "unknown",
        "task_categories": ["text-generation"],
        "tags": ["balkit", "distillation"] + ["synthetic"] * made,
        "size_categories": [_size(sum(part.height for part in material.parts.values()))],
        "configs": [{"config_name": "default", "data_files": files}],
    }
    return {key: value for key, value in front.items() if value}


def _what(material: Material, table: pl.DataFrame) -> str:
    card, by = stated(material), _cell(_counter(material))
    p50, p95, most = quantiles(material.train["n_tokens"].to_list()).values()
    held_out = f", {material.validation.height} of validation" if material.validation.height else ""
    terms = f"License: {_cell(card.license)}." if card.license else f"License of the data set: {NOT_STATED}."
    missing = "; ".join(_cell(line) for line in unstated(material))
    warning = f"\n\n**Not stated by whoever exported this: {missing}.** Ask them before you use it." if missing else ""
    return (
        f"A training set for distilling a teacher model into a student: {material.train.height} rows to train on"
        f"{held_out}, balanced over {table.height} domains by balkit. {terms} Lengths in the train part, by {by}: "
        f"p50 {p50}, p95 {p95}, max {most} tokens.{warning}"
    )


def _balance(material: Material, table: pl.DataFrame, *, figure: bool) -> str:
    card, making, sourced = stated(material), material.background.making, set(_sourced(material))
    policy = f" by the policy `{making.recipe.balance.policy}`" if making and making.recipe else ""
    head = ["domain", "quota", "rows", "real", "synthetic", "repeated", "rejected", "license of the sources"]
    body = [
        [row["domain"], *("-" if row[name] is None else str(row[name]) for name in head[1:7]),
         (card.source_license(row["domain"]) or NOT_STATED) if row["domain"] in sourced else "-"]
        for row in table.iter_rows(named=True)
    ]  # fmt: skip
    total = ["all", *("-" if table[name].null_count() else str(table[name].sum()) for name in head[1:7]), ""]
    said = (
        f"Rows of the train part by domain. `quota` is what was asked for{policy}; `real` rows came from the sources, "
        "`synthetic` ones a teacher wrote, `repeated` ones stand here once more; `rejected` counts what a check turned "
        "away on the way, written examples and worked answers alike."
    )
    if making is None:
        said += " Quotas and rejections are not known: the export was given no pool."
    image = f"\n\n![rows by domain, by origin and beside their quotas]({FIGURE})" if figure else ""
    return f"## How it was balanced\n\n{said}{image}\n\n{_table(head, [*body, total])}"


def _teaching(material: Material) -> str:
    card = stated(material)
    rows = [[model, str(worked), wrote, card.terms(model) or NOT_STATED] for model, worked, wrote in _roles(material)]
    return "## Teachers and their terms\n\n" + _table(["teacher", "worked answers here", "asked for", "terms"], rows)


def _costs(material: Material) -> str:
    making = material.background.making
    if making is None:
        return ""
    head = ["purpose", "teacher", "calls", "bought before", "input tokens", "output tokens", "US dollars"]
    rows = [
        [*map(str, row[:6]), f"{row[6]:.6f}"]
        for row in making.spent.select(
            "purpose", "model", "calls", "cached", "input_tokens", "output_tokens", "cost_usd"
        ).iter_rows()
    ]
    total = f"{making.spent['cost_usd'].sum():.6f}"
    said = "What the run was charged until this snapshot, failed calls included, at the prices it was given."
    if not rows:
        return "## Costs\n\nNo call to a teacher is on record for this run."
    return f"## Costs\n\n{said}\n\n{_table(head, [*rows, ['all', '', '', '', '', '', total]])}"


def _limits(material: Material, table: pl.DataFrame) -> Iterator[str]:
    making, rows = material.background.making, material.train
    recipe = making.recipe if making else None
    left_out = [f"{n} of {part} ({why})" for part, counts in material.dropped.items() for why, n in counts.items()]
    yield f"Rows of the snapshot left out of this export: {', '.join(left_out) or 'none'}."
    made, again = (int((rows[name] != usual).sum()) for name, usual in (("origin", "source"), ("copy", 0)))
    yield f"{_share(made, rows.height)} were written by a teacher, and {_share(again, rows.height)} are repeats."
    if made and recipe:
        votes = recipe.synthesis.votes
        yield f"Independent answers of a teacher that had to agree with the one of a written row: {votes or 'none'}."
    short = table.filter(pl.col("rows") < pl.col("quota"))
    if short.height:
        yield f"{short.height} of {table.height} domains have fewer rows than their quota."
    yield "Of a worked answer only the final answer was checked; nobody verified the steps that lead to it."
    if recipe and recipe.rationale.hint:
        yield "The teacher was shown the answer on file, so that its agreement with it is no evidence."
    bare = int((~rows["referenced"]).sum())
    if bare:
        voted = recipe.rationale.votes if recipe else 0
        rests = f"a majority of {voted} answers" if voted else "one answer of the teacher, unverified"
        yield f"{_share(bare, rows.height)} have no answer on file: what they teach rests on {rests}."
    if making is not None and not making.eval_rows:
        yield "The pool has no eval split, so that nothing was checked for leaks into one."
    elif making is not None:
        yield (
            f"No prompt equals one of the pool's {making.eval_rows} eval examples, letter case, punctuation and space "
            "aside; other wordings among real rows, and public benchmarks, were not looked for."
        )
    reasons = making.rejected.group_by("reason").agg(pl.col("rows").sum()).sort("reason").rows() if making else []
    if reasons:
        yield "Rejected on the way: " + ", ".join(f"{_cell(reason)} {n}" for reason, n in reasons) + "."
    if not material.options.counter.exact:
        yield "Lengths are estimates: no tokenizer was given."


def _again(material: Material) -> str:
    making = material.background.making
    versions = ", ".join(f"{name} {version(name)}" for name in ("balkit", "polars", "pyarrow"))
    run = f", run {making.run_id[:12]}" if making else ""
    lines = [
        f"pip install balkit=={version('balkit')}",
        f"balkit run POOL {RECIPE}",
        shlex.join(["balkit", "export", "POOL", material.snapshot_id, "--to", "hf", "--out", "OUT", *_flags(material)]),
    ]
    recipe = published(material)
    if recipe is None:
        del lines[1]
    said = (
        f"Snapshot {_cell(material.snapshot_id)} of pool version {material.version}{run}, digest `{material.digest}`; "
        f"exported with {versions}. On a copy of the pool the last command gives the same bytes. A run of the same "
        "recipe from the same version gives the same rows, as far as the pool's ledger holds the teacher's replies."
    )
    found = f"## How to reproduce it\n\n{said}\n\n{_fenced(chr(10).join(lines), 'sh')}"
    if recipe is None:
        return found + "\n\nThe recipe is not here: it was not given to the export, or this balkit cannot read it."
    inside = _fenced(recipes.dump(recipe).rstrip("\n"), "yaml")
    return (
        f"{found}\n\n## The recipe\n\n`{RECIPE}` beside this page, with every default filled in; addresses and folders "
        f"are left out.\n\n<details><summary>{RECIPE}</summary>\n\n{inside}\n\n</details>"
    )


def _flags(material: Material) -> Iterator[str]:
    options = material.options
    if options.rationale != "inline":
        yield from ("--rationale", options.rationale)
    for flag, value in (("--system", options.system), ("--license", options.license)):
        yield from (flag, value) if value is not None else ()
    if options.counter.exact:
        yield from ("--tokenizer", "TOKENIZER")
    if options.max_length is not None:
        yield from ("--max-length", str(options.max_length))
    yield from (["--drop-long"] * options.drop_long) + (["--drop-refused"] * options.drop_refused)
    yield from ("--card", RECIPE) if options.card is not None else ()


def _sourced(material: Material) -> list[str]:
    """The domains that hold texts from outside."""
    rows = pl.concat([part.select("domain", "origin") for part in material.parts.values()])
    return sorted(rows.filter(pl.col("origin") == "source")["domain"].unique())


def _teachers(material: Material) -> list[str]:
    return [model for model, _, _ in _roles(material)]


def _roles(material: Material) -> list[tuple[str, int, str]]:
    """Of each teacher: its model, how many worked answers of the train part are its own, what it was asked for."""
    making = material.background.making
    worked = dict(material.train.group_by("author").len().iter_rows())
    held_out = set(material.validation["author"])
    asked: dict[str, set[str]] = {}
    for purpose, model in making.spent.select("purpose", "model").iter_rows() if making else ():
        asked.setdefault(model, set()).add(purpose)
    names = sorted({*worked, *held_out, *asked})
    return [(name, worked.get(name, 0), ", ".join(sorted(asked.get(name, ()))) or "-") for name in names]


def _unplaced(teacher: Teacher) -> Teacher:
    file = None if teacher.file is None else Path(teacher.file.name)
    return teacher.model_copy(update={"base_url": None, "file": file})


def _name(source: str | None) -> str | None:
    return Path(source).name if source and Path(source).is_absolute() else source


def _counter(material: Material) -> str:
    """The counter's name, without the folder that a tokenizer lies in."""
    return re.sub(r"/\S*/(?=\S)", "", material.options.counter.name)


def _share(rows: int, of: int) -> str:
    return f"{rows} of {of} rows ({100 * rows / of:.1f} %)"


def _size(rows: int) -> str:
    return next((name for below, name in _SIZES.items() if rows < below), "n>10M")


def _fenced(code: str, language: str) -> str:
    """A code block whose fence is longer than any inside."""
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", code)), default=0))
    return f"{fence}{language}\n{code}\n{fence}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(given: str) -> str:
    """Text that cannot break out of a Markdown table cell or turn into markup; a long one is cut."""
    plain = "".join(char if char.isprintable() else " " for char in " ".join(given.split()))
    plain = plain if len(plain) <= _LONGEST_CELL else plain[: _LONGEST_CELL - 1] + "…"
    return "".join(f"\\{char}" if char in "\\`*_{}[]<>#|!~$&" else char for char in plain)
