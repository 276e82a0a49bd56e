"""The first minute: balkit alone, doctor, init."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from small import make_pool, rows
from teacher_server import Say, TeacherServer
from typer.testing import CliRunner, Result

from balkit.cli import app
from balkit.recipe import Kind, load
from balkit.starting.draft import Wishes, write
from balkit.starting.looking import Facts
from balkit.teacher.providers import KEY_NAMES

RECIPE = "name: mine\nbudget_rows: 9\nteacher: {model: openai/gpt-4o-mini}\n"
KEY = "sk-canary-0e5f71ab93"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in KEY_NAMES.values():
        monkeypatch.delenv(name, raising=False)


def balkit(*arguments: str, given: str = "") -> Result:
    return CliRunner().invoke(app, list(arguments), input=given)


def commands(text: str) -> list[str]:
    """The lines after `Next:` that are commands."""
    return re.findall(r"^  (balkit .*)$", text.partition("Next:")[2], re.MULTILINE)


def test_alone_it_says_what_it_is_and_what_to_do_next() -> None:
    done = balkit()
    assert done.exit_code == 0
    assert all(f"balkit {name}" in done.output for name in ("quickstart", "init", "add", "plan", "run", "doctor"))
    assert commands(done.output) == []
    assert len(done.output.splitlines()) <= 14
    assert max(map(len, done.output.splitlines())) <= 80


def test_alone_it_names_the_next_command_for_what_lies_here(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("on: push\n")
    (tmp_path / "mine.yaml").write_text(RECIPE)
    assert commands(balkit().output) == ["balkit add pools/mine FILE --prompt COLUMN --answer COLUMN --domain COLUMN"]
    (tmp_path / "mine.yaml").write_text(f"# First:\n#   balkit add pools/mine a.csv --prompt q\n{RECIPE}")
    assert commands(balkit().output) == ["balkit add pools/mine a.csv --prompt q"]
    make_pool(tmp_path / "my pools" / "mine")
    both = ["balkit plan 'my pools/mine' mine.yaml", "balkit run 'my pools/mine' mine.yaml"]
    assert commands(balkit().output) == both
    run = tmp_path / "my pools" / "mine" / "runs" / "0123"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"name": "mine"}))
    assert commands(balkit().output) == both[1:]
    (run / "report.json").write_text("{}")
    ended = ["balkit report 'my pools/mine'", "balkit export 'my pools/mine' latest --to trl --out exports"]
    assert commands(balkit().output) == ended
    (tmp_path / "mine.yaml").unlink()
    assert commands(balkit().output)[0] == "balkit coverage 'my pools/mine'"


def test_doctor_looks_at_everything_and_shows_no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    make_pool(tmp_path / "pool")
    done = balkit("doctor", "pool", "--json")
    found = {check["name"]: check for check in json.loads(done.output)["checks"]}
    assert done.exit_code == 0
    assert {"Python", "balkit", "keys", "model cache", "temporary files", "disk", "memory", "GPU"} < found.keys()
    assert "set: OPENAI_API_KEY" in found["keys"]["said"]
    assert "55 train examples in 3 domains" in found["pool pool"]["said"]
    assert KEY not in done.output
    assert not (tmp_path / "pool" / "calls.sqlite").exists()


def test_doctor_ends_with_1_where_something_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    (tmp_path / "file").write_text("no folder")
    done = balkit("doctor", "nowhere")
    assert done.exit_code == 1
    assert "broken  model cache" in done.output
    assert "-> set HF_HOME" in done.output
    assert "broken  pool nowhere" in done.output
    assert "2 broken" in done.output


def test_doctor_calls_a_teacher_once_and_says_what_it_cost(tmp_path: Path) -> None:
    pytest.importorskip("litellm")
    from balkit import health
    from balkit.recipe import Teacher

    price = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0}
    with TeacherServer([Say(text="ok"), Say(text="ok"), Say(status=401, error="bad key")]) as server:
        teacher = Teacher.model_validate({"model": "openai/tiny", "base_url": server.url, "price": price})
        unpriced = teacher.model_copy(update={"price": None})
        answered, unknown, refused = health.call(teacher), health.call(unpriced), health.call(unpriced)
    assert answered.state == "ok"
    assert re.search(r"answered in \d+\.\d\d s, \d+ \+ 5 tokens, \$0\.0000\d\d$", answered.said)
    assert (unknown.state, "cost unknown" in unknown.said) == ("ok", True)
    assert (refused.state, "bad key" in refused.said) == ("broken", True)
    assert server.served == 2


def test_a_shell_completes_commands() -> None:
    asked = {"_BALKIT_COMPLETE": "complete_bash", "COMP_WORDS": "balkit quick", "COMP_CWORD": "1"}
    command = [sys.executable, "-c", "import sys; sys.argv = ['balkit']; from balkit.cli import main; main()"]
    done = subprocess.run(command, env=dict(os.environ) | asked, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["quickstart"]


def tickets(folder: Path, *, suffix: str = "jsonl") -> str:
    """train and eval files of the small pool's rows, under column names that say nothing of the prompt."""
    for name, seed in (("train", 1), ("eval", 2)):
        lines = [row for domain, n in (("fruit", 20), ("tool", 9), ("bird", 3)) for row in rows(domain, n, seed=seed)]
        text = "".join(json.dumps({"ticket": one["question"], "topic": one["topic"]}) + "\n" for one in lines)
        (folder / f"{name}.{suffix}").write_text(text)
    return f"train.{suffix}"


