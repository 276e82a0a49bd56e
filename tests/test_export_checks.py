"""Exports read by the trainers' own code, each in an environment of its own, and our names in the packages' sources.

`make check-exports` runs the slow ones, which need a package index; BALKIT_CACHE says where the environments lie.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import polars as pl
import pytest
import yaml
from student_toys import small_base
from test_export import Frozen, snapshot_rows
from test_export_loaders import HOSTILE
from test_pairs import pairs_for

from balkit import student
from balkit.errors import ExportError
from balkit.exports import TARGETS, Background, Options, checks, export
from balkit.exports.material import Material
from balkit.exports.rows import prepare, sliced

ROOT = Path(__file__).resolve().parent.parent
ROWS = Frozen(snapshot_rows(*({"prompt": text, "rationale": text, "domain": text[:20]} for text in HOSTILE * 2)))
VALIDATION = snapshot_rows({"prompt": "held out"}, {"prompt": "2024-01-01"}, split="dev")


def material(rows):
    options, sources = Options(), {"train": sliced(rows), "validation": sliced(VALIDATION)}
    considered = {
        part: prepare(blocks, part=part, snapshot_id="s", options=options) for part, blocks in sources.items()
    }
    given = {"snapshot_id": "s", "digest": "d", "version": 1, "options": options}
    return Material(considered=considered, sources=sources, spool=Path(), **given)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("checked") / "o"
    export(ROWS, to=["hf"], out=out, validation=VALIDATION)
    return out / "hf"


def test_a_loader_sees_the_rows_roles_and_texts_that_were_written(folder):
    pytest.importorskip("datasets")
    found = checks.check("hf", folder, material(ROWS.rows), python=Path(sys.executable))
    assert found["rows"] == len(HOSTILE) * 2 + 2
    assert found["version"]


def test_other_texts_than_were_written_are_noticed(folder):
    pytest.importorskip("datasets")
    changed = snapshot_rows(*({"prompt": text, "rationale": text} for text in [*HOSTILE, *HOSTILE[::-1]]))
    with pytest.raises(ExportError, match="its own loader sees"):
        checks.check("hf", folder, material(changed), python=Path(sys.executable))


def test_what_a_loader_refuses_is_told_with_its_last_words(tmp_path):
    with pytest.raises(ExportError, match="its own loader does not take the export"):
        checks.check("hf", tmp_path, material(ROWS.rows), python=Path(sys.executable))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"system": "Be brief.", "rationale": "think"}])
@pytest.mark.parametrize("name", [name for name in checks.REQUIREMENTS if not TARGETS[name].paired])
def test_the_trainers_own_loader_takes_every_row(name, options, tmp_path):
    # A rationale with a think tag of its own has no place in the form `think`.
    rows = Frozen(ROWS.rows.filter(~ROWS.rows["rationale"].str.contains("think>")))
    chosen = Options(check=True, **options)
    report = export(rows, to=[name], out=tmp_path / "o", validation=VALIDATION, options=chosen)
    assert report.content["targets"][name]["check"]["rows"] == rows.rows.height + 2


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"system": "Be brief.", "rationale": "think"}])
@pytest.mark.parametrize("name", [name for name in checks.REQUIREMENTS if TARGETS[name].paired])
def test_the_trainers_own_loader_takes_every_pair(name, options, tmp_path):
    rows = Frozen(ROWS.rows.filter(~ROWS.rows["rationale"].str.contains("think>")))
    pairs = pairs_for(pl.concat([rows.rows, VALIDATION]), text="Or so it seems.")
    chosen = Options(check=True, **options)
    report = export(
        rows, to=[name], out=tmp_path / "o", validation=VALIDATION, options=chosen, background=Background(pairs=pairs)
    )
    found = report.content["targets"][name]
    pairs_written = sum(found["pairs"].values())
    assert found["check"]["rows"] == pairs_written * (2 if name == "trl-kto" else 1) > 2


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"system": "Be brief."}])
def test_reasoning_is_taken_where_it_is_offered(options, tmp_path):
    chosen = Options(check=True, rationale="reasoning_content", **options)
    export(ROWS, to=["trl", "mlx", "hf"], out=tmp_path / "o", validation=VALIDATION, options=chosen)


@pytest.mark.slow
def test_trl_trains_two_steps_and_its_labels_mask_exactly_the_prompt(tmp_path):
    wanted = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "trl")]
    if subprocess.run([*wanted, PACKAGES["trl"]], capture_output=True, check=False).returncode:
        pytest.skip(f"{PACKAGES['trl']} cannot be fetched")
    base = small_base(tmp_path / "base")
    rows = Frozen(snapshot_rows(*[{}] * 5, {"prompt": "red é <think>", "rationale": "rose"}))
    options = Options(system="Be brief.", tokens=student.counter(base))
    report = export(rows, to=["trl"], out=tmp_path / "o", validation=VALIDATION, options=options)
    script = Path(__file__).with_name("trl_two_steps.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "o/trl"), str(base), str(tmp_path / "student")],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "trl"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["steps"], found["finite"]) == (2, True)
    assert found["rows"] == [
        [f"<|bos|><|user|>Be brief.<|user|>{row['prompt']}<|assistant|>",
         f"{row['rationale']}\nAnswer: {row['answer']}<|eos|>"]
        for row in rows.rows.iter_rows(named=True)
    ]  # fmt: skip
    assert found["tokens"] == report.content["targets"]["trl"]["trainable_tokens"]


PACKAGES = {
    "axolotl": "axolotl==0.21.0", "llamafactory": "llamafactory==0.9.5", "mlx": "mlx-lm==0.32.2", "trl": "trl==1.16.0",
    "verl": "verl==0.9.1", "nemo": "megatron-bridge==0.6.2", "automodel": "nemo-automodel==0.7.0",
    "unsloth": "unsloth==2026.10.9",
}  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a package, fetched without its requirements."""
    home = tmp_path_factory.mktemp("sources")

    def fetch(name: str) -> Path:
        wanted = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        wanted += ["--platform", "any", "--platform", "manylinux_2_28_x86_64", "--python-version", "3.12"]
        done = subprocess.run([*wanted, "--dest", str(home / name), PACKAGES[name]], capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"{PACKAGES[name]} cannot be fetched")
        (found,) = (home / name).glob("*.whl")
        return found

    return fetch


