"""Every command in terminals and pipes as they are: 80 columns, no colour, no UTF-8, a reader that leaves early."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml
from rich.cells import cell_len
from small import make_recipe, rows
from terminals import shown_in
from typer.testing import CliRunner

from balkit import recipe as recipes
from balkit.cli import SECTIONS, app
from balkit.terminal import spelled

REPOSITORY = Path(__file__).resolve().parent.parent
NAMES = {"fruit": "früchte", "tool": "道具", "bird": "птицы 🐦"}
COLUMNS = ("--prompt", "question", "--answer", "answer", "--domain", "topic")

#: Commands in their order; a later one goes by what an earlier one made.
COMMANDS = [
    ["--help"],
    ["run", "--help"],
    [],
    ["errors"],
    ["init", "train.jsonl", "--teacher", "openai/gpt-4o-mini", "--budget", "12", "--yes", "--out", "init.yaml"],
    ["add", "p", "train.jsonl", *COLUMNS],
    ["add", "p", "dev.jsonl", "--split", "dev", *COLUMNS],
    ["tag", "p", "1", "raw"],
    ["coverage", "p"],
    ["log", "p"],
    ["diff", "p", "0", "1", "--rows"],
    ["sql", "p", "SELECT prompt, domain FROM examples JOIN labels USING (example_id)"],
    ["sql", "p", "SELECT prompt FROM examples", "--json"],
    ["sql", "p", "SELECT prompt FROM examples", "--csv"],
    ["audit", "p"],
    ["select", "p", "--recipe", "recipe.yaml"],
    ["plan", "p", "recipe.yaml"],
    ["plan", "p", "recipe.yaml", "--by-stage"],
    ["run", "p", "recipe.yaml", "--no-train"],
    ["status", "p"],
    ["spend", "p"],
    ["calls", "list", "p"],
    ["conflicts", "p"],
    ["export", "p", "latest", "--to", "trl,csv", "--out", "exports"],
    ["check", "p"],
    ["compact", "p"],
    ["recipes", "list"],
    ["recipes", "show", "quickstart"],
    ["relabel", "p", "道具", "--to", "werkzeug 🔨"],
    ["relabel", "p", "größe", "--to", "x"],
    ["coverage", "größe"],
]

CHILD = """
import json, sys
from balkit.cli import main
for command in json.load(open("commands.json", encoding="utf-8")):
    sys.argv = ["balkit", *command]
    print(">>>", json.dumps(command), flush=True)
    try:
        main()
    except SystemExit as ended:
        print("<<<", ended.code or 0, flush=True)
"""


def environment(**more: str) -> dict[str, str]:
    """This process's, without what it says of terminals, and with the repository's balkit."""
    plain = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "TERM", "NO_COLOR", "LC_ALL")}
    return plain | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **more}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Rows of domains in four scripts, and a recipe with a recorded teacher."""
    train = [row for domain, n in (("fruit", 12), ("tool", 8), ("bird", 6)) for row in rows(domain, n, seed=1)]
    dev = [row for domain in NAMES for row in rows(domain, 1, seed=2)]
    named = [
        {"question": f"{row['question']} — «{NAMES[row['topic']]}»…", "answer": name, "topic": name}
        for row in [*train, *dev]
        for name in (NAMES[row["topic"]],)
    ]
    lines(tmp_path / "train.jsonl", named[:-3])
    lines(tmp_path / "dev.jsonl", named[-3:])
    replies = [
        {"purpose": "rationale", "prompt": row["question"], "text": f"“So” ≤ that.\nAnswer: {row['answer']}"}
        for row in named
    ]
    lines(tmp_path / "replies.jsonl", [{**reply, "author": "ä"} for reply in replies])
    body = yaml.safe_load(recipes.dump(make_recipe(budget_rows=12, fill=["real"], select={"then": "k_center"})))
    body["teacher"] |= {"transport": "recorded", "file": "replies.jsonl"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(body), encoding="utf-8")
    return tmp_path


def lines(path: Path, bodies: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(body, ensure_ascii=False) + "\n" for body in bodies), encoding="utf-8")


def walked(folder: Path, **settings: str) -> Iterator[tuple[list[str], int, bytes]]:
    """Each command, its exit code and what it printed on both streams."""
    (folder / "commands.json").write_text(json.dumps(COMMANDS), encoding="utf-8")
    child = [sys.executable, "-c", CHILD]
    ended = subprocess.run(
        child, cwd=folder, env=environment(**settings), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True
    )
    for part in ended.stdout.split(b">>> ")[1:]:
        command, _, rest = part.partition(b"\n")
        said, _, code = rest.rpartition(b"<<< ")
        yield json.loads(command), int(code), said


