"""Every target: its rows by its JSON Schema and back, its configs, what it refuses, the student's lengths."""

from __future__ import annotations

import csv
import importlib.util
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import polars as pl
import pyarrow.parquet
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from student_toys import TINY, pretrained_folder, small_base
from test_export import WORDS, Frozen, snapshot_rows, tree

from balkit import frames, student
from balkit.errors import ExportError, StudentError
from balkit.exports import TARGETS, Background, Options, export, trl_preferences
from balkit.exports.plain import ESCAPE
from balkit.exports.rows import families

PAIRED = [name for name, target in TARGETS.items() if target.paired]
OTHERS = [name for name in TARGETS if name not in PAIRED]
CHAT_FILES = {
    "axolotl": "train.jsonl", "llamafactory": "train.jsonl", "unsloth": "train.jsonl", "mlx": "train.jsonl",
    "nemo": "training.jsonl", "verl": "train.parquet", "openai": "train.jsonl", "azure": "train.jsonl",
    "together": "train.jsonl", "fireworks": "train.jsonl", "hf": "data/train-00000-of-00001.parquet",
    "jsonl": "train.jsonl", "parquet": "train.parquet",
}  # fmt: skip
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(str.strip)


def read(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".parquet":
        yield from pyarrow.parquet.read_table(path).to_pylist()
    elif path.suffix == ".csv":
        csv.field_size_limit(1 << 30)
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)
    else:
        yield from (json.loads(line) for line in path.read_bytes().decode("utf-8-sig").split("\n")[:-1])


def unescaped(cell: str) -> str:
    return cell.removeprefix(ESCAPE)


def texts_of(folder: Path, name: str) -> list[tuple[str, str]]:
    """Prompt and completion of every training row of a target, read as plain files."""
    if name == "trl":
        rows = read(folder / "trl/data/train.jsonl")
        return [(row["prompt"][-1]["content"], row["completion"][0]["content"]) for row in rows]
    if name == "csv":
        return [(unescaped(row["prompt"]), unescaped(row["completion"])) for row in read(folder / "csv/train.csv")]
    if name == "verl-rl":
        rows = read(folder / "verl-rl/train.parquet")
        return [(row["prompt"][-1]["content"], row["reward_model"]["ground_truth"]) for row in rows]
    rows = read(folder / name / CHAT_FILES[name])
    return [(row["messages"][-2]["content"], row["messages"][-1]["content"]) for row in rows]


@pytest.mark.parametrize("options", [Options(), Options(system="Be brief.", rationale="think")])
def test_every_row_of_every_target_is_as_its_schema_says(tmp_path, options):
    validation = snapshot_rows({"prompt": "new", "reference": None}, split="dev")
    export(Frozen(snapshot_rows(*[{}] * 12)), to=["all"], out=tmp_path / "o", validation=validation, options=options)
    for name in OTHERS:
        target = TARGETS[name]
        found = [row for file in sorted((tmp_path / "o" / name).glob(target.files)) for row in read(file)]
        assert len(found) == 13, name
        validator = jsonschema.Draft202012Validator(dict(target.row))
        assert [list(validator.iter_errors(row)) for row in found] == [[]] * 13, name


@pytest.mark.parametrize("name", list(TARGETS))
def test_a_schema_refuses_what_trainers_trip_over(name):
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    good = {"messages": chat} if "messages" in TARGETS[name].row["properties"] else None
    if good is None or len(TARGETS[name].row["properties"]) > 1:
        pytest.skip("the row is more than a chat")
    bad = [chat[::-1], chat[:1], [*chat, chat[0]], [chat[0], {"role": "assistant", "content": ""}], []]
    validator = jsonschema.Draft202012Validator(dict(TARGETS[name].row))
    assert validator.is_valid(good)
    assert not any(validator.is_valid({"messages": messages}) for messages in bad)
    assert not validator.is_valid({"messages": chat, "domain": "sums"})


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(ANY_TEXT, ANY_TEXT, ANY_TEXT), min_size=1, max_size=4), st.booleans())
@pytest.mark.long
def test_any_unicode_survives_every_target_and_back(texts, none):
    changes = [{"prompt": p, "rationale": r, "answer": a, "domain": a} for p, r, a in texts] * 10
    rows = snapshot_rows(*changes)
    options = Options(rationale="none" if none else "inline")
    with tempfile.TemporaryDirectory() as folder:
        export(Frozen(rows), to=["all"], out=Path(folder) / "o", options=options)
        expected = texts_of(Path(folder) / "o", "jsonl")
        assert [prompt for prompt, _ in expected] == rows["prompt"].to_list()
        for name in OTHERS:
            found = texts_of(Path(folder) / "o", name)
            if name == "verl-rl":
                assert found == [(p, a.strip()) for p, a in rows.select("prompt", "answer").iter_rows()]
            else:
                assert found == expected, name