def test_init_without_a_terminal_says_which_flags_are_missing(tmp_path: Path) -> None:
    file = tickets(tmp_path)
    error = str(balkit("init", file, "--budget", "30").exception)
    assert re.findall(r"^  - (--\w+)", error, re.MULTILINE) == ["--prompt", "--answer", "--teacher"]
    assert "suggested: ticket" in error
    assert "- FILE" in str(balkit("init").exception)
    assert "--price" in str(balkit("init", file, "--yes", "--teacher", "openai/unheard-of").exception)
    assert "nowhere.csv" in str(balkit("init", "nowhere.csv", "--yes").exception)
    assert not (tmp_path / "recipe.yaml").exists()


def test_init_writes_a_recipe_whose_next_commands_work(tmp_path: Path) -> None:
    done = balkit("init", tickets(tmp_path), "--yes", "--stages", "2", "--json")
    found = json.loads(done.output)
    assert (found["columns"], found["kind"]) == ({"prompt": "ticket", "answer": "topic", "domain": "topic"}, "label")
    recipe = load("recipe.yaml")
    assert (recipe.budget_rows, recipe.stages, recipe.teacher.api_key_env) == (60, 2, "OPENAI_API_KEY")
    assert (recipe.answers.labels, recipe.caps.calls) == ((), 240)
    *firsts, run = found["next"]
    assert commands(balkit().output) == firsts[:2]
    for command in firsts:
        assert balkit(*shlex.split(command)[1:]).exit_code == 0, command
    assert commands(balkit().output) == [firsts[-1], run]
    assert "eval" in firsts[1]


def test_init_never_overwrites_unless_told(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("mine")
    assert "--force" in str(balkit("init", tickets(tmp_path), "--yes").exception)
    assert (tmp_path / "recipe.yaml").read_text() == "mine"
    assert balkit("init", "train.jsonl", "--yes", "--force", "--out", "recipe.yaml").exit_code == 0
    assert load("recipe.yaml").budget_rows == 60


def test_init_has_domains_discovered_where_no_column_holds_them(tmp_path: Path) -> None:
    lines = [{"instruction": f"Add {n} and 1.", "input": "it's \\ this", "output": f"{n + 1}"} for n in range(30)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "--domain" in str(balkit("init", "sums.jsonl", "--teacher", "ollama/llama3", "--budget", "9").exception)
    model = ("--teacher", "ollama/llama3", "--student", "Org/Model-1B", "--budget", "9")
    done = balkit("init", "sums.jsonl", *model, "--domain", "", "--json")
    found = json.loads(done.output)
    recipe = load("recipe.yaml")
    assert (recipe.domain_set, recipe.answers.kind, recipe.teacher.price) == ("topics", "number", "free")
    assert (recipe.student.base, recipe.caps.usd) == ("Org/Model-1B", None)
    assert "$'{instruction}\\n\\n{input}'" in found["next"][0]
    assert "balkit discover pools/sums --name topics" in found["next"]


@pytest.mark.parametrize("kind", ["label", "choice", "number", "math", "text"])
def test_a_recipe_of_every_kind_can_be_read(kind: Kind) -> None:
    facts = Facts(99_000, True, {"a: b": 90_000, "#c": 9}, kind, ("yes", 'say "no"'), 90_000, ("train",))
    columns = {"prompt": "q", "answer": "a", "domain": "d"}
    wishes = Wishes(
        *("my rows.csv", columns, facts, "1e3", "pools/my rows", Path("my recipe.yaml"), "x/y: z", "http://h:1/v1"),
        *((0.25, 1.0), "small", 7, 2, kind),
    )
    text, recipe = write(wishes)
    assert (recipe.name, recipe.teacher.model, recipe.train.max_length) == ("1e3", "x/y: z", 2048)
    assert recipe.answers.labels == (("yes", 'say "no"') if kind == "label" else ())
    assert all("#" in line or "  " in line or ":" in line for line in text.splitlines())


def test_init_asks_for_what_it_cannot_tell(tmp_path: Path) -> None:
    file = tickets(tmp_path)
    outer, inner = pty.openpty()
    command = [sys.executable, "-m", "balkit", "init", file, "--teacher", "openai/gpt-4o-mini"]
    with subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner, close_fds=True) as process:
        os.close(inner)
        os.write(outer, b"\n\nsmall\n44\n")
        said = ""
        with contextlib.suppress(OSError):
            while piece := os.read(outer, 4096):
                said += piece.decode()
        assert process.wait(timeout=120) == 0, said
    os.close(outer)
    assert "the column with the prompt" in said
    assert load("recipe.yaml").budget_rows == 44
