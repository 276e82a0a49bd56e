"""What training a student promises: it learns, only from completions, and leaves a whole checkpoint or none."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from student_toys import QUICK, TINY, small_base, toy_examples, toy_rows

from balkit import answers, recipe, student
from balkit.errors import StudentError
from balkit.student import chat, model
from balkit.student.checkpoint import staged, weights_digest
from balkit.student.forward import Row, response_nll
from balkit.student.loop import learning_rate, plan_batches
from balkit.student.train import encode


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_base(tmp_path_factory.mktemp("students") / "base")


@pytest.fixture(scope="module")
def memorised(base: Path) -> student.Trained:
    options = QUICK.model_copy(update={"epochs": 60, "schedule": "cosine", "warmup_steps": 5})
    return student.train(base, toy_rows(), student=TINY, options=options, out=base.parent / "memorised", seed=0)


def test_importing_the_room_loads_no_torch() -> None:
    code = (
        "import sys, balkit.student; sys.exit(bool({'torch', 'transformers', 'peft', 'tokenizers'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_student_memorises_a_toy_mapping(memorised: student.Trained) -> None:
    rows = toy_rows()
    written = student.generate(memorised.path, rows["prompt"].to_list(), max_new_tokens=40, batch_size=4)
    wanted = [answers.completion(why, answer) for why, answer in rows.select("rationale", "answer").iter_rows()]
    assert memorised.losses[-1] < 0.1 * memorised.losses[0]
    assert written == wanted


def test_evaluation_counts_what_was_memorised_as_right(memorised: student.Trained) -> None:
    examples = toy_examples(toy_rows())
    wrong = examples.with_columns(
        pl.when(pl.col("example_id") == "e0").then(pl.lit("sky")).otherwise("reference").alias("reference")
    )
    found = student.evaluate(
        memorised.path,
        wrong,
        answers=recipe.Answers(kind="text"),
        labels=(),
        section=recipe.Evaluate(max_new_tokens=40),
    )
    assert found.filter(~pl.col("correct"))["example_id"].to_list() == ["e0"]
    assert found["checkpoint"].unique().to_list() == [memorised.digest]


def test_an_answer_that_declares_nothing_is_wrong(base: Path) -> None:
    asked = toy_examples(toy_rows())
    section = recipe.Evaluate(max_new_tokens=2, limit_per_domain=3)
    found = student.evaluate(base, asked, answers=recipe.Answers(kind="number"), labels=(), section=section)
    assert found["example_id"].to_list() == ["e0", "e1", "e2"]
    assert not found["correct"].any()
    assert found["predicted"].null_count() == 3


def test_labels_cover_exactly_the_completion_and_eos(base: Path) -> None:
    tokenizer = model.load_tokenizer(base)
    (first, *_) = encode(toy_rows(), tokenizer=tokenizer)
    given, response = first.tokens.given, first.tokens.response
    assert tokenizer.decode(given) == "<|bos|><|user|>What is red?<|assistant|>"
    assert tokenizer.decode(response) == "A rose is red.\nAnswer: rose<|eos|>"


def test_the_loss_is_that_of_the_response_tokens_alone(base: Path) -> None:
    import torch

    loaded = model.load(base)
    rows = [Row([1, 3, 40, 41, 4], [50, 51, 2]), Row([1, 3, 60, 4], [70, 71, 72, 73, 2])]
    with torch.no_grad():
        found = response_nll(loaded.model, rows, pad_id=loaded.pad_id)
        wanted = torch.cat([_one_by_one(loaded.model, row) for row in rows])
    assert torch.allclose(found, wanted, atol=1e-5)


def _one_by_one(causal: Any, row: Row) -> Any:
    import torch

    ids = torch.tensor([row.given + row.response])
    logged = causal(input_ids=ids).logits[0, :-1].log_softmax(-1)
    return -logged.gather(1, ids[0, 1:, None]).squeeze(1)[len(row.given) - 1 :]


def test_control_tokens_in_pool_texts_stay_text(base: Path) -> None:
    tokenizer = model.load_tokenizer(base)
    eos, assistant = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|assistant|>")
    hostile = "stop<|eos|> and <|assistant|>go"
    (given,) = chat.prompt_ids(tokenizer, [hostile])
    (response,) = chat.completion_ids(tokenizer, [hostile])
    assert (given.count(eos), given.count(assistant)) == (0, 1)
    assert (response.count(eos), response.count(assistant)) == (1, 0)
    assert hostile in tokenizer.decode(given)
    assert tokenizer.decode(response) == hostile + "<|eos|>"


def test_same_inputs_give_the_same_weights(base: Path, tmp_path: Path) -> None:
    def weights(name: str, seed: int) -> str:
        out = student.train(base, toy_rows(), student=TINY, options=QUICK, out=tmp_path / name, seed=seed).path
        return weights_digest(out)

    assert weights("a", 1) == weights("b", 1) != weights("c", 2)


def test_the_same_base_comes_of_any_order_of_the_corpus(tmp_path: Path) -> None:
    texts = ["one two three", "four five six", "one two"]
    one = student.base(TINY, corpus=texts, seed=3, folder=tmp_path / "one")
    other = student.base(TINY, corpus=[*reversed(texts), texts[0]], seed=3, folder=tmp_path / "other")
    assert student.digest(one) == student.digest(other) == weights_digest(other)
    assert (one / "tokenizer.json").read_bytes() == (other / "tokenizer.json").read_bytes()
    assert student.digest(small_base(tmp_path / "third", seed=4)) != student.digest(one)


def test_training_leaves_global_state_as_it_was(base: Path, tmp_path: Path) -> None:
    import torch

    options = QUICK.model_copy(update={"threads": 1, "epochs": 1})
    before = (torch.get_num_threads(), torch.random.get_rng_state())
    student.train(base, toy_rows(), student=TINY, options=options, out=tmp_path / "out", seed=1)
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])


def test_a_complete_checkpoint_is_not_trained_again(memorised: student.Trained, base: Path) -> None:
    options = QUICK.model_copy(update={"epochs": 60, "schedule": "cosine", "warmup_steps": 5})
    again = student.train(base, toy_rows(), student=TINY, options=options, out=memorised.path, seed=0, progress=_never)
    assert again == memorised


def test_a_checkpoint_of_other_inputs_is_not_overwritten(memorised: student.Trained, base: Path) -> None:
    with pytest.raises(StudentError, match="other inputs"):
        student.train(base, toy_rows(), student=TINY, options=QUICK, out=memorised.path, seed=9)


def flipped(body: bytes) -> bytes:
    """With another last byte."""
    return body[:-1] + bytes([body[-1] ^ 1])


def test_a_damaged_checkpoint_is_trained_anew(base: Path, tmp_path: Path) -> None:
    first = student.train(base, toy_rows(), student=TINY, options=QUICK, out=tmp_path / "out", seed=1)
    weights = first.path / "model.safetensors"
    weights.write_bytes(flipped(weights.read_bytes()))
    again = student.train(base, toy_rows(), student=TINY, options=QUICK, out=tmp_path / "out", seed=1)
    assert (again.digest, again.losses) == (first.digest, first.losses)


def test_a_changed_checkpoint_is_not_loaded(base: Path, tmp_path: Path) -> None:
    trained = student.train(base, toy_rows(), student=TINY, options=QUICK, out=tmp_path / "out", seed=1)
    weights = trained.path / "model.safetensors"
    for harmed in (flipped(weights.read_bytes()), weights.read_bytes()[:1000]):
        weights.write_bytes(harmed)
        with pytest.raises(StudentError, match=r"model\.safetensors: is not as it was written"):
            student.generate(trained.path, ["one"], max_new_tokens=2, batch_size=1)


def test_a_file_laid_into_a_checkpoint_is_no_harm(base: Path, tmp_path: Path) -> None:
    trained = student.train(base, toy_rows(), student=TINY, options=QUICK, out=tmp_path / "out", seed=1)
    (trained.path / ".DS_Store").write_bytes(b"x")
    assert len(student.generate(trained.path, ["one"], max_new_tokens=2, batch_size=1)) == 1


def _never(step: int, steps: int, loss: float) -> None:
    raise AssertionError("trained again")


def test_an_interrupt_leaves_no_checkpoint(base: Path, tmp_path: Path) -> None:
    def stop(step: int, steps: int, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        student.train(base, toy_rows(), student=TINY, options=QUICK, out=tmp_path / "out", seed=1, progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == [".out.resume"]


def test_an_interrupt_while_writing_keeps_what_was_there(tmp_path: Path) -> None:
    with staged(tmp_path / "out") as staging:
        (staging / "whole").write_text("whole")
    with contextlib.suppress(KeyboardInterrupt), staged(tmp_path / "out") as staging:
        (staging / "half").write_text("half")
        raise KeyboardInterrupt
    assert [str(file.relative_to(tmp_path)) for file in sorted(tmp_path.rglob("*"))] == ["out", "out/whole"]


def test_over_long_rows_are_an_error_before_training(base: Path, tmp_path: Path) -> None:
    rows = toy_rows([("red " * 60, "rose"), ("blue", "sky")])
    with pytest.raises(StudentError, match=r"1 of 2 rows are longer than 96 tokens .*: r0;"):
        student.train(base, rows, student=TINY, options=QUICK, out=tmp_path / "out", seed=1, progress=_never)


def test_over_length_drop_names_what_it_dropped(base: Path, tmp_path: Path) -> None:
    rows = toy_rows([("red " * 60, "rose"), ("blue", "sky")])
    options = QUICK.model_copy(update={"over_length": "drop"})
    trained = student.train(base, rows, student=TINY, options=options, out=tmp_path / "out", seed=1)
    assert trained.dropped == ("r0",)
    assert trained.trainable_tokens == len(encode(rows, tokenizer=model.load_tokenizer(base))[1].tokens.response)


def test_a_loss_that_is_no_number_stops_with_the_row_ids(base: Path, tmp_path: Path) -> None:
    options = QUICK.model_copy(update={"lr": 1e30, "epochs": 10})
    with pytest.raises(StudentError, match=r"the (loss|gradients' norm) is (nan|inf) at step \d.*rows: r\d, r\d"):
        student.train(base, toy_rows(), student=TINY, options=options, out=tmp_path / "out", seed=1)
    assert list(tmp_path.iterdir()) == []


def test_no_rows_are_an_error(base: Path, tmp_path: Path) -> None:
    with pytest.raises(StudentError, match="no rows"):
        student.train(base, toy_rows([]), student=TINY, options=QUICK, out=tmp_path / "out", seed=1)


def test_rows_with_nothing_to_learn_are_an_error(base: Path, tmp_path: Path) -> None:
    hollow = toy_rows().with_columns(
        pl.when(pl.col("row_id") == "r2").then(pl.lit("  ")).otherwise(pl.col(name)).alias(name)
        for name in ("rationale", "answer")
    )
    with pytest.raises(StudentError, match=r"1 of 6 rows have nothing to learn.*: r2"):
        student.train(base, hollow, student=TINY, options=QUICK, out=tmp_path / "out", seed=1)


def test_training_on_top_of_a_checkpoint_is_refused(memorised: student.Trained, tmp_path: Path) -> None:
    with pytest.raises(StudentError, match="name the base"):
        student.train(memorised.path, toy_rows(), student=TINY, options=QUICK, out=tmp_path / "out", seed=1)


def test_a_vocabulary_without_room_for_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudentError, match="261"):
        student.base(TINY.model_copy(update={"vocabulary": 200}), corpus=["x"], seed=0, folder=tmp_path / "base")


def test_an_epoch_holds_every_row_once_in_batches_of_similar_length() -> None:
    lengths = [(7 * n) % 50 + 1 for n in range(100)]
    plan = plan_batches(lengths, options=recipe.Train(epochs=2, batch_size=8), seed=5)
    half = len(plan) // 2
    assert sorted(index for batch in plan[:half] for index in batch) == list(range(100))
    assert plan[:half] != plan[half:]
    assert max(max(lengths[i] for i in batch) - min(lengths[i] for i in batch) for batch in plan) < 8


@pytest.mark.parametrize(
    ("epochs", "max_steps", "steps"), [(0.5, None, 5), (1.5, None, 15), (3, 4, 4), (0.01, None, 1)]
)
def test_epochs_may_be_fractions_and_max_steps_cuts_them(epochs: float, max_steps: int | None, steps: int) -> None:
    options = recipe.Train(epochs=epochs, max_steps=max_steps, batch_size=10)
    assert len(plan_batches([1] * 100, options=options, seed=0)) == steps


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1.0, 1.0, 0.853553, 0.5, 0.146447]),
    ],
)
def test_schedules_warm_up_and_fall_to_zero(schedule: Any, rates: list[float]) -> None:
    options = recipe.Train(lr=1.0, schedule=schedule, warmup_steps=2)
    assert [learning_rate(step, steps=6, options=options) for step in range(6)] == pytest.approx(rates, abs=1e-6)
