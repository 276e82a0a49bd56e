"""Exports: what is written, what is left out and said, what a hostile text or a full folder does."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from balkit.errors import ExportError, FrameError
from balkit.exports import Options, export
from balkit.exports.rows import SLICE, quantiles
from balkit.frames import SNAPSHOT_ROWS
from balkit.tokens import Counter

WORDS = Counter("words", exact=True, count=lambda text: len(text.split()))


@dataclass(frozen=True)
class Frozen:
    """The part of pool.Snapshot that an export reads."""

    rows: pl.DataFrame
    snapshot_id: str = "0123456789ab-s3"
    digest: str = "d" * 64
    version: int = 7


def snapshot_rows(*changes: dict[str, object], split: str = "train") -> pl.DataFrame:
    rows = []
    for i, change in enumerate(changes):
        row: dict[str, object] = {
            "position": i, "row_id": f"{split}{i}", "stage": 1, "example_id": f"e{i}", "rationale_id": f"r{i}",
            "copy": 0, "domain": "sums", "split": split, "origin": "source", "prompt": f"What is {i} + {i}?",
            "reference": str(2 * i), "rationale": f"Two times {i}.", "answer": str(2 * i), "author": "teacher-1",
        }  # fmt: skip
        rows.append(row | change)
    return SNAPSHOT_ROWS.of(rows)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().decode().split("\n")[:-1]]


def tree(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_trl_rows_are_a_prompt_and_a_completion_and_nothing_else(tmp_path):
    export(Frozen(snapshot_rows({}, {})), to=["trl"], out=tmp_path / "out")
    assert lines(tmp_path / "out/trl/data/train.jsonl")[1] == {
        "prompt": [{"role": "user", "content": "What is 1 + 1?"}],
        "completion": [{"role": "assistant", "content": "Two times 1.\nAnswer: 2"}],
    }


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("inline", "Two times 1.\nAnswer: 2"),
        ("think", "<think>\nTwo times 1.\n</think>\n\n2"),
        ("none", "2"),
    ],
)
def test_the_rationale_takes_the_chosen_form(tmp_path, form, text):
    export(Frozen(snapshot_rows({}, {})), to=["trl"], out=tmp_path / "out", options=Options(rationale=form))
    assert lines(tmp_path / "out/trl/data/train.jsonl")[1]["completion"][0]["content"] == text


def test_the_system_message_comes_first_in_every_row(tmp_path):
    export(Frozen(snapshot_rows({}, {})), to=["trl"], out=tmp_path / "out", options=Options(system="Be brief."))
    for row in lines(tmp_path / "out/trl/data/train.jsonl"):
        assert row["prompt"][0] == {"role": "system", "content": "Be brief."}


def test_rows_keep_the_order_of_the_snapshot_whatever_the_frame(tmp_path):
    rows = snapshot_rows({}, {}, {}, {})
    export(Frozen(rows), to=["trl", "hf"], out=tmp_path / "a")
    export(Frozen(rows.reverse()), to=["trl", "hf"], out=tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_every_target_writes_the_same_bytes_twice(tmp_path):
    for name in ("a", "b"):
        validation = snapshot_rows({"prompt": "new"}, split="dev")
        export(Frozen(snapshot_rows(*[{}] * 12)), to=["all"], out=tmp_path / name, validation=validation)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_provenance_stands_in_the_sidecar_with_the_line_of_each_row(tmp_path):
    rows = snapshot_rows({"answer": " "}, {"domain": "../../etc", "origin": "synthetic"})
    export(Frozen(rows), to=["trl"], out=tmp_path / "out", options=Options(drop_refused=True))
    sidecar = pl.read_parquet(tmp_path / "out/rows.parquet")
    assert sidecar.select("row_id", "line", "kept", "reason").rows() == [
        ("train0", None, False, "empty_answer"),
        ("train1", 0, True, None),
    ]
    kept = sidecar.row(1, named=True)
    assert (kept["domain"], kept["origin"], kept["author"], kept["snapshot"]) == (
        "../../etc", "synthetic", "teacher-1", "0123456789ab-s3",
    )  # fmt: skip


def test_every_dropped_row_has_a_reason_in_the_report(tmp_path):
    rows = snapshot_rows(
        {}, {"answer": ""}, {"prompt": " "}, {"rationale": "a </think> b"}, {"rationale": "word " * 50}
    )
    options = Options(rationale="think", tokens=WORDS, max_length=40, drop_long=True, drop_refused=True)
    report = export(Frozen(rows), to=["trl"], out=tmp_path / "out", options=options)
    dropped = {"empty_answer": 1, "empty_prompt": 1, "over_length": 1, "think_tag_in_rationale": 1}
    assert report.dropped == {"train": dropped}
    assert report.rows == {"train": 1}
    assert any("4 of 5 rows were left out" in line for line in report.warnings)


def test_validation_rows_that_stand_in_train_are_left_out(tmp_path):
    validation = snapshot_rows({"prompt": "WHAT is 0 + 0?"}, {"prompt": "Something else"}, split="dev")
    report = export(Frozen(snapshot_rows({})), to=["trl"], out=tmp_path / "out", validation=validation)
    assert report.rows == {"train": 1, "validation": 1}
    assert report.dropped == {"validation": {"prompt_in_train": 1}}


@pytest.mark.parametrize(
    ("train", "validation"), [("eval", "dev"), ("dev", "dev"), ("train", "eval"), ("train", "train")]
)
def test_rows_of_a_wrong_split_are_refused(tmp_path, train, validation):
    with pytest.raises(ExportError, match="eval rows are never exported"):
        export(
            Frozen(snapshot_rows({}, split=train)),
            to=["trl"],
            out=tmp_path / "out",
            validation=snapshot_rows({"prompt": "x"}, split=validation),
        )
    assert not list(tmp_path.iterdir())


def test_sft_yaml_sets_a_limit_that_holds_the_longest_row(tmp_path):
    rows = snapshot_rows({}, {"rationale": "word " * 3000})
    report = export(Frozen(rows), to=["trl"], out=tmp_path / "out", options=Options(tokens=WORDS))
    config = yaml.safe_load((tmp_path / "out/trl/sft.yaml").read_text())
    assert 3000 < config["max_length"] <= 3200
    assert report.content["targets"]["trl"] == {
        "default_limit": 1024, "rows_over_default_limit": 1, "setting": "max_length", "fate": "longer rows are cut",
        "settings": {"max_length": config["max_length"]}, "compared_with": "trl 1.16.0", "check": None,
        "trainable_tokens": report.content["tokens"]["train"]["trainable"],
    }  # fmt: skip
    assert "eval_strategy" not in config


def test_short_rows_leave_trls_default_limit(tmp_path):
    export(Frozen(snapshot_rows({})), to=["trl"], out=tmp_path / "out", options=Options(tokens=WORDS))
    assert yaml.safe_load((tmp_path / "out/trl/sft.yaml").read_text())["max_length"] == 1024


def test_an_estimate_is_called_one_and_bounds_the_limit_by_bytes(tmp_path):
    report = export(Frozen(snapshot_rows({"prompt": "é" * 2000})), to=["trl"], out=tmp_path / "out")
    assert report.content["tokens"]["exact"] is False
    assert any("estimate" in line for line in report.warnings)
    assert report.content["targets"]["trl"]["settings"]["max_length"] > 4000


def test_lengths_are_counted_with_the_given_counter(tmp_path):
    rows = snapshot_rows({"prompt": "a b c", "rationale": "d e", "answer": "f"})
    report = export(Frozen(rows), to=["trl"], out=tmp_path / "out", options=Options(tokens=WORDS))
    assert report.content["tokens"]["train"] == {"p50": 7, "p95": 7, "max": 7, "total": 7, "trainable": 4}


@given(st.lists(st.integers(0, 1000), min_size=1))
def test_quantiles_are_lengths_that_occur_and_rise(lengths):
    found = quantiles(lengths)
    assert set(found.values()) <= set(lengths)
    assert found["p50"] <= found["p95"] <= found["max"] == max(lengths)


def test_unknown_targets_are_named_with_the_known_ones(tmp_path):
    with pytest.raises(ExportError, match=r"'trll'; known: trl, trl-dpo, trl-kto, axolotl"):
        export(Frozen(snapshot_rows({})), to=["trl", "trll"], out=tmp_path / "out")


def test_a_folder_that_is_not_empty_is_kept(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ExportError, match="is not empty"):
        export(Frozen(snapshot_rows({})), to=["trl"], out=tmp_path)
    with pytest.raises(ExportError, match="is not an export"):
        export(Frozen(snapshot_rows({})), to=["trl"], out=tmp_path, options=Options(overwrite=True))
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_what_no_export_wrote_is_never_replaced(tmp_path):
    export(Frozen(snapshot_rows({})), to=["trl"], out=tmp_path / "out")
    (tmp_path / "out/trl/student").mkdir()
    (tmp_path / "out/trl/student/model.safetensors").write_text("hours of training")
    before = tree(tmp_path)
    with pytest.raises(ExportError, match="holds 1 files that no export wrote, such as trl/student/model"):
        export(Frozen(snapshot_rows({})), to=["trl"], out=tmp_path / "out", options=Options(overwrite=True))
    assert tree(tmp_path) == before


def test_the_folder_one_is_in_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError, match="is the folder that you are in"):
        export(Frozen(snapshot_rows({})), to=["trl"], out=".")


def test_overwrite_replaces_an_earlier_export_whole(tmp_path):
    export(Frozen(snapshot_rows({}, {})), to=["trl", "jsonl"], out=tmp_path / "out")
    export(Frozen(snapshot_rows({})), to=["trl"], out=tmp_path / "out", options=Options(overwrite=True))
    assert len(lines(tmp_path / "out/trl/data/train.jsonl")) == 1
    assert not (tmp_path / "out/jsonl").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_and_missing_parents_are_fine(tmp_path):
    (tmp_path / "out").mkdir()
    export(Frozen(snapshot_rows({})), to=["trl"], out=tmp_path / "out")
    export(Frozen(snapshot_rows({})), to=["trl"], out=tmp_path / "a/b/c")
    assert (tmp_path / "a/b/c/EXPORT_REPORT.json").is_file()


def test_a_failed_export_leaves_what_was_there(tmp_path):
    export(Frozen(snapshot_rows({})), to=["trl"], out=tmp_path / "out")
    before = tree(tmp_path)
    options = Options(overwrite=True, drop_refused=True)
    with pytest.raises(ExportError, match="no row is left"):
        export(Frozen(snapshot_rows({"answer": ""})), to=["trl"], out=tmp_path / "out", options=options)
    assert tree(tmp_path) == before


def test_a_place_that_cannot_be_written_is_an_export_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="is a file"):
        export(Frozen(snapshot_rows({})), to=["trl"], out=tmp_path / "file")
    with pytest.raises(ExportError, match="cannot be written"):
        export(Frozen(snapshot_rows({})), to=["trl"], out=tmp_path / "file/out")


def test_an_empty_snapshot_and_a_foreign_frame_are_refused(tmp_path):
    with pytest.raises(ExportError, match="the snapshot has no rows"):
        export(Frozen(SNAPSHOT_ROWS.empty()), to=["trl"], out=tmp_path / "out")
    with pytest.raises(FrameError, match="SNAPSHOT_ROWS"):
        export(Frozen(pl.DataFrame({"a": [1]})), to=["trl"], out=tmp_path / "out")


def test_a_row_that_comes_twice_is_refused(tmp_path):
    with pytest.raises(ExportError, match="row_id same more than once"):
        export(Frozen(snapshot_rows({"row_id": "same"}, {"row_id": "same"})), to=["trl"], out=tmp_path / "out")


@pytest.mark.parametrize(
    "options", [Options(system="a\ud800b"), Options(license="\udfff"), Options(system=" "), Options(max_length=0)]
)
def test_options_that_cannot_be_written_are_refused(tmp_path, options):
    with pytest.raises(ExportError, match=r"system|license|max_length"):
        export(Frozen(snapshot_rows({})), to=["trl"], out=tmp_path / "out", options=options)


def test_a_frame_cannot_hold_a_lone_surrogate():
    with pytest.raises(UnicodeEncodeError):
        snapshot_rows({"prompt": "a\ud800b"})


def test_control_tokens_are_kept_and_reported(tmp_path):
    rows = snapshot_rows(
        {"prompt": "Say <|im_end|><|im_start|>system"}, {"rationale": "</s>"}, {"prompt": "a < b|c > d"}
    )
    report = export(Frozen(rows), to=["trl"], out=tmp_path / "out")
    assert lines(tmp_path / "out/trl/data/train.jsonl")[0]["prompt"][0]["content"] == "Say <|im_end|><|im_start|>system"
    assert any("2 rows hold a chat template's control tokens" in line for line in report.warnings)


def test_names_never_become_paths(tmp_path):
    evil = Frozen(snapshot_rows({"domain": "../../d", "author": "/etc/passwd"}), snapshot_id="../../evil")
    export(evil, to=["all"], out=tmp_path / "deep/er/out")
    outside = {path for path in tmp_path.rglob("*") if path.is_file()} - set((tmp_path / "deep/er/out").rglob("*"))
    assert outside == set()


def test_the_report_lists_every_other_file_with_its_digest(tmp_path):
    report = export(Frozen(snapshot_rows({})), to=["all"], out=tmp_path / "out")
    found = {name: entry["sha256"] for name, entry in report.content["files"].items()}
    on_disk = tree(tmp_path / "out")
    del on_disk["EXPORT_REPORT.json"]
    assert found == on_disk
    assert json.loads((tmp_path / "out/EXPORT_REPORT.json").read_text()) == report.content


def test_rows_of_many_blocks_keep_their_order_and_their_reasons(tmp_path):
    rows = snapshot_rows(*({"prompt": f"p{i}", "answer": " " if i % 3 == 0 else "x"} for i in range(2 * SLICE + 5)))
    report = export(Frozen(rows), to=["openai"], out=tmp_path / "out", options=Options(drop_refused=True))
    asked = [row["messages"][0]["content"] for row in lines(tmp_path / "out/openai/train.jsonl")]
    assert asked == [f"p{i}" for i in range(2 * SLICE + 5) if i % 3]
    sidecar = pl.read_parquet(tmp_path / "out/rows.parquet")
    assert sidecar["row_id"].to_list() == rows["row_id"].to_list()
    assert sidecar["line"].drop_nulls().to_list() == list(range(report.rows["train"]))
