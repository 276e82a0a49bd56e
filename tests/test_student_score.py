"""IFD, loss and greedy answers, against plain reference implementations."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from student_toys import QUICK, TINY, small_base, toy_examples, toy_rows

from balkit import frames, student
from balkit.errors import StudentError
from balkit.student import chat, model
from balkit.student.checkpoint import read_manifest, write_manifest
from balkit.student.generate import answered


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half trained: it answers, and is sure of nothing."""
    folder = tmp_path_factory.mktemp("students")
    base = small_base(folder / "base")
    options = QUICK.model_copy(update={"epochs": 20})
    return student.train(base, toy_rows(), student=TINY, options=options, out=folder / "s1", seed=0).path


def candidates() -> pl.DataFrame:
    """Prompts and answers of many lengths."""
    responses = [
        "A rose is red.",
        "sky",
        "A leaf is green. " * 4,
        "snow, " * 9,
        "coal",
        "Rings are gold.\nAnswer: ring",
    ]
    prompts = ["What is red?", "What " * 12, "x", "Is snow white, or what is?", "", "What is gold?"]
    return pl.DataFrame({"example_id": list("fedcba"), "prompt": prompts, "response": responses})


def reference_ifd(loaded: model.Loaded, prompt: str, y: list[int]) -> dict[str, float]:
    """IFD and loss by their definition: one sequence at a time, all logits."""
    import torch

    def logged(given: list[int]) -> Any:
        with torch.no_grad():
            return loaded.model(input_ids=torch.tensor([given + y])).logits[0].log_softmax(-1)[len(given) - 1 : -1]

    def nll(logged: Any) -> float:
        return -sum(logged[n, token].item() for n, token in enumerate(y)) / len(y)

    (given,) = chat.prompt_ids(loaded.tokenizer, [prompt])
    told, alone = logged(given), logged(loaded.tokenizer.convert_tokens_to_ids(["<|bos|>", "<|assistant|>"]))
    entropy = torch.distributions.Categorical(logits=told).entropy().mean().item()
    return {"ifd": math.exp(nll(told)) / math.exp(nll(alone)), "loss": nll(told), "entropy": entropy}


def by_example(scores: pl.DataFrame) -> dict[str, dict[str, Any]]:
    return {
        example_id: dict(scores.filter(pl.col("example_id") == example_id).select("name", "value").iter_rows())
        for example_id in scores["example_id"].unique()
    }


def test_scores_of_given_answers_are_those_of_the_definition(checkpoint: Path) -> None:
    loaded, asked = model.load(checkpoint), candidates()
    found = student.score(checkpoint, asked, response="reference", max_new_tokens=8, batch_size=4)
    for row in asked.to_dicts():
        wanted = reference_ifd(loaded, row["prompt"], chat.response_ids(loaded.tokenizer, row["response"]))
        assert by_example(found)[row["example_id"]] == pytest.approx(wanted, abs=1e-4)


def test_scores_of_own_answers_are_those_of_the_definition(checkpoint: Path) -> None:
    loaded, rows = model.load(checkpoint), toy_rows()
    found = student.score(checkpoint, toy_examples(rows), response="student", max_new_tokens=40, batch_size=4)
    for row in rows.to_dicts():
        (given,) = chat.prompt_ids(loaded.tokenizer, [row["prompt"]])
        wanted = reference_ifd(loaded, row["prompt"], greedy_one_by_one(loaded, given, most=40))
        assert by_example(found)[row["example_id"]] == pytest.approx(wanted, abs=1e-4)


def greedy_one_by_one(loaded: model.Loaded, given: list[int], *, most: int) -> list[int]:
    """Greedy decoding without cache or batch, EOS left out."""
    import torch

    written: list[int] = []
    for _ in range(most):
        with torch.no_grad():
            token = int(loaded.model(input_ids=torch.tensor([given + written])).logits[0, -1].argmax())
        if token == loaded.tokenizer.eos_token_id:
            break
        written.append(token)
    return written


def test_answers_come_in_order_whatever_the_batches(checkpoint: Path) -> None:
    loaded, prompts = model.load(checkpoint), candidates()["prompt"].to_list()
    wanted = [
        chat.text_of(loaded.tokenizer, greedy_one_by_one(loaded, given, most=12))
        for given in chat.prompt_ids(loaded.tokenizer, prompts)
    ]
    for batch_size in (1, 4, 64):
        assert student.generate(checkpoint, prompts, max_new_tokens=12, batch_size=batch_size) == wanted


