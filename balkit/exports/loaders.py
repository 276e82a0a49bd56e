"""Reads an export with the code of the trainer's own package, and prints what it saw as JSON.

A script for an environment of its own, which `balkit.exports.checks` makes: `python -I loaders.py trl FOLDER CACHE`.
It needs that package alone, and neither balkit nor torch: packages that import their whole stack are entered by the
one module that reads, with stubs for what it does not use.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

Turns = list[tuple[str, str]]


class Plain:
    """A chat template and a tokenizer of bytes: what the readers need of either."""

    chat_template = "plain"
    eos_token_id = 0

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        tokenize: bool = True,
        add_generation_prompt: bool = False,
        **_: Any,
    ) -> Any:
        """`[role]content` one after the other."""
        text = "".join(f"[{message['role']}]{message['content']}" for message in messages)
        text += "[assistant]" if add_generation_prompt else ""
        return list(text.encode()) if tokenize else text


def digest(rows: Iterator[Turns]) -> tuple[int, str]:
    """How many conversations there are, and sha256 of their roles and texts in order."""
    found, count = hashlib.sha256(), 0
    for turns in rows:
        found.update(json.dumps([list(turn) for turn in turns]).encode() + b"\n")
        count += 1
    return count, found.hexdigest()


def read_trl(folder: Path, cache: str) -> Iterator[Turns]:
    """`trl sft` loads the folder with `datasets`, and TRL renders prompt and completion apart."""
    data_utils = importlib.import_module("trl.data_utils")
    for row in _datasets(folder / "data", cache):
        if not data_utils.is_conversational(row) or data_utils.maybe_convert_to_chatml(row) != row:
            raise SystemExit(f"TRL does not take this row for a conversation: {str(row)[:200]}")
        rendered = data_utils.apply_chat_template(row, Plain())
        turns = _turns([*row["prompt"], *row["completion"]])
        if rendered["completion"] != turns[-1][1] or not rendered["prompt"].endswith("[assistant]"):
            raise SystemExit(f"TRL renders another completion: {str(rendered)[:200]}")
        yield turns


def read_trl_preferences(folder: Path, cache: str) -> Iterator[Turns]:
    """`trl dpo` and `trl kto` load the folder with `datasets`; TRL renders the prompt and what follows it apart."""
    data_utils = importlib.import_module("trl.data_utils")
    for row in _datasets(folder / "data", cache):
        if not data_utils.is_conversational(row) or data_utils.maybe_convert_to_chatml(row) != row:
            raise SystemExit(f"TRL does not take this row for a conversation: {str(row)[:200]}")
        rendered = data_utils.apply_chat_template(row, Plain())
        after = [name for name in ("chosen", "rejected", "completion") if name in row]
        if any(not rendered["prompt"].endswith("[assistant]") or rendered[n] != row[n][0]["content"] for n in after):
            raise SystemExit(f"TRL renders another answer: {str(rendered)[:200]}")
        label = [("label", str(row["label"]))] if "label" in row else []
        yield [*_turns([*row["prompt"], *(row[name][0] for name in after)]), *label]


def read_llamafactory(folder: Path, cache: str) -> Iterator[Turns]:
    """LLaMA-Factory's parser of dataset_info.json and its converter, which empties rows that it dislikes."""
    root = _package("llamafactory")
    for name in ("llamafactory.data", "llamafactory.extras"):
        _stub(name, path=root / name.split(".")[1])
    _stub("llamafactory.extras.constants", DATA_CONFIG="dataset_info.json", RUNNING_LOG="running_log.txt")
    _stub("llamafactory.extras.misc", use_modelscope=lambda: False, use_openmind=lambda: False)
    parser = importlib.import_module("llamafactory.data.parser")
    converter = importlib.import_module("llamafactory.data.converter")
    names = list(json.loads((folder / "dataset_info.json").read_text(encoding="utf-8")))
    for attributes in parser.get_dataset_list(names, str(folder)):
        convert = converter.get_dataset_converter(attributes.formatting, attributes, None)
        for row in _load("json", cache, data_files=str(folder / attributes.dataset_name), split="train"):
            found = convert(row)
            system = [("system", found["_system"])] if found["_system"] else []
            yield system + _turns([*found["_prompt"], *found["_response"]])


