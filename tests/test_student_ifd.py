"""IFD against ten lines of reference, over tokenizers of four kinds, with and without a chat template."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from balkit import assets, recipe, student

DATA = Path(os.environ.get("BALKIT_REAL_DATA", Path(__file__).resolve().parent.parent / "../shared/data"))
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]

Pairs = list[tuple[str, str]]


def quickstart_rows(count: int) -> Pairs:
    """Tickets of the packaged pool, and a worked answer of a few words that differ in length."""
    lines = (assets.quickstart_folder() / "train.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines[:: max(1, len(lines) // count)]][:count]
    return [(row["ticket"], f"{row['ticket'][:: 1 + n % 3]}\nAnswer: {row['topic']}") for n, row in enumerate(found)]


def real_rows(count: int) -> Pairs:
    """Questions and human solutions of MATH, spread over the file."""
    lines = (DATA / "long_tail_kd" / "math" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines[:: len(lines) // count]][:count]
    return [(row["text"], row["org"]) for row in found]


# -- tokenizers, learned here ------------------------------------------------------------------------------------------


def byte_level(corpus: list[str], size: int) -> Any:
    """GPT-2's kind: BPE over bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )
    return made


def bytes_alone(corpus: list[str], size: int) -> Any:
    """ByT5's kind: a token a byte."""
    return byte_level([], 256 + len(SPECIAL))


def bpe(corpus: list[str], size: int) -> Any:
    """Llama 2's kind: BPE over characters, spaces written as a mark, what is unknown as <unk>."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    made.decoder = decoders.Metaspace(prepend_scheme="first")
    made.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIAL))
    return made


def unigram(corpus: list[str], size: int) -> Any:
    """SentencePiece's kind: a unigram model, which puts a mark before every text."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    made.decoder = decoders.Metaspace(prepend_scheme="always")
    made.train_from_iterator(
        corpus, trainers.UnigramTrainer(vocab_size=size, special_tokens=SPECIAL, unk_token="<unk>")
    )
    return made


KINDS: list[Callable[[list[str], int], Any]] = [byte_level, bytes_alone, bpe, unigram]


def student_with(learn: Callable[[list[str], int], Any], pairs: Pairs, *, folder: Path, template: str | None) -> Path:
    """A base of a tiny model with random weights and a tokenizer learned from the rows."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=learn([text for pair in pairs for text in pair], 600),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=SPECIAL[3:],
        chat_template=template,
    )
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16_384,
        initializer_range=0.4,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    section = recipe.Student(base=str(folder / "model"))
    return student.base(section, corpus=[], seed=0, folder=folder / "base")


def reference_ifd(model: Any, tokenizer: Any, prompt: str, answer: str) -> float:
    """IFD by its definition: PPL(answer | prompt) / PPL(answer), one text at a time, all logits."""
    import torch

    def tokens(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    def nll(before: list[int]) -> float:
        logits = model(input_ids=torch.tensor([before + y])).logits[0, len(before) - 1 : -1]
        return float(torch.nn.functional.cross_entropy(logits.double(), torch.tensor(y)))

    y = tokens(answer)
    if tokenizer.chat_template:
        chat = [{"role": "user", "content": prompt}]
        given = tokens(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
        return math.exp(nll(given) - nll(tokens("<|im_start|>assistant\n")))
    plain = tokens(f"### Instruction:\n{prompt}\n\n### Response:\n")
    return math.exp(nll([1, *plain]) - nll([1, *tokens("### Response:\n")]))


def differences(base: Path, pairs: Pairs) -> list[float]:
    """How far IFD is from the reference's, row by row."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str(base.parent / "model")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    asked = pl.DataFrame(
        [(str(n), prompt, answer) for n, (prompt, answer) in enumerate(pairs)],
        schema=["example_id", "prompt", "response"],
        orient="row",
    )
    found = student.score(base, asked, response="reference", max_new_tokens=1, batch_size=16)
    ours = found.filter(pl.col("name") == "ifd")["value"].to_list()
    with torch.no_grad():
        wanted = [reference_ifd(model, tokenizer, *pair) for pair in pairs]
    assert max(wanted) - min(wanted) > 0.05  # they tell rows apart
    return [abs(one - other) for one, other in zip(ours, wanted, strict=True)]


@pytest.mark.parametrize("template", [None, CHATML], ids=["plain", "chat"])
@pytest.mark.parametrize("learn", KINDS, ids=lambda learn: learn.__name__)
def test_ifd_is_that_of_ten_lines_of_reference(
    tmp_path: Path, learn: Callable[[list[str], int], Any], template: str | None
) -> None:
    pairs = quickstart_rows(12)
    assert max(differences(student_with(learn, pairs, folder=tmp_path, template=template), pairs)) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("template", [None, CHATML], ids=["plain", "chat"])
@pytest.mark.parametrize("learn", KINDS, ids=lambda learn: learn.__name__)
def test_ifd_of_200_real_rows_is_that_of_the_reference(
    tmp_path: Path, learn: Callable[[list[str], int], Any], template: str | None
) -> None:
    if not (DATA / "long_tail_kd").is_dir():
        pytest.skip(f"the real data is not here: BALKIT_REAL_DATA={DATA} holds no long_tail_kd")
    pairs = real_rows(200)
    found = differences(student_with(learn, pairs, folder=tmp_path, template=template), pairs)
    assert len(found) == 200
    assert max(found) < 1e-4
