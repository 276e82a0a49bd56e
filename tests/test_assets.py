"""Shipped files are found in a checkout and in a wheel."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from balkit.assets import find, quickstart_folder, recipes_folder
from balkit.errors import BalkitError

ROOT = Path(__file__).resolve().parent.parent


def test_a_checkout_uses_its_own_recipes_and_data():
    assert recipes_folder() == ROOT / "recipes"
    assert sorted(path.name for path in quickstart_folder().glob("*.jsonl")) == [
        "dev.jsonl",
        "eval.jsonl",
        "train.jsonl",
    ]


def test_a_wheel_comes_before_what_lies_beside_it(tmp_path):
    for place in ("site-packages/balkit/_recipes", "site-packages/recipes"):
        (tmp_path / place).mkdir(parents=True)
    package = tmp_path / "site-packages/balkit"
    assert find("recipes", package=package) == package / "_recipes"


def test_a_broken_installation_says_what_is_missing(tmp_path):
    with pytest.raises(BalkitError, match=r"data/quickstart is missing"):
        find("data/quickstart", package=tmp_path / "balkit")


def test_the_wheel_is_told_to_carry_both():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert build["force-include"] == {"recipes": "balkit/_recipes", "data/quickstart": "balkit/_data/quickstart"}
