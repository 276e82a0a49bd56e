"""The notebooks are executed in the CI (`make notebooks`); here only what takes no time."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from balkit import recipe

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def cells(path: Path, kind: str) -> list[str]:
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == kind]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_lead_to_files(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", "\n".join(cells(path, "markdown")))
    assert [link for link in links if not (FOLDER / link).exists()] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_small_and_tell_nothing_of_a_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text) < 400_000
    outputs = [one for cell in json.loads(text)["cells"] for one in cell.get("outputs", [])]
    assert [one for one in outputs if one["output_type"] == "error" or one.get("name") == "stderr"] == []
    assert re.findall(r"/(?:home|root|tmp|work|Users)/", json.dumps(outputs)) == []


def test_the_recipe_that_they_share_is_valid() -> None:
    assert recipe.load(FOLDER / "tickets.yaml").name == "tickets"
