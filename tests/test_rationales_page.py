"""docs/rationales.md: its commands and its Python run as they stand there, and its reasons are all there are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from test_review import ids, rationale

from balkit import frames
from balkit.pool import Commit, Pool
from balkit.synthesize import asking

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "rationales.md").read_text(encoding="utf-8")
SHELL, PYTHON = (
    re.findall(rf"^```{name}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL) for name in ("sh", "python")
)

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


@pytest.mark.docs
def test_the_commands_and_the_python_of_the_page_run(tmp_path: Path) -> None:
    pool = Pool.create(tmp_path / "pools" / "sums")
    rows = [{"q": f"{n} + {n}?", "a": str(2 * n), "d": "sums"} for n in range(3)]
    pool.add(pl.DataFrame(rows), prompt="q", answer="a", domain="d")
    wrong = "answer_contradicts_reference"
    given = [rationale(one, "Guess.\nAnswer: 99", "99", call="1", reason=wrong) for one in ids(pool).values()]
    pool.commit(Commit(message="asked", rationales=frames.RATIONALES.of(given)))
    (tmp_path / "fill_in.py").write_text(FILL_IN)
    command = tmp_path / "bin" / "balkit"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m balkit "$@"\n')
    (command.parent / "python").symlink_to(sys.executable)
    command.chmod(0o755)
    environment = os.environ | {"PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    script = "set -e\n" + "".join(SHELL)
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert pool.conflicts().height == 2
    code = "".join(PYTHON)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert pool.conflicts().height == 0
    assert pool.reviewed().accepted["author"].to_list() == ["person"]


def test_the_page_names_every_reason() -> None:
    source = Path(asking.__file__).read_text(encoding="utf-8")
    reasons = {*re.findall(r'reason="(\w+)"', source), *re.findall(r'return "(cut_off|empty|refusal)"', source)}
    reasons |= {"no_answer", "outvoted", "vote_tied", "vote_thin"}
    table = PAGE.split("## Why one is refused")[1].split("## Conflicts")[0]
    assert set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE)))) == reasons
