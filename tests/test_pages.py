"""The pages: their shell and Python blocks run in order as they stand there, their recipes load, their queries run, and
links of all Markdown files lead somewhere.

A block in ```sh or ```python runs, in a folder of its own a page, where `data/` and `recipes/` are those of the
checkout and OPENAI_API_KEY belongs to a teacher on loopback. What cannot run here (a key of your own, a GPU, a model
that is not there) is ```text. A new page needs nothing here unless it wants files of its own: then see READY.

    python tests/test_pages.py docs/start.md    runs one page with its output on the terminal
"""

from __future__ import annotations

import ast
import contextlib
import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from small import Rule, make_pool, make_recipe
from teacher_server import Say, TeacherServer
from test_review import ids, rationale
from test_synthesis_page import careless_pool

from balkit import errors, frames
from balkit.pool import Commit, Pool
from balkit.stages import run
from balkit.teacher import Scripted

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / ".ci"))

import api  # noqa: E402
import figure  # noqa: E402
import keys  # noqa: E402
from readme import Replies, script  # noqa: E402

PAGES = sorted((ROOT / "docs").glob("*.md"))
MARKDOWN = sorted([*ROOT.glob("*.md"), *(ROOT / "data").rglob("*.md"), *(ROOT / "recipes").rglob("*.md"), *PAGES])
#: Pages whose blocks have a test of their own, since they would take too long as they stand.
ELSEWHERE = {"evidence"}  # test_evidence_page.py

Ready = Callable[[Path], Iterator[None]]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def runs(page: Path) -> bool:
    return page.stem not in ELSEWHERE and bool(blocks(page, "(?:sh|python)"))


# What a page finds in its folder before it begins, and what must hold once it is through


