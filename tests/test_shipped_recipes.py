"""The shipped recipes: each is planned, and the templates run, on a tiny pool that the commands at its top make.

`make test-slow` types all of these commands; the default suite leaves out what only looks, and the eval rows.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from small import WORDS, prompt
from typer.main import get_command
from typer.testing import CliRunner

from balkit import recipe as recipes
from balkit.assets import quickstart_folder, recipes_folder
from balkit.cli import app
from balkit.planning import Plan, plan
from balkit.pool import Pool, Snapshot
from balkit.recipe import Recipe
from balkit.stages import run
from balkit.teacher import Request, Scripted

NAMES = sorted(path.stem for path in recipes_folder().glob("*.yaml"))
RUN = [name for name in NAMES if name not in ("math", "quickstart", "quickstart_natural_random", "r52", "reuters")]
SIZES = {"fruit": 14, "tool": 7, "bird": 3}

#: Cut so that a run takes a second.
CUT: dict[str, dict[str, Any]] = {
    "vectors": {"encoder": "hashing", "model": None, "dim": 64},
    "select": {"candidates": 2, "response": "reference", "max_ifd": 1e6},
    "student": {"base": "small", "lora": None, "layers": 1, "width": 16, "heads": 2, "vocabulary": 300, "context": 512},
    "train": {"max_steps": 1, "max_length": 512, "threads": 1},
    "evaluate": {"max_new_tokens": 1, "limit_per_domain": 1},
    "synthesis": {"calls_per_row": 20},
}

Row = dict[str, Any]


def things(seed: int) -> Iterator[tuple[str, str]]:
    """(domain, question): a long tail of three domains."""
    for domain, count in SIZES.items():
        rng = random.Random(f"{domain} {seed}")
        yield from ((domain, prompt(domain, rng)) for _ in range(count))


def labelled(prompt: str, label: str, seed: int) -> list[Row]:
    return [{prompt: text, label: domain} for domain, text in things(seed)]


def problems(seed: int) -> list[Row]:
    rng = random.Random(seed)
    pairs = [(rng.randrange(1000), rng.randrange(1000), name) for name, count in SIZES.items() for _ in range(count)]
    return [{"problem": f"Compute ${a} + {b}$.", "answer": f"{a + b}", "subject": name} for a, b, name in pairs]


def questions(seed: int) -> list[Row]:
    return [{"question": text, "answer": f"some {name}", "topic": name} for name, text in things(seed)]


def chats(seed: int) -> list[Row]:
    rows = []
    for name, text in things(seed):
        said = f"All of these things are {name}, as anybody who looks at them sees."
        turns = [{"role": "user", "content": text}, {"role": "assistant", "content": said}]
        rows.append({"messages": turns, "topic": name})
    return rows


def instructions(seed: int) -> list[Row]:
    several = [one for more in range(3) for one in things(seed + 10 * more)]  # clusters have ten rows at least
    return [{"instruction": text, "input": "now", "output": f"some {name}"} for name, text in several]


def choices(seed: int) -> list[Row]:
    listed = " ".join(f"({letter}) {name}" for letter, name in zip("ABC", SIZES, strict=True))
    letters = dict(zip(SIZES, "ABC", strict=True))
    texts = [(name, f"Question:{text} \\nChoice: {listed}") for name, text in things(seed)]
    return [{"text": text, "label": letters[name], "domain": f"set_{name}"} for name, text in texts]


def passages(seed: int) -> list[Row]:
    texts = [(name, f"Passage:Here they are.\nQuestion:{text}\n") for name, text in things(seed)]
    return [{"text": text, "label": f"some {name}", "source": name, "split": "train"} for name, text in texts]


def jsonl(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def splits(rows: Callable[[int], list[Row]], *names: str) -> Callable[[Path], None]:
    """Writes one file a name, each of other rows."""

    def write(folder: Path) -> None:
        for seed, name in enumerate(names):
            jsonl(folder / name, rows(seed))

    return write


def math_release(folder: Path) -> None:
    place = folder / "DIR" / "long_tail_kd" / "math"
    for seed, name in enumerate(("corpus", "test_corpus")):
        rows = [{"text": one["problem"], "label": one["answer"], "source": one["subject"]} for one in problems(seed)]
        jsonl(place / f"{name}.jsonl", [{**row, "org": f"It is so. Answer: {row['label']}"} for row in rows])
    answered = [json.loads(line) for line in (place / "corpus.jsonl").read_text().splitlines()][:5]
    jsonl(place / "math_chatgpt_cot_train_count_300.jsonl", [{**row, "rationale": "No."} for row in answered])
    jsonl(place / "math_chatgpt_cot_train_composed.jsonl", [])


def r52_release(folder: Path) -> None:
    place = folder / "DIR" / "long_tail_kd" / "r52"
    rows = [{"text": text, "label": name, "rationale": f"Plain. The topic is {name}."} for name, text in things(0)]
    for name in ("count_100", "chatgpt_cot_train_count_50", "chatgpt_cot_train_composed_downsample_count_50"):
        jsonl(place / f"r52_{name}.jsonl", rows)
    tests = "".join(f"{name}\t{text}\n" for name, text in things(1))
    (place / "test.tsv").write_text(tests, encoding="utf-8")


def reuters_of_nltk(folder: Path) -> None:
    inside, lines = folder / "reuters", []
    for seed, part in enumerate(("training", "test")):
        (inside / part).mkdir(parents=True)
        for number, (name, text) in enumerate(things(seed)):
            (inside / part / f"{number}").write_text(f"{text.upper()}\n  AT&lt;T says so.\n", encoding="iso-8859-2")
            lines.append(f"{part}/{number} {name}{' rare' if number == 0 else ''}\n")
    (inside / "cats.txt").write_text("".join(lines), encoding="utf-8")
    shutil.make_archive(str(folder / "reuters"), "zip", folder, "reuters")


#: What lies in the folder where a recipe's commands are typed.
INPUT: dict[str, Callable[[Path], None]] = {
    "abstractive_qa": splits(passages, "corpus.jsonl", "test_corpus.jsonl"),
    "math": math_release,
    "multichoice_qa": splits(choices, "train.jsonl", "eval.jsonl"),
    "own_chat": splits(chats, "train.jsonl", "eval.jsonl"),
    "own_classification": splits(lambda seed: labelled("text", "label", seed), "train.jsonl", "eval.jsonl"),
    "own_math": splits(problems, "train.jsonl", "eval.jsonl"),
    "own_qa": splits(questions, "train.jsonl", "eval.jsonl"),
    "quickstart": lambda folder: None,
    "quickstart_natural_random": lambda folder: type_in(commands("quickstart")[:1]),
    "r52": r52_release,
    "reuters": reuters_of_nltk,
    "support_tickets": splits(lambda seed: labelled("ticket", "topic", seed), "train.jsonl", "dev.jsonl", "eval.jsonl"),
    "unlabelled": splits(instructions, "train.jsonl", "eval.jsonl"),
}
OWN = {"unlabelled": "text", "own_chat": "text", "own_classification": "label", "own_math": "math", "own_qa": "text"}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder with the recipes and the quickstart's data, as in a checkout."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(recipes_folder(), "recipes")
    shutil.copytree(quickstart_folder(), "data/quickstart")


def commands(name: str) -> list[list[str]]:
    """The commands of the comment at the top, as words."""
    top = (recipes_folder() / f"{name}.yaml").read_text(encoding="utf-8").partition("\nname:")[0]
    return [shlex.split(line) for line in re.findall(r"^#   ((?:balkit|python) .*)", top, re.MULTILINE)]


@cache
def command() -> Any:
    """The command line as one object; to make it takes half a second."""
    return get_command(app)


def type_in(lines: Iterable[list[str]]) -> None:
    """What a person does who types the commands; those that pay are left out."""
    for words in lines:
        if words[0] == "python":
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, "argv", words[1:])
                runpy.run_path(words[1], run_name="__main__")
        elif words[1] not in ("run", "spend"):
            command().main(words[1:], standalone_mode=False)


def needed(name: str) -> list[list[str]]:
    """The commands without which there is no plan."""
    return [words for words in commands(name) if words[1] not in ("coverage", "plan") and "--split" not in words]


def planned(name: str) -> tuple[Recipe, Plan]:
    """The recipe as its commands have it, and its plan for the pool that they have made."""
    pool, file = next(words[2:4] for words in commands(name) if words[1] == "plan")
    recipe = recipes.load(file)
    return recipe, plan(Pool.open(pool), recipe)


def cut(recipe: Recipe, *, stages: int) -> Recipe:
    """The recipe made small, and free."""
    body = json.loads(recipe.model_dump_json())
    for section, keys in CUT.items():
        body[section].update(keys)
    for teacher in (body["teacher"], *filter(None, body["teachers"].values())):
        teacher["price"] = "free"
    body["caps"]["usd"] = body["caps"]["per_domain"]["usd"] = None
    return recipes.load(body | {"budget_rows": 18, "stages": stages})


def knowing(pool: Pool) -> Scripted:
    """A teacher that knows the answers to all prompts of a pool, and writes prompts like them."""
    rows = pool.examples(split="train").select("prompt", "reference", "domain").rows()
    answers = {prompt: reference for prompt, reference, _ in rows}

    def write(request: Request) -> Iterator[dict[str, str]]:
        rng = random.Random(request.key)
        for _ in range(request.count):
            asked, answer = rng.choice([row[:2] for row in rows if row[2] in (request.domain, "all")])
            fresh = re.sub(r"\b\d+\b", lambda match: str(rng.randrange(10_000)), asked)
            for words in WORDS.values():
                fresh = re.sub("|".join(words), lambda match, words=words: rng.choice(words), fresh)
            sums = re.fullmatch(r"Compute \$(\d+) \+ (\d+)\$\.", fresh)
            answers[fresh] = f"{int(sums[1]) + int(sums[2])}" if sums else answer
            yield {"prompt": fresh, "answer": answers[fresh]}

    def reply(request: Request) -> str:
        if request.purpose == "synthesis":
            return json.dumps({"examples": list(write(request))})
        return f"That follows from the task.\nAnswer: {answers[request.subject]}"

    return Scripted(reply)


def ran(name: str, folder: Path, *, stages: int) -> Snapshot:
    """The last snapshot of a tiny run; with one stage nothing is trained."""
    INPUT[name](folder)
    type_in(needed(name))
    recipe, _ = planned(name)
    pool = Pool.open(next(words[2] for words in commands(name) if words[1] == "plan"))
    small = cut(recipe, stages=stages)
    return pool.snapshot(run(pool, small, teacher=knowing(pool), train=stages > 1).snapshot_id)


def test_every_recipe_says_in_its_first_line_what_it_is_within_80_columns() -> None:
    listed = CliRunner().invoke(app, ["recipes", "list"]).output.splitlines()
    assert [line.split()[0] for line in listed] == NAMES
    assert max(map(len, listed)) <= 80
    assert all(len(line.split()) > 3 for line in listed)


def test_every_recipe_has_its_commands_at_the_top_and_is_tried_here() -> None:
    assert sorted(INPUT) == NAMES
    assert [name for name in NAMES if not {"plan", "run"} <= {words[1] for words in commands(name)}] == []


def test_the_page_of_recipes_has_them_all() -> None:
    page = (Path(__file__).parent.parent / "docs" / "recipes.md").read_text(encoding="utf-8")
    told = page.partition("## Recipes that ship")[2].partition("\n## ")[0]
    firsts = [line.split("|")[1] for line in told.splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`(\w+)`", " ".join(firsts))) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_choice_has_a_comment(name: str) -> None:
    """On its line, or above it; a section's own line needs none."""
    lines = (recipes_folder() / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    pairs = itertools.pairwise(["", *lines])
    choices = [(above, line) for above, line in pairs if re.match(r" *(- )?\w+: *[^ #]", line)]
    assert len(choices) > 20
    assert [line for above, line in choices if "#" not in line and not above.lstrip().startswith("#")] == []
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_at_the_top_make_a_pool_for_which_the_budget_can_be_planned(name: str, tmp_path: Path) -> None:
    INPUT[name](tmp_path)
    type_in(needed(name))
    recipe, made = planned(name)
    assert recipe.name == name
    assert made.rows["quota"].sum() == recipe.budget_rows


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_all_commands_at_the_top_do_their_work(name: str, tmp_path: Path) -> None:
    INPUT[name](tmp_path)
    type_in(commands(name))


def sound(snapshot: Snapshot, *, written: bool) -> None:
    assert (snapshot.rows.height, snapshot.deficits) == (18, [])
    assert (set(snapshot.rows["origin"]) == {"source", "synthetic"}) == written


def test_a_template_makes_its_rows(tmp_path: Path) -> None:
    sound(ran("own_classification", tmp_path, stages=1), written=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_templates_run_whole(name: str, tmp_path: Path) -> None:
    sound(ran(name, tmp_path, stages=2), written=name != "unlabelled")  # its clusters are large enough


@pytest.mark.parametrize("name", sorted(OWN))
def test_templates_say_what_init_says(name: str, tmp_path: Path) -> None:
    INPUT[name](tmp_path)
    (add, *_) = (words for words in commands(name) if words[1] == "add")
    given = dict(pairwise(add)) | ({"--domain": ""} if name == "unlabelled" else {})
    columns = [word for flag in ("--prompt", "--answer", "--domain") for word in (flag, given[flag])]
    wishes = ["--teacher", "openai/gpt-4o-mini", "--budget", "400", "--kind", OWN[name], "--yes"]
    assert CliRunner().invoke(app, ["init", "train.jsonl", *columns, *wishes]).exit_code == 0
    theirs, ours = (
        json.loads(recipes.load(file).model_dump_json()) for file in ("recipe.yaml", f"recipes/{name}.yaml")
    )
    for body in (theirs, ours):  # what depends on the rows
        del body["name"], body["rationale"]["instructions"], body["synthesis"]["instructions"]
        del body["student"]["context"], body["train"]["max_length"]
    assert ours == theirs


def test_stories_of_several_topics_are_a_row_for_each_or_left_out(tmp_path: Path) -> None:
    reuters_of_nltk(tmp_path)
    stories = runpy.run_path("recipes/load_reuters.py")["stories"]
    every, single = (list(stories(tmp_path / "reuters", one_topic=alone)) for alone in (False, True))
    assert (len(every), len(single)) == (2 * sum(SIZES.values()) + 2, 2 * sum(SIZES.values()) - 2)
    assert {topic for _, _, topic in every} - {topic for _, _, topic in single} == {"rare"}
    assert all(text.endswith("AT<T says so.") for _, text, _ in every)
