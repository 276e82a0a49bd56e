"""Methods and export targets in files of the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from small import Rule, make_pool, make_recipe

from balkit import own, recipe
from balkit.basis import Basis
from balkit.errors import BalkitError, ExportError, RecipeError, RunError
from balkit.exports import TARGETS, Target, export, target_of
from balkit.selection import Way, needs_scores, needs_vectors
from balkit.stages import run
from balkit.teacher import Scripted

WAY = "from balkit.selection import Way, preferring\nway = Way('last', lambda task: preferring(task, [task.n - 1])"
TARGET = """
from balkit.exports import Target
def write(material, folder):
    (folder / "rows.txt").write_text("\\n".join(row["messages"][-1]["content"] for row in material.messages("train")))
    return {}
target = Target(write=write, about="answers", files="*.txt", row={}, reader="nothing")
"""


@pytest.mark.long
def test_a_run_chooses_by_a_method_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "last.py").write_text(WAY + ")")
    body = make_recipe().model_dump(mode="json") | {"select": {"first": "last.py", "then": "last.py"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(body))
    loaded = recipe.load(tmp_path / "recipe.yaml")
    assert loaded.select.first == str(tmp_path / "last.py")
    pool = make_pool(tmp_path / "pool")
    result = run(pool, loaded, teacher=Scripted(Rule()), train=False)
    chosen = pool.decisions(run_id=result.run_id).filter(step="select")
    assert set(chosen["method"]) == {"last"}
    (tmp_path / "texts.py").write_text(TARGET)
    report = export(pool.snapshot(result.snapshot_id), to=["all", str(tmp_path / "texts.py")], out=tmp_path / "out")
    assert {"texts", "trl"} <= set(report.content["targets"])
    assert (tmp_path / "out" / "texts" / "rows.txt").read_text().count("Answer:") >= 30
    (tmp_path / "jsonl.py").write_text(TARGET)
    with pytest.raises(ExportError, match="one folder of that name"):
        export(pool.snapshot(result.snapshot_id), to=["trl", str(tmp_path / "jsonl.py")], out=tmp_path / "out2")


def test_another_content_is_another_run_and_another_folder_is_not(tmp_path: Path) -> None:
    def digest(folder: str, text: str) -> str:
        file = tmp_path / folder / "mine.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        return make_recipe(select={"first": str(file)}).run_digest()

    assert digest("a", WAY + ")") == digest("b", WAY + ")") != digest("a", WAY + ", vectors=True)")


def test_what_a_method_in_a_file_needs_is_known(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(WAY + ", vectors=True, score='loss')")
    assert (needs_vectors(str(file)), needs_scores(str(file))) == (True, "loss")
    with pytest.raises(RunError, match=r"mine.py reads a student's scores"):
        Basis.of(make_pool(tmp_path / "pool"), make_recipe(select={"first": str(file)}))


@pytest.mark.parametrize(
    ("text", "said"),
    [("1 +", "does not run: SyntaxError"), ("", "makes 0 objects of Way"), (WAY + ")\nb = Way('b', None)", "makes 2")],
)
def test_a_file_that_makes_no_one_object_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text or "x = 1")
    with pytest.raises(BalkitError, match=said):
        own.object_of(file, Way)
    with pytest.raises(BalkitError, match="cannot be read"):
        own.object_of(tmp_path / "none.py", Target)


def test_an_unknown_method_is_refused_with_both_that_are_possible() -> None:
    with pytest.raises(RecipeError, match=r"select.then: .*'medoids'.* or the path of a Python file"):
        make_recipe(select={"then": "best"})


def test_a_targets_name_is_known_or_a_file() -> None:
    assert target_of("trl") is TARGETS["trl"]
    assert target_of("trll") is None
