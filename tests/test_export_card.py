"""The card of the `hf` target: what the hub's own reader makes of it, what is stated and what is not, its table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from test_export import Frozen, snapshot_rows, tree

from balkit import figures
from balkit import recipe as recipes
from balkit.assets import recipes_folder
from balkit.errors import RecipeError
from balkit.exports import Background, Options, around, export
from balkit.exports.background import Making
from balkit.exports.card import _cell, _fenced
from balkit.frames import DECISIONS
from balkit.pool import Commit, Pool, SnapshotDraft
from balkit.recipe import Card

RECIPE: dict[str, Any] = {
    "name": "x",
    "budget_rows": 30,
    "teacher": {"transport": "recorded", "model": "m", "file": "/home/me/replies.jsonl", "price": "free",
                "base_url": "http://10.0.0.7:8000"},
    "rationale": {"instructions": "Use ```fences``` and | pipes |"},
    "card": {"language": ["en"], "license": "cc-by-4.0", "source_licenses": {"sums": "MIT", "*": "CC0"},
             "teacher_terms": {"teacher-1": "ask its maker"}},
}  # fmt: skip


def making(**changes: Any) -> Making:
    spent = {"purpose": ["rationale"], "model": ["teacher-1"], "calls": [3], "cached": [1], "input_tokens": [10],
             "output_tokens": [20], "cost_usd": [0.25]}  # fmt: skip
    body = {
        "run_id": "r" * 64,
        "recipe": recipes.load(RECIPE),
        "quotas": pl.DataFrame({"domain": ["sums", "gone"], "quota": [3, 2]}),
        "rejected": pl.DataFrame({"domain": ["sums"], "step": ["rationale"], "reason": ["truncated"], "rows": [4]}),
        "spent": pl.DataFrame(spent),
        "eval_rows": 7,
    }
    return Making(**(body | changes))


ROWS = snapshot_rows({}, {"domain": "more", "origin": "synthetic"}, {"example_id": "e0", "copy": 1})


@pytest.fixture(scope="module")
def card(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("card") / "o"
    export(Frozen(ROWS), to=["hf"], out=out, background=Background(making=making()))
    return out / "hf"


def section(folder: Path, title: str) -> str:
    return (folder / "README.md").read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_hubs_reader_takes_the_card_with_every_stated_term(card):
    hub = pytest.importorskip("huggingface_hub")
    found = hub.DatasetCard.load(card / "README.md")
    assert (found.data.license, found.data.language) == ("cc-by-4.0", ["en"])
    assert found.data.task_categories == ["text-generation"]
    assert "synthetic" in found.data.tags
    assert hub.DatasetCard(str(found)).data.to_dict() == found.data.to_dict()


def test_the_table_says_of_every_domain_what_was_asked_for_and_what_came(card):
    rows = [line.strip("| ").split(" | ") for line in section(card, "How it was balanced").splitlines() if "|" in line]
    assert rows[2:] == [
        ["gone", "2", "0", "0", "0", "0", "0", "-"],
        ["more", "-", "1", "0", "1", "0", "0", "-"],
        ["sums", "3", "2", "1", "0", "1", "4", "MIT"],
        ["all", "-", "3", "1", "1", "1", "4"],
    ]
    assert (card / "balance.png").read_bytes().startswith(b"\x89PNG")


def test_teachers_costs_and_limits_are_told(card):
    assert "| teacher-1 | 3 | rationale | ask its maker |" in section(card, "Teachers and their terms")
    assert "| rationale | teacher-1 | 3 | 1 | 10 | 20 | 0.250000 |" in section(card, "Costs")
    limits = section(card, "Known limits")
    assert "1 of 3 rows (33.3 %) were written by a teacher" in limits
    assert "the pool's 7 eval examples" in limits
    assert "truncated 4" in limits


def test_the_recipe_is_inside_without_folders_and_addresses_and_loads(card):
    text = (card / "README.md").read_text()
    assert "/home/me" not in text
    assert "10.0.0.7" not in text
    found = recipes.load(card / "recipe.yaml")
    assert found.run_digest() == recipes.load(RECIPE).run_digest()
    assert yaml.safe_load(section(card, "The recipe").split("````yaml\n")[1].split("\n````")[0])["name"] == "x"


def test_what_nobody_stated_is_called_so_in_the_card_and_first_in_the_report(tmp_path):
    report = export(Frozen(ROWS), to=["hf"], out=tmp_path / "o")
    (said,) = [line for line in report.warnings if line.startswith("NOT STATED")]
    for what in ("the license of the data set", "the sources of 1 of 1 domains ('sums')", "teacher-1", "the language"):
        assert what in said
    page = (tmp_path / "o/hf/README.md").read_text()
    assert "**Not stated by whoever exported this:" in page
    assert "| not stated |" in page
    assert json.loads((tmp_path / "o/EXPORT_REPORT.json").read_text())["warnings"][1] == said


def test_terms_of_the_options_go_before_those_of_the_snapshots_recipe(tmp_path):
    options = Options(license="mit", card=Card(source_licenses={"*": "mine"}, teacher_terms={"*": "free"}))
    report = export(
        Frozen(ROWS), to=["hf"], out=tmp_path / "o", options=options, background=Background(making=making())
    )
    assert any("NOT STATED in the card: the language;" in line for line in report.warnings)
    page = (tmp_path / "o/hf/README.md").read_text()
    assert "ask its maker" not in page
    assert "--license mit --card recipe.yaml" in page
    assert recipes.load(tmp_path / "o/hf/recipe.yaml").card == options.card.model_copy(update={"license": "mit"})


def test_the_same_snapshot_and_options_give_the_same_card_and_figure(tmp_path):
    for name in ("a", "b"):
        export(Frozen(ROWS), to=["hf"], out=tmp_path / name, background=Background(making=making()))
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_a_pool_tells_of_a_run_until_the_snapshot_was_made(tmp_path):
    pool = Pool.create(tmp_path / "pool")
    pool.add(pl.DataFrame({"q": ["a", "b"], "d": ["x", "y"]}), prompt="q", answer=None, domain="d")
    draft = SnapshotDraft(run_id="r" * 64, stage=1, recipe_yaml=recipes.dump(recipes.load(RECIPE)), parent=None,
                          rows=ROWS.clear())  # fmt: skip
    decided = [
        {"example_id": "e", "domain": "x", "step": step, "method": "m", "kept": kept, "reason": reason}
        for step, kept, reason in [("rationale", False, "truncated"), ("select", False, "below quota"),
                                   ("synthesis", False, "surplus"), ("synthesis", True, "kept")]
    ]  # fmt: skip
    commit = Commit("one", key=("r" * 64, 1, "data"), decisions=DECISIONS.of(decided), snapshot=draft)
    pool.commit(commit)
    later = Commit("two", key=("r" * 64, 2, "data"), decisions=DECISIONS.of(decided[:1]))
    pool.commit(later)
    found = around(pool, pool.snapshot(draft.snapshot_id)).making
    assert found.rejected.rows() == [("x", "rationale", "truncated", 1)]
    assert found.recipe == recipes.load(RECIPE)
    assert found.quotas.is_empty()
    assert found.spent.is_empty()


def test_the_card_section_of_the_docs_is_one_that_a_recipe_takes():
    page = (Path(__file__).resolve().parent.parent / "docs/exports.md").read_text(encoding="utf-8")
    block = page.split("```yaml\n")[1].split("```")[0]
    assert recipes.load(RECIPE | yaml.safe_load(block)).card.source_license("geometry") == "ask the owner"


@pytest.mark.parametrize(
    "card",
    [{"license": " "}, {"source_licenses": {"a": ""}}, {"teacher_terms": {"*": "\ud800"}}, {"language": ["English"]}],
)
def test_terms_that_say_nothing_or_cannot_be_written_are_refused(card):
    with pytest.raises(RecipeError, match="card"):
        recipes.load(RECIPE | {"card": card})


@pytest.mark.parametrize("name", ["math", "quickstart", "quickstart_natural_random", "r52", "reuters"])
def test_recipes_on_texts_that_are_known_state_whose_they_are(name):
    assert recipes.load(recipes_folder() / f"{name}.yaml").card.source_license("any")


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_no_text_breaks_out_of_a_cell_or_a_code_block(text):
    cell = _cell(text)
    assert "\n" not in cell
    assert "|" not in cell.replace("\\\\", "").replace("\\|", "")
    fence = _fenced(text, "yaml").split("yaml\n")[0]
    assert fence not in text


def test_a_figure_takes_any_name_and_names_how_many_domains_it_leaves_out(tmp_path):
    names = ["$x^{", "| a |", "\x00\u202e", "long " * 200, *(f"d{i}" for i in range(70))]
    frame = pl.DataFrame({"domain": names}).with_columns(
        pl.lit(1).alias("real"), pl.lit(2).alias("synthetic"), pl.lit(0).alias("repeated"), pl.lit(3).alias("rejected"),
        pl.lit(None, pl.Int64).alias("quota"),
    )  # fmt: skip
    for name in ("a", "b"):
        figures.balance(frame, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