def test_reasoning_stands_in_its_own_field_with_the_same_keys_in_every_message(tmp_path):
    options = Options(rationale="reasoning_content", system="Be brief.")
    report = export(Frozen(snapshot_rows({})), to=["all"], out=tmp_path / "o", options=options)
    (row,) = read(tmp_path / "o/axolotl/train.jsonl")
    assert {frozenset(message) for message in row["messages"]} == {frozenset({"role", "content", "reasoning_content"})}
    assert row["messages"][-1] == {"role": "assistant", "content": "0", "reasoning_content": "Two times 0."}
    assert set(report.content["targets_left_out"]) >= {"llamafactory", "unsloth", "openai", "fireworks"}
    assert (tmp_path / "o/verl/train.parquet").exists()


@pytest.mark.parametrize(
    ("name", "rows", "options", "said"),
    [
        ("openai", 9, Options(), "openai needs at least 10 rows, and there are 9"),
        ("fireworks", 2, Options(), "fireworks needs at least 3 rows"),
        ("llamafactory", 3, Options(rationale="reasoning_content"), "takes inline, think, none"),
    ],
)
def test_a_target_that_cannot_take_the_rows_fails_and_writes_nothing(tmp_path, name, rows, options, said):
    with pytest.raises(ExportError, match=said):
        export(Frozen(snapshot_rows(*[{}] * rows)), to=[name, "trl"], out=tmp_path / "o", options=options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "options", "flag"),
    [
        ({"rationale": "word " * 50}, Options(tokens=WORDS, max_length=40), "--drop-long"),
        ({"answer": " "}, Options(), "--drop-refused"),
        ({"rationale": "<think> oh"}, Options(rationale="think"), "--drop-refused"),
    ],
)
def test_rows_that_would_not_train_fail_the_export_unless_told(tmp_path, change, options, flag):
    rows = Frozen(snapshot_rows({}, change))
    with pytest.raises(ExportError, match=f"1 of 2 rows would not train.*row train1 of 'sums'.*{flag}"):
        export(rows, to=["trl"], out=tmp_path / "o", options=options)
    assert not list(tmp_path.iterdir())


def test_formulas_are_escaped_for_spreadsheets_unless_told(tmp_path):
    hostile = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1", "'quoted", "plain", 'a "b", c\nd', "x\x00y"]
    rows = Frozen(snapshot_rows(*({"prompt": text, "domain": text} for text in hostile)))
    export(rows, to=["csv"], out=tmp_path / "safe")
    export(rows, to=["csv"], out=tmp_path / "raw", options=Options(keep_formulas=True))
    cells = [row["prompt"] for row in read(tmp_path / "safe/csv/train.csv")]
    assert [cell[0] for cell in cells] == ["'"] * 8 + ["p", "a", "x"]
    assert [unescaped(cell) for cell in cells] == hostile
    assert [row["prompt"] for row in read(tmp_path / "raw/csv/train.csv")] == hostile


def test_every_config_parses_and_sets_the_limit_of_the_longest_row(tmp_path):
    rows = Frozen(snapshot_rows(*[{"rationale": "word " * 3000}] * 12))
    validation = snapshot_rows({"prompt": "new"}, split="dev")
    report = export(rows, to=["all"], out=tmp_path / "o", validation=validation, options=Options(tokens=WORDS))
    out = tmp_path / "o"
    length = report.content["targets"]["trl"]["settings"]["max_length"]
    assert length > 3000
    assert yaml.safe_load((out / "axolotl/axolotl.yaml").read_text())["sequence_len"] == length
    assert yaml.safe_load((out / "llamafactory/train.yaml").read_text())["cutoff_len"] == length
    assert yaml.safe_load((out / "mlx/lora.yaml").read_text()) | {"batch_size": 1, "mask_prompt": True} == (
        yaml.safe_load((out / "mlx/lora.yaml").read_text())
    )
    assert f"data.max_length={length}" in (out / "verl/run.sh").read_text()
    assert yaml.safe_load((out / "nemo/automodel.yaml").read_text())["dataset"]["seq_length"] == length
    for script in sorted(out.glob("*/*.py")):
        compile(script.read_text(), str(script), "exec")
    over = {name: body.get("rows_over_default_limit") for name, body in report.content["targets"].items()}
    assert over["axolotl"] == 12
    assert over["csv"] is None