@pytest.fixture(scope="module")
def sources(wheel):
    """The sources of a package as one text."""

    def read(name: str, pattern: str) -> str:
        with zipfile.ZipFile(wheel(name)) as file:
            inside = [entry for entry in file.namelist() if re.search(pattern, entry)]
            assert inside, pattern
            return "\n".join(file.read(entry).decode() for entry in inside)

    return read


@pytest.fixture(scope="module")
def every(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("every") / "o"
    pairs = pairs_for(pl.concat([ROWS.rows, VALIDATION]), text="Or so it seems.")
    export(ROWS, to=["all"], out=out, validation=VALIDATION, background=Background(pairs=pairs))
    return out


def fields(source: str) -> set[str]:
    """Names that are declared with a type, as fields of dataclasses, pydantic models and parameters are."""
    return set(re.findall(r"^\s*(\w+)\s*:\s", source, flags=re.MULTILINE))


@pytest.mark.slow
def test_axolotl_knows_every_key_of_axolotl_yaml(every, sources):
    known = fields(sources("axolotl", r"axolotl/utils/schemas/.*\.py$"))
    config = yaml.safe_load((every / "axolotl/axolotl.yaml").read_text())
    assert set(config) <= known
    assert set(config["datasets"][0]) <= known
    assert config["test_datasets"][0].keys() == config["datasets"][0].keys()


@pytest.mark.slow
def test_llamafactory_knows_every_key_of_its_files(every, sources):
    known = fields(sources("llamafactory", r"llamafactory/(hparams|data)/.*\.py$"))
    config = yaml.safe_load((every / "llamafactory/train.yaml").read_text())
    inherited = {"do_train", "output_dir", "eval_strategy"}  # transformers.TrainingArguments
    assert set(config) - inherited <= known
    preferring = yaml.safe_load((every / "llamafactory-dpo/train.yaml").read_text())
    assert set(preferring) - inherited <= known
    for name in ("llamafactory", "llamafactory-dpo"):
        info = yaml.safe_load((every / name / "dataset_info.json").read_text())["balkit_train"]
        assert set(info) - {"file_name", "columns", "tags"} <= known
        assert {*info["columns"], *info["tags"]} <= known


@pytest.mark.slow
def test_mlx_knows_every_key_of_lora_yaml(every, sources):
    source = sources("mlx", r"mlx_lm/lora\.py$")
    config = yaml.safe_load((every / "mlx/lora.yaml").read_text())
    assert all(f'"{key}"' in source or f"--{key.replace('_', '-')}" in source for key in config)


@pytest.mark.slow
def test_trl_knows_every_key_of_its_configs(every, sources):
    source = sources("trl", r"trl/(trainer/(sft|base|dpo|kto)_config|scripts/utils)\.py$")
    inherited = {"output_dir", "eval_strategy"}  # transformers.TrainingArguments
    for file in sorted(every.glob("trl*/*.yaml")):
        assert set(yaml.safe_load(file.read_text())) - inherited <= fields(source), file.name


@pytest.mark.slow
def test_verl_knows_every_setting_of_run_sh(every, sources):
    sft = sources("verl", r"trainer/config/sft_trainer_engine\.yaml$|dataset/multiturn_sft_dataset\.py$")
    learning = sources("verl", r"trainer/config/_generated_ppo_trainer\.yaml$|dataset/rl_dataset\.py$")
    for name, source in (("verl", sft), ("verl-rl", learning)):
        keys = re.findall(r"^  ([\w.]+)=", (every / name / "run.sh").read_text(), flags=re.MULTILINE)
        assert keys
        unknown = {key for key in keys if key.split(".")[-1] not in fields(source)} - {
            "model.path",
            "actor_rollout_ref.rollout.n",
        }
        assert unknown == set()
    assert re.search(
        r"^    '?\"?n\"?'?: ", learning, flags=re.MULTILINE
    )  # quoted: YAML 1.1 takes a bare n for a truth value
    assert {"data_source", "extra_info"} <= set(re.findall(r"\"(\w+)\"", learning))


@pytest.mark.slow
def test_nemo_knows_the_files_and_settings(every, sources):
    bridge = sources("nemo", r"bridge/data/(builders/gpt_sft|sft_processing)\.py$")
    assert '"training.jsonl"' in bridge
    assert '"validation.jsonl"' in bridge
    used = set(re.findall(r"(\w+)=", (every / "nemo/bridge.py").read_text()))
    assert used <= fields(bridge)
    config = yaml.safe_load((every / "nemo/automodel.yaml").read_text())["dataset"]
    assert set(config) - {"_target_"} <= fields(sources("automodel", r"datasets/llm/chat_dataset\.py$"))


@pytest.mark.slow
@pytest.mark.parametrize(("target", "package"), [("verl", "verl"), ("nemo", "automodel")])
def test_the_trainers_own_dataset_covers_exactly_the_answers(target, package, wheel, tmp_path):
    with zipfile.ZipFile(wheel(package)) as file:
        file.extractall(tmp_path / "sources")
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--target",
        str(tmp_path / "more"),
        "omegaconf==2.3.0",
    ]
    if subprocess.run(install, capture_output=True, check=False).returncode:
        pytest.skip("omegaconf cannot be fetched")
    base = small_base(tmp_path / "base")
    rows = Frozen(snapshot_rows(*[{}] * 3, {"prompt": "red é <think>", "rationale": "rose"}))
    export(rows, to=[target], out=tmp_path / "o", validation=VALIDATION, options=Options(system="Be brief."))
    script = Path(__file__).with_name("own_datasets.py")
    asked = [target, str(tmp_path / "sources"), str(tmp_path / "o" / target), str(base)]
    done = subprocess.run(
        [sys.executable, str(script), *asked],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path / "more")]), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    expected = [f"{row['rationale']}\nAnswer: {row['answer']}<|eos|>" for row in rows.rows.iter_rows(named=True)]
    assert json.loads(done.stdout.splitlines()[-1]) == expected


@pytest.mark.slow
def test_unsloth_has_what_train_py_imports(sources):
    source = sources("unsloth", r"unsloth/(chat_templates|models/loader|__init__)\.py$")
    assert all(name in source for name in ("train_on_responses_only", "class FastLanguageModel", "max_seq_length"))