def of_pool(folder: Path) -> Iterator[None]:
    words = {"billing": "invoice charge refund paid", "delivery": "parcel courier late address", "login": "password"}
    rows = [{"text": f"{some} {i}", "topic": topic} for topic, some in words.items() for i in range(20)]
    (folder / "tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "more").mkdir()
    with gzip.open(folder / "more" / "march.csv.gz", "wt") as file:
        file.write("text,topic\nwhere is my parcel?,delivery\n")
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    (folder / "chats.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    yield
    pool = Pool.open(folder / "pools" / "shop")
    assert pool.coverage()["domain"].to_list() == ["delivery", "login", "payments"]
    assert pool.coverage(domain_set="topics").height == 3
    assert pool.tags() == {"first-file": 1}


FILL_IN = """
import csv, sys
with open(sys.argv[1], newline="") as file:
    rows = list(csv.DictReader(file))
rows[0] |= {"verdict": "fix", "fixed_answer": rows[0]["reference"]}
with open(sys.argv[1], "w", newline="") as file:
    writer = csv.DictWriter(file, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
"""


def of_rationales(folder: Path) -> Iterator[None]:
    pool = Pool.create(folder / "pools" / "sums")
    rows = [{"q": f"{n} + {n}?", "a": str(2 * n), "d": "sums"} for n in range(3)]
    pool.add(pl.DataFrame(rows), prompt="q", answer="a", domain="d")
    wrong = "answer_contradicts_reference"
    given = [rationale(one, "Guess.\nAnswer: 99", "99", call="1", reason=wrong) for one in ids(pool).values()]
    pool.commit(Commit(message="asked", rationales=frames.RATIONALES.of(given)))
    (folder / "fill_in.py").write_text(FILL_IN)
    yield
    assert pool.conflicts().height == 0
    assert pool.reviewed().accepted["author"].to_list() == ["person"]


def of_vectors(folder: Path) -> Iterator[None]:
    """A model of the right form that has learned nothing."""
    pytest.importorskip("model2vec")
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    package, transformers = map(pytest.importorskip, ("sentence_transformers", "transformers"))
    bert, vocabulary = folder / "bert", ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij"]
    bert.mkdir()
    (bert / "vocab.txt").write_text("\n".join(vocabulary))
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    transformers.BertModel(transformers.BertConfig(vocab_size=len(vocabulary), **shape)).save_pretrained(bert)
    transformers.BertTokenizer.from_pretrained(str(bert)).save_pretrained(bert)
    parts = [modules.Transformer(str(bert)), modules.Pooling(16)]
    package.SentenceTransformer(modules=parts).save(str(folder / "models" / "minilm"))
    yield
    assert (folder / "models" / "table").is_dir()


def of_report(folder: Path) -> Iterator[None]:
    made = make_pool(folder / "pools" / "math")
    for name in ("adaptive", "natural"):
        without = make_recipe(name=name, balance={"policy": name}, select={"first": "k_center", "then": "k_center"})
        run(made, without, teacher=Scripted(Rule()), train=False)
    yield
    assert {"math.html", "two.html", "plots"} <= {path.name for path in folder.iterdir()}


READY: dict[str, Ready] = {
    "pool": of_pool,
    "rationales": of_rationales,
    "report": of_report,
    "vectors": of_vectors,
}


def nothing(folder: Path) -> Iterator[None]:
    yield


def run_page(page: Path, folder: Path, *, quiet: bool) -> subprocess.CompletedProcess[str]:
    """Runs all blocks of a page in one shell in a folder that is prepared for it."""
    for name in ("data", "recipes"):
        (folder / name).symlink_to(ROOT / name)
    programs = folder / ".bin"
    programs.mkdir()
    for name, given in {"balkit": "-m balkit ", "python": ""}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {given}"$@"\n')
        (programs / name).chmod(0o755)
    replies = Replies()
    with TeacherServer(lambda i: Say(text=replies.reply(server.received[i]["messages"][-1]["content"]))) as server:
        environment = os.environ | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "OPENAI_API_KEY": "sk-loopback",
            "OPENAI_BASE_URL": server.url,
            "OPENAI_API_BASE": server.url,
        }
        with contextlib.contextmanager(READY.get(page.stem, nothing))(folder):
            text = script(page.read_text(encoding="utf-8"))
            done = subprocess.run(
                ["bash", "-c", text], cwd=folder, env=environment, capture_output=quiet, text=True, check=False
            )
            assert done.returncode == 0, f"{page.name}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.mark.docs
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", [page for page in PAGES if runs(page)], ids=lambda page: page.stem)
def test_the_commands_and_the_python_of_a_page_run(page: Path, tmp_path: Path) -> None:
    run_page(page, tmp_path, quiet=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_are_sound(page: Path) -> None:
    known = {"sh", "python", "sql", "yaml", "text", "mermaid", ""}
    opened = re.findall(r"^ *```(\w*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(opened) <= known
    for block in blocks(page, "sh"):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)
    for block in blocks(page, "python"):
        ast.parse(block)
    for block in blocks(page, "yaml"):
        body: dict[str, Any] = yaml.safe_load(block)
        assert "arms" in body or make_recipe(**body)


# Queries


#: Parts of queries about what this pool may not have: an example with a stage 2, one that changed its domain.
MAY_FIND_NOTHING = ("min(example_id) FROM examples)", "labels_at(1)")
QUERIES = [
    pytest.param(query, id=f"{page.stem}-{n}") for page in PAGES for n, query in enumerate(blocks(page, "sql"), 1)
]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return careless_pool(tmp_path_factory.mktemp("pages") / "pool")


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_runs(pool: Pool, query: str) -> None:
    found = pool.sql(query)
    assert found.height > 0 or any(part in query for part in MAY_FIND_NOTHING)


# What is made from the code


def test_the_tables_of_the_recipes_page_are_those_of_the_code() -> None:
    assert keys.page() == keys.PAGE.read_text(encoding="utf-8"), "`make pages` makes them again"


def test_the_recipes_page_has_every_section() -> None:
    told = re.findall(r"<!-- keys: (\w+) -->", keys.PAGE.read_text(encoding="utf-8"))
    assert told == ["recipe", *keys.sections()]


def test_the_figure_of_the_method_is_what_the_policies_give() -> None:
    assert figure.drawing() == figure.FILE.read_text(encoding="utf-8"), "`make pages` draws it again"


def test_the_api_reference_is_that_of_the_code() -> None:
    assert api.page() == api.PAGE.read_text(encoding="utf-8"), "`make pages` makes it again"


def test_the_page_of_errors_has_every_code_in_order() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)$", text, re.MULTILINE) == list(errors.codes())


# Links


def prose(path: Path) -> str:
    """The text without its code."""
    text = re.sub(r"^ *```.*?^ *```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "``", text)


def anchors(path: Path) -> set[str]:
    """What GitHub calls the headings of a page, and the anchors that are set by hand."""
    text = re.sub(r"^ *```.*?^ *```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    seen: Counter[str] = Counter()
    found = set(re.findall(r'<a (?:id|name)="([^"]+)"', text))
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", text, re.MULTILINE):
        said = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        name = re.sub(r"[^\w\- ]", "", said).replace(" ", "-")
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


def links(path: Path) -> Iterator[str]:
    text = prose(path)
    yield from re.findall(r"\]\(([^()\s]+)(?: \"[^\"]*\")?\)", text)
    yield from re.findall(r'(?:src|href|srcset)="([^"]+)"', text)
    yield from re.findall(r"^\[[^\]]+\]: +(\S+)$", text, re.MULTILINE)


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(path: Path) -> None:
    dead = []
    for link in links(path):
        if re.match(r"[a-z]+:", link):
            assert link.startswith(("https://", "http://", "mailto:")), link
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        inside = target.is_relative_to(ROOT) and target.exists()
        if not inside or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_page_names_a_place_on_one_machine(path: Path) -> None:
    assert re.findall(r"(?:/(?:home|Users|root|work)/|C:\\)\w+", path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_page_can_be_reached_from_the_readme(page: Path) -> None:
    seen, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        here = waiting.pop()
        if here in seen or here.suffix != ".md" or not here.exists():
            continue
        seen.add(here)
        waiting += [(here.parent / link.partition("#")[0]).resolve() for link in links(here) if ":" not in link]
    assert page in seen


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_page_ends_with_the_way_on(page: Path) -> None:
    assert page.stem == "README" or "[All pages](README.md)" in page.read_text(encoding="utf-8").splitlines()[-1]


if __name__ == "__main__":
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as work:
            started = time.monotonic()
            run_page(Path(name), Path(work), quiet=False)
            print(f"{name}: {time.monotonic() - started:.0f} s")