def test_scores_have_three_rows_an_example_in_order(checkpoint: Path) -> None:
    found = student.score(checkpoint, candidates(), response="reference", max_new_tokens=8, batch_size=4)
    assert frames.check(found, frames.SCORES).equals(found)
    assert found["example_id"].to_list() == [each for each in "fedcba" for _ in range(3)]
    assert found["checkpoint"].unique().to_list() == [student.digest(checkpoint)]


@pytest.mark.parametrize(
    ("prompt", "response", "reason"),
    [
        ("What?", "", "empty"),
        ("What?", None, "empty"),
        ("What?", "rose " * 200, "too_long"),
        ("x " * 200, "rose", "too_long"),
    ],
)
def test_what_cannot_be_scored_has_a_reason(checkpoint: Path, prompt: str, response: str | None, reason: str) -> None:
    asked = pl.DataFrame({"example_id": ["odd", "plain"], "prompt": [prompt, "What?"], "response": [response, "rose"]})
    found = student.score(checkpoint, asked, response="reference", max_new_tokens=8, batch_size=4)
    assert found["reason"].to_list() == [reason] * 3 + [None] * 3
    assert found["value"].is_null().to_list() == [True] * 3 + [False] * 3


def test_an_own_answer_that_does_not_end_is_too_long(checkpoint: Path) -> None:
    found = student.score(checkpoint, toy_examples(toy_rows()), response="student", max_new_tokens=1, batch_size=4)
    assert found["reason"].unique().to_list() == ["too_long"]


def test_a_score_that_is_no_number_is_unscored(checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    save_file({k: v * float("nan") for k, v in weights.items()}, tmp_path / "model.safetensors", {"format": "pt"})
    write_manifest(tmp_path, read_manifest(tmp_path))
    found = student.score(tmp_path, candidates(), response="reference", max_new_tokens=8, batch_size=4)
    assert found["reason"].unique().to_list() == ["not_finite"]


def test_a_prompt_that_fills_the_context_is_answered_with_nothing(
    checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert student.generate(checkpoint, ["x " * 200, "What is red?"], max_new_tokens=8, batch_size=2)[0] == ""
    assert "1 of 2 prompts fill the student's context of 96 tokens" in caplog.text


def test_generation_stops_at_the_context(checkpoint: Path) -> None:
    loaded = model.load(checkpoint)
    prompts = chat.prompt_ids(loaded.tokenizer, ["x" * 85, "x" * 90])
    found = answered(loaded, prompts, max_new_tokens=1000, batch_size=2)
    assert [(len(answer.ids), answer.finished) for answer in found] == [
        (TINY.context - len(given), False) for given in prompts
    ]


def test_missing_columns_are_named(checkpoint: Path) -> None:
    with pytest.raises(StudentError, match="response"):
        student.score(checkpoint, candidates().drop("response"), response="reference", max_new_tokens=8, batch_size=4)


def test_no_examples_give_no_scores(checkpoint: Path) -> None:
    none = candidates().clear()
    assert student.score(checkpoint, none, response="student", max_new_tokens=8, batch_size=4).is_empty()
    assert student.generate(checkpoint, [], max_new_tokens=8, batch_size=4) == []


def test_summary_averages_domains_inside_head_and_tail() -> None:
    marks = {"big": [True, True, True, False], "mid": [True, False], "rare": [False]}
    rows = [
        {"checkpoint": "c", "settings": "s", "split": "eval", "text": ""}
        | {"example_id": f"{d}{n}", "domain": d, "correct": mark}
        for d, correct in marks.items()
        for n, mark in enumerate(correct)
    ]
    found = student.summarise(frames.EVALUATIONS.of(rows), head={"big", "mid"})
    assert found["macro_accuracy"] == pytest.approx((0.75 + 0.5 + 0) / 3)
    assert found["micro_accuracy"] == pytest.approx(4 / 7)
    assert (found["head_accuracy"], found["tail_accuracy"]) == pytest.approx((0.625, 0.0))
    assert found["per_domain"]["big"] == {"accuracy": 0.75, "rows": 4}


def test_summary_without_rows_or_tail_has_no_number_for_them() -> None:
    nothing = student.summarise(frames.EVALUATIONS.empty(), head=set())
    assert (nothing["macro_accuracy"], nothing["tail_accuracy"], nothing["per_domain"]) == (None, None, {})
