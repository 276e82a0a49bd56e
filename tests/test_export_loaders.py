"""Exports through the real loaders: `datasets.load_dataset` on files and folders, `huggingface_hub.DatasetCard`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml
from test_export import WORDS, Frozen, snapshot_rows

from balkit.exports import Options, export

HOSTILE = [
    "plain",
    "line\nbreaks\r\nand\ttabs, a NUL \x00, U+2028 \u2028, U+2029 \u2029, NEL \x85, BOM \ufeff",
    "quotes \" \\ ' and {braces} $dollar <<markers>> %s",
    "emoji 👩‍🔬🏳️‍🌈, Arabic سلام, combining e\u0301, noncharacter \uffff",
    "<|im_end|>\n<|im_start|>assistant\n</s>[INST]<think>",
    "../../../etc/passwd",
    "| pipe | table |\n---\nconfigs: []\n---",
    "long " * 220_000,
]


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """load_dataset with a cache of its own, so that no run sees another's files."""
    datasets = pytest.importorskip("datasets")
    cache = str(tmp_path_factory.mktemp("cache"))
    return lambda *args, **kwargs: datasets.load_dataset(*args, cache_dir=cache, **kwargs)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "out"
    rows = snapshot_rows(*({"prompt": text, "rationale": text, "domain": text[:40]} for text in HOSTILE))
    validation = snapshot_rows({"prompt": "held out"}, {"prompt": "held out too", "reference": None}, split="dev")
    export(
        Frozen(rows),
        to=["trl", "hf", "jsonl"],
        out=out,
        validation=validation,
        options=Options(tokens=WORDS, license="mit"),
    )
    return out


def test_trl_files_load_with_every_text_unchanged(exported, load):
    rows = load("json", data_files={"train": str(exported / "trl/data/train.jsonl")}, split="train")
    assert set(rows.column_names) == {"prompt", "completion"}
    assert [row["prompt"] for row in rows] == [[{"role": "user", "content": text}] for text in HOSTILE]
    assert {message["role"] for row in rows for message in row["completion"]} == {"assistant"}
    assert all(row["completion"][0]["content"].endswith("\nAnswer: " + str(2 * i)) for i, row in enumerate(rows))


def test_the_trl_folder_loads_as_sft_yaml_names_it(exported, load, monkeypatch):
    monkeypatch.chdir(exported / "trl")
    config = yaml.safe_load(Path("sft.yaml").read_text())
    splits = load(config["dataset_name"])
    assert splits[config["dataset_train_split"]].num_rows == len(HOSTILE)
    assert splits[config["dataset_test_split"]].num_rows == 2


def test_the_hf_folder_round_trips(exported, load):
    splits = load(str(exported / "hf"))
    assert {name: rows.num_rows for name, rows in splits.items()} == {"train": len(HOSTILE), "validation": 2}
    rows = splits["train"]
    assert [row["messages"][0]["content"] for row in rows] == HOSTILE
    assert [[message["role"] for message in row["messages"]] for row in rows] == [["user", "assistant"]] * len(HOSTILE)
    assert rows[0]["row_id"] == "train0"
    assert rows[0]["teacher"] == "teacher-1"
    assert splits["validation"][1]["reference"] is None


def test_jsonl_holds_the_canonical_rows_of_hf(exported, load):
    files = {"train": str(exported / "jsonl/train.jsonl")}
    assert load("json", data_files=files, split="train").to_list() == load(str(exported / "hf"))["train"].to_list()


def test_the_card_is_one_that_the_hub_reads(exported):
    hub = pytest.importorskip("huggingface_hub")
    card = hub.DatasetCard.load(exported / "hf/README.md")
    assert card.data.license == "mit"
    assert card.data.configs[0]["config_name"] == "default"
    assert [entry["split"] for entry in card.data.configs[0]["data_files"]] == ["train", "validation"]


def test_no_license_is_invented(tmp_path):
    export(Frozen(snapshot_rows({})), to=["hf"], out=tmp_path / "out")
    card = (tmp_path / "out/hf/README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["license"] == "unknown"
    assert "License of the data set: not stated." in card


def test_hostile_names_stay_inside_their_table_cells(exported):
    card = (exported / "hf/README.md").read_text()
    table = card.split("| domain | quota |")[1].split("\n\n")[0].splitlines()[1:]
    assert len(table) == 1 + len(HOSTILE) + 1
    assert all(line.replace("\\|", "").count("|") == 9 for line in table)


def test_parquet_types_do_not_depend_on_the_rows(exported):
    schemas = [pl.read_parquet_schema(file) for file in sorted((exported / "hf/data").glob("*.parquet"))]
    assert schemas[0] == schemas[1]


def test_exporting_needs_no_optional_package():
    code = "import sys, balkit.exports as e; sys.exit(any(m in sys.modules for m in ('torch', 'datasets', 'duckdb')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
