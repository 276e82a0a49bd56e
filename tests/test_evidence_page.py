"""docs/evidence.md: its experiment and its command are sound, and its tables are those of docs/evidence/*.json.

    python tests/test_evidence_page.py

puts the tables into the page.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from small import make_pool, make_recipe
from typer.testing import CliRunner

from balkit import recipe as recipes
from balkit.cli import app
from balkit.comparing import differences, load, markdown, means

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8")
RESULTS = sorted((ROOT / "docs" / "evidence").glob("*.json"))


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_experiment_and_the_command_of_the_page_are_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_pool(tmp_path / "pools" / "tickets")
    Path("tickets.yaml").write_text(recipes.dump(make_recipe()))
    Path("tickets_arms.yaml").write_text(block("yaml"))
    plan = load("tickets_arms.yaml")
    assert {cell.arm for cell in plan.cells()} == set(yaml.safe_load(block("yaml"))["arms"])
    command, *arguments = shlex.split(block("sh"))
    done = CliRunner().invoke(app, [*arguments, "--table"])
    assert (command, done.exit_code) == ("balkit", 0), done.output
    assert "18 cells have not run" in done.output


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.stem)
def test_the_tables_are_those_of_the_results(file: Path) -> None:
    body = json.loads(file.read_text(encoding="utf-8"))
    from_arms = [body["experiment"]["baseline"], body["experiment"]["against"]]
    cells = body["cells"]
    assert markdown({"means": means(cells), "differences": differences(cells, from_arms=from_arms)}) in PAGE
    assert len({(cell["rows"], cell["steps"]) for cell in cells if cell["steps"]}) == len(body["head"])


if __name__ == "__main__":
    page = PAGE
    for results in RESULTS:
        tables = markdown(json.loads(results.read_text(encoding="utf-8")))
        start, end = f"<!-- table: {results.stem} -->\n", "<!-- end -->"
        before, _, rest = page.partition(start)
        page = f"{before}{start}{tables}{end}{rest.partition(end)[2]}"
    (ROOT / "docs" / "evidence.md").write_text(page, encoding="utf-8")
