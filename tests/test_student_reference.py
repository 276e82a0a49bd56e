"""Our trainer against transformers' own on the same batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from student_toys import PAIRS, TINY, small_base, toy_rows

from balkit import recipe, student
from balkit.student import model
from balkit.student.loop import plan_batches
from balkit.student.train import encode

SKEWED = [(f"{colour} " * (1 + 3 * (n % 4)), thing) for n, (colour, thing) in enumerate(PAIRS * 5)]


def curve_of_transformers(base: Path, *, options: recipe.Train, seed: int, folder: Path) -> list[float]:
    """Each step's loss of `transformers.Trainer` on the batches that `student.train` takes."""
    import torch
    from transformers import Trainer, TrainingArguments

    loaded = model.load(base)
    rows = encode(toy_rows(SKEWED), tokenizer=loaded.tokenizer)
    plan = plan_batches([row.tokens.length for row in rows], options=options, seed=seed)

    def collated(chosen: list[int]) -> dict[str, Any]:
        width = max(rows[n].tokens.length for n in chosen)
        ids = torch.full((len(chosen), width), loaded.pad_id)
        labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
        for line, n in enumerate(chosen):
            tokens = rows[n].tokens
            ids[line, : tokens.length] = torch.tensor(tokens.given + tokens.response)
            labels[line, len(tokens.given) : tokens.length] = torch.tensor(tokens.response)
            mask[line, : tokens.length] = 1
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    class SameBatches(Trainer):
        def get_train_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(range(len(rows)), batch_sampler=plan, collate_fn=collated)

    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=len(plan),
        learning_rate=options.lr,
        lr_scheduler_type="constant",
        weight_decay=options.weight_decay,
        max_grad_norm=1.0,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        optim="adamw_torch",
        remove_unused_columns=False,
        logging_nan_inf_filter=False,
    )
    trainer = SameBatches(model=loaded.model, args=arguments, train_dataset=list(range(len(rows))))
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_fifty_steps_have_the_losses_of_transformers(tmp_path: Path) -> None:
    base = small_base(tmp_path / "base")
    options = recipe.Train(epochs=100, max_steps=50, lr=5e-3, batch_size=6, pass_tokens=200, weight_decay=0.1)
    ours = student.train(base, toy_rows(SKEWED), student=TINY, options=options, out=tmp_path / "out", seed=3).losses
    theirs = curve_of_transformers(base, options=options, seed=3, folder=tmp_path / "trainer")
    assert len(ours) == len(theirs) == 50
    assert theirs[-1] < 0.5 * theirs[0]
    assert ours == pytest.approx(theirs, abs=1e-4)