def test_the_readme_of_every_trainer_has_three_commands(tmp_path):
    export(Frozen(snapshot_rows(*[{}] * 12)), to=["all"], out=tmp_path / "o")
    for name in set(OTHERS) - {"hf", "jsonl", "parquet", "csv"}:
        block = (tmp_path / "o" / name / "README.md").read_text().split("```sh\n")[1].split("\n```")[0]
        assert len(block.splitlines()) == 3, name


def test_azure_files_begin_with_a_byte_order_mark(tmp_path):
    export(Frozen(snapshot_rows(*[{}] * 12)), to=["azure", "openai"], out=tmp_path / "o")
    azure, openai = ((tmp_path / "o" / name / "train.jsonl").read_bytes() for name in ("azure", "openai"))
    assert azure == b"\xef\xbb\xbf" + openai


def test_the_reward_takes_the_last_declared_answer(tmp_path):
    export(Frozen(snapshot_rows({})), to=["verl-rl"], out=tmp_path / "o")
    spec = importlib.util.spec_from_file_location("reward", tmp_path / "o/verl-rl/reward.py")
    reward = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reward)
    scores = {"Answer: 3\nAnswer: 4": 1.0, "<think>Answer: 5</think>\n\n4": 1.0, "Answer: 3": 0.0, " 4. ": 1.0}
    assert {text: reward.compute_score("balkit", text, "4") for text in scores} == scores


def test_a_written_example_stays_on_the_side_of_its_family(tmp_path):
    parents = pl.DataFrame(
        {"example_id": ["made", "child", "far"], "parents": [["e0"], ["made"], ["elsewhere"]]},
        schema={"example_id": pl.String, "parents": pl.List(pl.String)},
    )
    held_out = snapshot_rows(
        {"prompt": "a", "example_id": "child"}, {"prompt": "b", "example_id": "far"}, {"prompt": "c"}, split="dev"
    ).with_columns(example_id=pl.Series(["child", "far", "alone"]))
    train = Frozen(snapshot_rows({}))
    report = export(train, to=["trl"], out=tmp_path / "o", validation=held_out, background=Background(parents=parents))
    assert report.dropped == {"validation": {"family_in_train": 1}}
    assert [row["prompt"][0]["content"] for row in read(tmp_path / "o/trl/data/validation.jsonl")] == ["b", "c"]


@given(st.lists(st.tuples(st.integers(0, 12), st.lists(st.integers(0, 12), max_size=3)), max_size=12))
def test_families_are_the_connected_parts_whatever_the_order(edges):
    def found(some: list) -> dict[str, str]:
        data = {"example_id": [str(child) for child, _ in some], "parents": [[str(p) for p in ps] for _, ps in some]}
        return families(pl.DataFrame(data, schema={"example_id": pl.String, "parents": pl.List(pl.String)}))

    family = found(edges)
    assert family == found(edges[::-1])
    for child, parents in edges:
        assert all(family[str(child)] == family[str(parent)] for parent in parents)
    for member, head in family.items():
        assert head <= member
        assert family[head] == head


def test_the_sidecar_leads_to_the_call_and_its_price(tmp_path):
    calls = pl.DataFrame({"rationale_id": ["r1"], "call_key": ["k"], "model": ["m"], "cost_usd": [0.25]})
    export(Frozen(snapshot_rows({}, {})), to=["trl"], out=tmp_path / "o", background=Background(calls=calls))
    found = pl.read_parquet(tmp_path / "o/rows.parquet").select("row_id", "version", "call_key", "model", "cost_usd")
    assert found.rows() == [("train0", 7, None, None, None), ("train1", 7, "k", "m", 0.25)]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return small_base(tmp_path_factory.mktemp("base") / "base")