@pytest.mark.parametrize(
    ("encoding", "settings"),
    [
        pytest.param(
            *("latin-1", {"PYTHONIOENCODING": "latin-1", "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "80"}),
            marks=pytest.mark.slow,
        ),
        ("ascii", {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "COLUMNS": "80"}),
    ],
    ids=["latin-1", "C"],
)
@pytest.mark.long
def test_every_command_works_without_utf_8_in_80_columns(folder: Path, encoding: str, settings: dict[str, str]) -> None:
    codes = {}
    for command, code, said in walked(folder, **settings):
        codes[" ".join(command)] = code
        assert b"Traceback" not in said, said.decode("utf-8", "replace")
        assert b"[defect]" not in said
        assert b"\x1b" not in said, "no colour in a pipe"
        if "--csv" in command or command[:1] == ["recipes"]:  # data, in UTF-8 everywhere
            assert "--csv" not in command or "птицы 🐦" in said.decode()
            continue
        if "--json" in command:
            assert any("птицы 🐦" in row["prompt"] for row in json.loads(said))
        text = said.decode(encoding)
        if command[:1] in ([b] for b in ("coverage", "log", "plan", "spend", "calls", "diff", "sql", "status")):
            wide = [line for line in text.splitlines() if cell_len(line) > 80]
            assert wide == [] or command[1:2] == ["größe"] or "--json" in command, wide
    assert {name for name, code in codes.items() if code} == {"relabel p größe --to x", "coverage größe"}


def test_every_command_is_walked_or_needs_more_than_a_small_pool() -> None:
    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    elsewhere = {
        "retire",
        "discover",
        "annotate",
        "synthesize",
        "train",
        "score",
        "eval",
        "compare",
        "review",
        "doctor",
    }
    assert known == {command[0] for command in COMMANDS if command and command[0][0] != "-"} | elsewhere | {
        "quickstart",
        "report",
    }


def test_every_command_stands_in_one_section_of_the_help() -> None:
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert sorted(name for names in SECTIONS.values() for name in names) == sorted(known)


@pytest.mark.parametrize(
    ("typed", "found"), [("add --pr", "--prompt"), ("dis", "discover"), ("calls ex", "explain"), ("nothing", "")]
)
def test_a_shell_completes_commands_and_their_options(typed: str, found: str) -> None:
    words = ["balkit", *typed.split()]
    asked = {"_BALKIT_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    said = CliRunner().invoke(app, env=asked, prog_name="balkit").output
    assert said.split() == found.split()


def test_options_are_read_when_their_command_is_called() -> None:
    add = typer.main.get_command(app).commands["add"]  # type: ignore[attr-defined]
    assert add.params == []
    assert len(add.make_context("add", [], resilient_parsing=True).command.params) > 5


def test_help_comes_without_the_libraries_that_take_long_to_load() -> None:
    child = "import sys; from balkit.cli import app; app(['--help'], standalone_mode=False); print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", child], env=environment(), capture_output=True, text=True, check=True)
    loaded = set(ended.stdout.splitlines()[-1].split())
    assert "rich" in loaded
    assert loaded.isdisjoint({"typer.rich_utils", "rich.markdown", "rich.traceback"})
    assert loaded.isdisjoint({"polars", "numpy", "pyarrow", "pydantic", "duckdb", "torch", "litellm", "asyncio"})


@pytest.mark.parametrize("command", [["errors"], ["--help"], ["recipes", "show", "quickstart"], ["errors", "--json"]])
def test_a_reader_that_leaves_early_is_no_error(command: list[str], tmp_path: Path) -> None:
    whole = [sys.executable, "-m", "balkit", *command]
    with subprocess.Popen(
        whole, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) in (0, 1)


def test_a_closed_stdout_and_a_full_disk_are_no_defects(tmp_path: Path) -> None:
    balkit = f"{sys.executable} -m balkit errors"
    for redirect, code in ((">&-", 0), ("> /dev/full", 1)):
        ended = subprocess.run(
            ["sh", "-c", f"{balkit} {redirect}"], env=environment(), stderr=subprocess.PIPE, text=True, check=False
        )
        assert ended.returncode == code
        assert "Traceback" not in ended.stderr
        assert ("[system]" in ended.stderr) is (code == 1)


@pytest.mark.parametrize(("settings", "colour"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colour_is_for_terminals_that_have_it(settings: dict[str, str], colour: bool) -> None:
    command = [sys.executable, "-m", "balkit", "--help"]
    shown = shown_in("stdout", command, environment(**({"TERM": "xterm"} | settings)))
    assert (b"\x1b[3" in shown or b"\x1b[1;3" in shown) is colour


def test_a_terminal_that_cannot_redraw_gets_lines() -> None:
    show = "import balkit, balkit.events as e\nwith balkit.progress() as notify:\n notify(e.Event(1, 2, 'data'))"
    shown = shown_in("stderr", [sys.executable, "-c", show], environment(TERM="dumb")).decode()
    assert shown == "[     0 s] stage 1/2 data\r\n"


@pytest.mark.parametrize("kind", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_any_text_can_be_spelled(kind: str) -> None:
    told = spelled("ä … 日本 🐦 ± \ud800", kind)
    assert told.encode(kind).decode(kind) == told
    assert told.endswith(r"\ud800")
    assert "..." in told or kind in ("cp1252", "utf-8")
