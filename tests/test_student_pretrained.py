"""Pretrained bases: named folders, adapters, chat templates of others and none at all."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from student_toys import QUICK, TINY, gpt2_folder, pretrained_folder, small_base, toy_rows

from balkit import recipe, student
from balkit.errors import MissingExtra, StudentError
from balkit.student import chat, model
from balkit.student.checkpoint import read_manifest, write_manifest
from balkit.student.generate import answered
from balkit.student.train import encode

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
ADAPTED = TINY.model_copy(update={"lora": recipe.Lora(r=4, dropout=0.1)})


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A base that names a folder whose tokenizer has no chat template."""
    section = ADAPTED.model_copy(update={"base": str(pretrained_folder(tmp_path / "hub"))})
    return student.base(section, corpus=[], seed=0, folder=tmp_path / "base")


def test_a_pretrained_base_names_its_model_and_holds_no_weights(plain: Path) -> None:
    assert [file.name for file in plain.iterdir()] == ["manifest.json"]
    assert json.loads((plain / "manifest.json").read_text())["base"]["name"].endswith("/hub")


def test_a_base_is_known_by_its_content_not_its_place(plain: Path, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "hub", tmp_path / "moved")
    section = TINY.model_copy(update={"base": str(tmp_path / "moved")})
    assert student.digest(student.base(section, corpus=[], seed=7, folder=tmp_path / "again")) == student.digest(plain)


def test_a_missing_gguf_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    (tmp_path / "weights.gguf").touch()
    section = TINY.model_copy(update={"base": str(tmp_path), "gguf_file": "weights.gguf"})
    base = student.base(section, corpus=[], seed=0, folder=tmp_path / "base")
    with pytest.raises(MissingExtra, match=r"balkit\[gguf\]"):
        model.load(base)


def test_adapters_change_the_logits_and_come_back_as_they_were(plain: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    options = QUICK.model_copy(update={"lr": 0.05, "epochs": 10})
    trained = student.train(plain, toy_rows(), student=ADAPTED, options=options, out=tmp_path / "out", seed=0)
    assert trained.losses[-1] < trained.losses[0]
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        before = AutoModelForCausalLM.from_pretrained(tmp_path / "hub")(ids).logits
        own = model.load(trained.path).model(input_ids=ids).logits
        by_peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "hub"), trained.path)(
            ids
        ).logits
    assert not torch.allclose(before, own, atol=1e-3)
    assert torch.equal(own, by_peft)
    assert not (trained.path / "model.safetensors").exists()