def test_lengths_are_those_of_the_students_own_rendering(base):
    counter = student.counter(base)
    chat = [{"role": "user", "content": "What is red?"}, {"role": "assistant", "content": "A rose."}]
    (length,) = counter.measure([chat])
    texts = [counter.count(message["content"]) for message in chat]
    assert counter.exact
    assert length.total == sum(texts) + 4  # BOS, two headers, EOS
    assert length.trained == texts[1] + 1  # EOS
    assert counter.context == TINY.context


def test_rows_beyond_the_students_context_fail_unless_told(tmp_path, base):
    rows, counter = Frozen(snapshot_rows({}, {"rationale": "long " * 200})), student.counter(base)
    with pytest.raises(ExportError, match=r"over_context 1.*--drop-long"):
        export(rows, to=["trl"], out=tmp_path / "o", options=Options(tokens=counter))
    report = export(rows, to=["trl"], out=tmp_path / "o", options=Options(tokens=counter, drop_long=True))
    assert report.dropped == {"train": {"over_context": 1}}
    assert report.content["targets"]["trl"]["settings"]["max_length"] == TINY.context
    assert report.warnings == ("1 of 2 rows were left out; rows.parquet says why",)


def test_a_template_without_reasoning_is_noticed(tmp_path, base):
    options = Options(tokens=student.counter(base), rationale="reasoning_content")
    with pytest.raises(ExportError, match="does not write it"):
        export(Frozen(snapshot_rows({})), to=["trl"], out=tmp_path / "o", options=options)
    template = (
        "{% for m in messages %}{{ m.role }}: {% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>"
        "{% endif %}{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )
    thinking = student.counter(pretrained_folder(tmp_path / "model", chat_template=template))
    export(
        Frozen(snapshot_rows({})),
        to=["trl"],
        out=tmp_path / "o",
        options=Options(tokens=thinking, rationale="reasoning_content"),
    )


@pytest.mark.parametrize("source", ["no/such/folder", __file__, "."])
def test_what_is_no_tokenizer_is_named(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudentError, match=r"tokenizer .*: (cannot be read|no such folder)"):
        student.counter(source)


def test_texts_of_a_megabyte_and_control_characters_come_back_whole(tmp_path):
    hostile = ["a\x00b", "x" * 1_000_000, "<|im_end|>", "a\u2028\x85\x1cb", "../../etc/passwd", "CON", "\ufeffbom"]
    rows = snapshot_rows(*({"prompt": text, "domain": text[:30]} for text in hostile * 2))
    export(Frozen(rows), to=["all"], out=tmp_path / "o")
    for name in OTHERS:
        assert [prompt for prompt, _ in texts_of(tmp_path / "o", name)] == hostile * 2, name
    assert {path.name for path in (tmp_path / "o").iterdir()} == {*OTHERS, "rows.parquet", "EXPORT_REPORT.json"}
    assert all(path.relative_to(tmp_path / "o").as_posix().isascii() for path in (tmp_path / "o").rglob("*"))


def test_the_order_of_the_frame_changes_no_byte_of_any_target(tmp_path):
    rows = snapshot_rows(*({"prompt": f"p{i}"} for i in range(12)))
    export(Frozen(rows), to=["all"], out=tmp_path / "a")
    export(Frozen(rows.reverse()), to=["all"], out=tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_a_frame_of_examples_gives_families():
    row = {
        "example_id": "x", "prompt": "p", "domain": "d", "split": "train", "origin": "synthetic", "parents": ["y"],
        "added_in": 1,
    }  # fmt: skip
    assert families(frames.EXAMPLES.of([row])) == {"x": "x", "y": "x"}


@given(st.integers(1, 2_000), st.integers(1, 2_000))
def test_weighed_wanted_and_unwanted_rows_are_as_near_as_kto_asks(wanted, unwanted):
    weights = trl_preferences.weights(wanted, unwanted)
    ratio = weights["desirable_weight"] * wanted / (weights["undesirable_weight"] * unwanted)
    assert 1 - 1e-9 <= ratio <= 4 / 3 + 1e-9
    assert min(weights.values()) == 1
