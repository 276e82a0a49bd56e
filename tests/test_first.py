"""The first minute: balkit alone, doctor, init."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from small import make_pool
from teacher_server import Say, TeacherServer
from typer.testing import CliRunner, Result

from balkit.cli import app
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
    assert commands(balkit().output) == ["balkit export 'my pools/mine' latest --to trl --out exports"]
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