def test_an_adapter_with_weights_left_over_is_refused(plain: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    trained = student.train(plain, toy_rows(), student=ADAPTED, options=QUICK, out=tmp_path / "out", seed=3)
    file = trained.path / "adapter_model.safetensors"
    weights = load_file(file)
    (name, *_) = weights
    save_file({**weights, name.replace("layers.0", "layers.9"): weights[name].clone()}, file, {"format": "pt"})
    write_manifest(trained.path, read_manifest(trained.path))
    with pytest.raises(StudentError, match="0 weights missing, 1 left over"):
        student.generate(trained.path, ["What?"], max_new_tokens=2, batch_size=1)


def test_the_same_inputs_give_the_same_adapter(plain: Path, tmp_path: Path) -> None:
    one, other = (
        student.train(plain, toy_rows(), student=ADAPTED, options=QUICK, out=tmp_path / name, seed=3) for name in "ab"
    )
    assert (one.digest, one.losses) == (other.digest, other.losses)


def test_an_adapter_whose_base_was_replaced_is_refused(plain: Path, tmp_path: Path) -> None:
    trained = student.train(plain, toy_rows(), student=ADAPTED, options=QUICK, out=tmp_path / "out", seed=3)
    other = small_base(tmp_path / "other", seed=8)
    shutil.copy(other / "model.safetensors", tmp_path / "hub" / "model.safetensors")
    with pytest.raises(StudentError, match=r"model\.safetensors changed"):
        student.generate(trained.path, ["What?"], max_new_tokens=2, batch_size=1)


def test_a_pretrained_base_is_trained_whole_without_lora(plain: Path, tmp_path: Path) -> None:
    trained = student.train(plain, toy_rows(), student=TINY, options=QUICK, out=tmp_path / "out", seed=3)
    assert (trained.path / "model.safetensors").exists()
    assert len(student.generate(trained.path, ["What?"], max_new_tokens=4, batch_size=1)) == 1


def test_4bit_without_a_gpu_is_refused(plain: Path, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    section = TINY.model_copy(update={"lora": recipe.Lora(quantize="4bit")})
    with pytest.raises(StudentError, match="CUDA"):
        student.train(plain, toy_rows(), student=section, options=QUICK, out=tmp_path / "out", seed=3)


def test_without_a_chat_template_the_plain_one_is_used(plain: Path) -> None:
    tokenizer = model.load_tokenizer(plain)
    (first, *_) = encode(toy_rows(), tokenizer=tokenizer)
    assert tokenizer.decode(first.tokens.given) == "<|bos|>### Instruction:\nWhat is red?\n\n### Response:\n"
    assert tokenizer.decode(first.tokens.response) == "A rose is red.\nAnswer: rose<|eos|>"
    assert tokenizer.decode(chat.opening_ids(tokenizer)) == "<|bos|>### Response:\n"


def test_the_models_own_chat_template_is_used(tmp_path: Path) -> None:
    section = TINY.model_copy(update={"base": str(pretrained_folder(tmp_path / "hub", chat_template=CHATML))})
    tokenizer = model.load_tokenizer(student.base(section, corpus=[], seed=0, folder=tmp_path / "base"))
    (given,) = chat.prompt_ids(tokenizer, ["What is red?"])
    assert tokenizer.decode(given) == "<|im_start|>user\nWhat is red?<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(chat.opening_ids(tokenizer)) == "<|im_start|>assistant\n"


def test_a_bos_that_opens_every_turn_stands_once_before_the_answer(tmp_path: Path) -> None:
    template = CHATML.replace("<|im_start|>", "<|bos|>")
    section = TINY.model_copy(update={"base": str(pretrained_folder(tmp_path / "hub", chat_template=template))})
    tokenizer = model.load_tokenizer(student.base(section, corpus=[], seed=0, folder=tmp_path / "base"))
    assert tokenizer.decode(chat.opening_ids(tokenizer)) == "<|bos|>assistant\n"


def test_a_tokenizer_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    base = small_base(tmp_path / "base")
    made = json.loads((base / "tokenizer.json").read_text())
    back = json.loads(model.load_tokenizer(base).backend_tokenizer.to_str())
    assert {key: back[key] for key in ("model", "pre_tokenizer", "normalizer", "decoder")} == {
        key: made[key] for key in ("model", "pre_tokenizer", "normalizer", "decoder")
    }
    text = " 1234 déjà vu\n\n  x"
    tokenizer = model.load_tokenizer(base)
    ids = chat.response_ids(tokenizer, text)
    assert tokenizer.decode(ids) == text
    assert [tokenizer.decode([token]) for token in ids[1:5]] == list("1234")


def test_a_hub_model_that_cannot_be_had_is_a_student_error(tmp_path: Path) -> None:
    section = TINY.model_copy(update={"base": "balkit-tests/no-such-model"})
    base = student.base(section, corpus=[], seed=0, folder=tmp_path / "base")
    with pytest.raises(StudentError, match=r"balkit-tests/no-such-model"):
        student.train(base, toy_rows(), student=TINY, options=QUICK, out=tmp_path / "out", seed=3)


def test_learned_positions_are_never_passed(tmp_path: Path) -> None:
    base = student.base(
        TINY.model_copy(update={"base": str(gpt2_folder(tmp_path / "hub"))}),
        corpus=[],
        seed=0,
        folder=tmp_path / "base",
    )
    loaded = model.load(base)
    given = chat.prompt_ids(loaded.tokenizer, ["x" * 45, "x" * 10, "x" * 40, "What?"])
    together, alone = (answered(loaded, given, max_new_tokens=40, batch_size=size) for size in (4, 1))
    assert together == alone
    assert max(len(row) + len(answer.ids) for row, answer in zip(given, together, strict=True)) == 96


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all"])
def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StudentError, match="no such folder"):
        student.base(TINY.model_copy(update={"base": name}), corpus=[], seed=0, folder=tmp_path / "base")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(StudentError, match=r"no config\.json"):
        student.base(
            TINY.model_copy(update={"base": str(tmp_path / "empty")}), corpus=[], seed=0, folder=tmp_path / "base"
        )


def test_a_folder_that_is_no_student_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudentError, match=r"no manifest\.json"):
        student.generate(tmp_path, ["What?"], max_new_tokens=2, batch_size=1)