def read_mlx(folder: Path, cache: str) -> Iterator[Turns]:
    """MLX-LM's own reader of train.jsonl and valid.jsonl, with the prompt masked."""
    root = _package("mlx_lm")
    _stub("mlx_lm.tuner", path=root / "tuner")
    _stub("mlx_lm.cli_ui", rprint=print)
    reader = importlib.import_module("mlx_lm.tuner.datasets")
    parts = reader.load_local_dataset(folder, Plain(), SimpleNamespace(mask_prompt=True))
    for part in parts:
        for at in range(len(part)):
            turns = _turns(part[at]["messages"])
            tokens, offset = part.process(part[at])
            if bytes(tokens[offset:]).decode() != turns[-1][1]:
                raise SystemExit(f"MLX-LM trains on something else than the answer of row {at}")
            yield turns


def read_hf(folder: Path, cache: str) -> Iterator[Turns]:
    """`datasets` by the card, which `huggingface_hub` reads."""
    card = importlib.import_module("huggingface_hub").DatasetCard.load(folder / "README.md")
    if not card.data.configs[0]["data_files"]:
        raise SystemExit("the card names no data files")
    return (_turns(row["messages"]) for row in _datasets(folder, cache))


def read_together(folder: Path, cache: str) -> Iterator[Turns]:
    """The check that `tg files check` runs."""
    check_file = importlib.import_module("together.lib.utils.files").check_file
    for path in _parts(folder):
        said = check_file(path)
        if not said["is_check_passed"]:
            raise SystemExit(f"{path.name}: {said['message']}")
        rows = [json.loads(line) for line in path.read_bytes().decode().split("\n")[:-1]]
        if said["num_samples"] != len(rows):
            raise SystemExit(f"{path.name}: Together sees {said['num_samples']} rows, not {len(rows)}")
        yield from (_turns(row["messages"]) for row in rows)


def _parts(folder: Path) -> list[Path]:
    return [path for name in ("train", "validation") if (path := folder / f"{name}.jsonl").exists()]


def _datasets(folder: Path, cache: str) -> Iterator[dict[str, Any]]:
    for rows in _load(str(folder), cache).values():
        yield from rows


def _load(source: str, cache: str, **more: Any) -> Any:
    return importlib.import_module("datasets").load_dataset(source, cache_dir=cache, **more)


def _turns(messages: Sequence[Mapping[str, str]]) -> Turns:
    return [(message["role"], message["content"]) for message in messages]


def _package(name: str) -> Path:
    """The folder of an installed package, which is entered without running its `__init__`."""
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"{name} is not installed here")
    root = Path(next(iter(found.submodule_search_locations)))
    _stub(name, path=root)
    return root


def _stub(name: str, *, path: Path | None = None, **members: Any) -> None:
    module = ModuleType(name)
    module.__dict__.update(members)
    if path is not None:
        module.__path__ = [str(path)]
    sys.modules[name] = module


#: target: (the package whose version counts, its code that reads, the reader)
READERS: dict[str, tuple[str, str, Callable[[Path, str], Iterator[Turns]]]] = {
    "trl": ("trl", "trl.data_utils and datasets.load_dataset", read_trl),
    "trl-dpo": ("trl", "trl.data_utils and datasets.load_dataset", read_trl_preferences),
    "trl-kto": ("trl", "trl.data_utils and datasets.load_dataset", read_trl_preferences),
    "llamafactory-dpo": ("llamafactory", "llamafactory.data.parser and .converter", read_llamafactory),
    "llamafactory": ("llamafactory", "llamafactory.data.parser and .converter", read_llamafactory),
    "mlx": ("mlx-lm", "mlx_lm.tuner.datasets", read_mlx),
    "hf": ("datasets", "datasets.load_dataset and huggingface_hub.DatasetCard", read_hf),
    "together": ("together", "together.lib.utils.files.check_file", read_together),
}


def main(target: str, folder: str, cache: str) -> None:
    """Print one JSON object: loader, version, rows, sha256."""
    package, loader, reader = READERS[target]
    rows, sha256 = digest(reader(Path(folder), cache))
    print(json.dumps({"loader": loader, "version": version(package), "rows": rows, "sha256": sha256}))


if __name__ == "__main__":
    main(*sys.argv[1:])
