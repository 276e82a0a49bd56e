"""docs/pool.md: its commands run as they stand there."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from balkit.pool import Pool

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "pool.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)

WORDS = {"billing": "invoice charge refund paid", "delivery": "parcel courier late address", "login": "password code"}


def files(folder: Path) -> None:
    rows = [{"text": f"{words} {i}", "topic": topic} for topic, words in WORDS.items() for i in range(20)]
    (folder / "tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "more").mkdir()
    with gzip.open(folder / "more" / "march.csv.gz", "wt") as file:
        file.write("text,topic\nwhere is my parcel?,delivery\n")
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    (folder / "chats.jsonl").write_text(json.dumps({"messages": turns}) + "\n")


@pytest.mark.docs
def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    files(tmp_path)
    command = tmp_path / "bin" / "balkit"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m balkit "$@"\n')
    command.chmod(0o755)
    environment = os.environ | {"PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    script = "set -e\n" + "".join(BLOCKS)
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 new of 1 rows" in done.stdout
    pool = Pool.open(tmp_path / "pools" / "shop")
    assert pool.coverage()["domain"].to_list() == ["delivery", "login", "payments"]
    assert pool.coverage(domain_set="topics").height == 3
    assert pool.tags() == {"first-file": 1}
