"""The README: its code is found and runs in the CI (`.ci/readme.py`); here only what takes no time."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import yaml

from balkit import recipe

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_every_block_is_of_a_kind_that_the_ci_runs():
    assert set(re.findall(r"^```(\w*)$", README, re.MULTILINE)) == {"sh", "python", ""}


def test_shell_blocks_are_whole_bash():
    for block in blocks("sh"):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)


def test_python_blocks_are_python():
    assert [ast.parse(block) for block in blocks("python")]


def test_the_recipe_is_valid():
    (text,) = re.findall(r"<<'END'\n(.*?)^END$", README, re.MULTILINE | re.DOTALL)
    assert recipe.load(yaml.safe_load(text)).caps.usd == 0.5


def test_links_lead_to_files():
    missing = [path for path in re.findall(r"\]\((?!https?:)([^)#]+)\)", README) if not (ROOT / path).exists()]
    assert missing == []
