"""What the training loop promises: passes change nothing, a stop loses nothing, dev ends it, processes share it."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import Rule, make_pool, make_recipe
from student_toys import PAIRS, QUICK, TINY, pretrained_folder, small_base, toy_rows

from balkit import recipe, stages, student
from balkit.errors import RunError, StudentError
from balkit.student.checkpoint import weights_digest
from balkit.student.loop import plan_passes
from balkit.teacher import Scripted

LONGER = QUICK.model_copy(update={"epochs": 4})
WITH_DEV = LONGER.model_copy(update={"early_stopping": recipe.EarlyStopping(patience=2)})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_base(tmp_path_factory.mktemp("students") / "base")


def trained(
    base: Path, out: Path, *, rows: pl.DataFrame | None = None, options: recipe.Train = LONGER, **more: Any
) -> student.Trained:
    given = toy_rows() if rows is None else rows
    return student.train(base, given, **{"student": TINY, "options": options, "out": out, "seed": 1, **more})


# -- passes ------------------------------------------------------------------------------------------------------------


def cost(cuts: list[list[int]], lengths: list[int], fixed: int) -> int:
    return sum(len(cut) * max(lengths[row] for row in cut) + fixed for cut in cuts)


def every_cut(order: list[int]) -> list[list[list[int]]]:
    places = range(1, len(order))
    chosen = itertools.chain.from_iterable(itertools.combinations(places, n) for n in range(len(order)))
    return [[order[a:b] for a, b in itertools.pairwise([0, *cuts, len(order)])] for cuts in chosen]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=7), st.integers(1, 200), st.integers(0, 50))
def test_passes_are_the_cheapest_that_fit(lengths: list[int], most: int, fixed: int) -> None:
    cuts = plan_passes(lengths, most=most, fixed=fixed)
    assert sorted(itertools.chain(*cuts)) == list(range(len(lengths)))
    assert all(len(cut) == 1 or len(cut) * max(lengths[row] for row in cut) <= most for cut in cuts)
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    fitting = [
        cuts
        for cuts in every_cut(order)
        if all(len(cut) == 1 or len(cut) * max(lengths[row] for row in cut) <= most for cut in cuts)
    ]
    assert cost(cuts, lengths, fixed) == min(cost(other, lengths, fixed) for other in fitting)


@pytest.mark.parametrize("change", [{"pass_tokens": 1}, {"pass_tokens": 60}, {"gradient_checkpointing": True}])
def test_passes_and_checkpointing_change_nothing_but_rounding(base: Path, tmp_path: Path, change: Any) -> None:
    whole = trained(base, tmp_path / "whole")
    parts = trained(base, tmp_path / "parts", options=LONGER.model_copy(update=change))
    assert parts.losses == pytest.approx(whole.losses, abs=1e-5)


def test_bf16_is_near_float32(base: Path, tmp_path: Path) -> None:
    exact = trained(base, tmp_path / "exact")
    half = trained(base, tmp_path / "half", options=LONGER.model_copy(update={"precision": "bf16"}))
    assert half.losses != exact.losses
    assert half.losses == pytest.approx(exact.losses, rel=0.02)


def test_balanced_weights_let_each_domain_count_the_same(base: Path, tmp_path: Path) -> None:
    rows = toy_rows().with_columns(domain=pl.Series(["many"] * 5 + ["few"]))
    one_step = QUICK.model_copy(update={"max_steps": 1, "batch_size": 6})

    def first(rows: pl.DataFrame, name: str, **change: Any) -> student.Trained:
        options = one_step.model_copy(update=change)
        return student.train(base, rows, student=TINY, options=options, out=tmp_path / name, seed=1)

    many, few = first(rows.head(5), "many"), first(rows.tail(1), "few")
    both = first(rows, "both", row_weights="balanced")
    assert both.losses[0] == pytest.approx((many.losses[0] + few.losses[0]) / 2, abs=1e-5)
    assert both.losses[0] != pytest.approx(first(rows, "plain").losses[0], abs=1e-4)


def test_balanced_weights_count_in_batches_of_one_row_too(base: Path, tmp_path: Path) -> None:
    rows = toy_rows().with_columns(domain=pl.Series(["many"] * 5 + ["few"]))
    options = QUICK.model_copy(update={"max_steps": 6, "batch_size": 1, "lr": 1e-9, "row_weights": "balanced"})
    balanced = trained(base, tmp_path / "balanced", options=options, rows=rows)
    plain = trained(base, tmp_path / "plain", options=options.model_copy(update={"row_weights": "none"}), rows=rows)
    ratios = [b / p for b, p in zip(balanced.losses, plain.losses, strict=True)]
    assert max(ratios) > 4 * min(ratios)  # five rows weigh little, the one of its own domain much


# -- going on after a stop ---------------------------------------------------------------------------------------------


def stopping_at(step: int) -> Callable[[int, int, float], None]:
    def stop(at: int, steps: int, loss: float) -> None:
        if at == step:
            raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize("options", [LONGER, WITH_DEV])
def test_an_interrupted_training_ends_as_if_it_had_not_been(base: Path, tmp_path: Path, options: recipe.Train) -> None:
    dev = {"dev": toy_rows(PAIRS[:3])} if options.early_stopping else {}
    whole = trained(base, tmp_path / "whole", options=options, **dev)
    with pytest.raises(KeyboardInterrupt):
        trained(base, tmp_path / "cut", options=options, progress=stopping_at(5), **dev)
    steps: list[int] = []
    cut = trained(base, tmp_path / "cut", options=options, progress=lambda at, *_: steps.append(at), **dev)
    assert steps[0] == 6
    assert (cut.digest, cut.losses, cut.dev_losses) == (whole.digest, whole.losses, whole.dev_losses)
    assert not (tmp_path / ".cut.resume").exists()


def test_adapters_with_dropout_go_on_as_they_were(tmp_path: Path) -> None:
    section = TINY.model_copy(
        update={"base": str(pretrained_folder(tmp_path / "hub")), "lora": recipe.Lora(r=4, dropout=0.5)}
    )
    base = student.base(section, corpus=[], seed=0, folder=tmp_path / "base")
    whole = trained(base, tmp_path / "whole", student=section)
    with pytest.raises(KeyboardInterrupt):
        trained(base, tmp_path / "cut", student=section, progress=stopping_at(3))
    assert trained(base, tmp_path / "cut", student=section).digest == whole.digest


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_student_loop import LONGER, trained
trained(Path({base!r}), Path({out!r}), keep_every_s=0,
        progress=lambda at, *_: os.kill(os.getpid(), signal.SIGKILL) if at == 6 else None)
"""


@pytest.mark.long
def test_a_killed_training_goes_on_from_what_was_kept(base: Path, tmp_path: Path) -> None:
    code = KILLED.format(tests=str(Path(__file__).parent), base=str(base), out=str(tmp_path / "cut"))
    killed = subprocess.run([sys.executable, "-c", code], check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    steps: list[int] = []
    cut = trained(base, tmp_path / "cut", progress=lambda at, *_: steps.append(at))
    assert steps[0] == 6  # five were kept, the sixth was not
    assert cut.digest == trained(base, tmp_path / "whole").digest


@pytest.mark.parametrize("harm", ["flip", "cut", "manifest", "gone"])
def test_a_damaged_state_is_said_and_not_used(
    base: Path, tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(base, tmp_path / "cut", progress=stopping_at(4))
    (state,) = (tmp_path / ".cut.resume").glob("*.pt")
    if harm == "flip":
        body = state.read_bytes()
        state.write_bytes(body[:2000] + bytes([body[2000] ^ 1]) + body[2001:])
    elif harm == "cut":
        state.write_bytes(state.read_bytes()[:100])
    elif harm == "manifest":
        (tmp_path / ".cut.resume" / "state.json").write_text("{")
    else:
        state.unlink()
    steps: list[int] = []
    cut = trained(base, tmp_path / "cut", progress=lambda at, *_: steps.append(at))
    assert steps[0] == 1
    assert ("starts again" in caplog.text) == (harm != "gone")
    assert cut.digest == trained(base, tmp_path / "whole").digest


def test_a_state_of_other_inputs_is_not_used(base: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(base, tmp_path / "out", progress=stopping_at(4))
    other = trained(base, tmp_path / "out", seed=2)
    assert other.digest == trained(base, tmp_path / "whole", seed=2).digest


def test_a_state_that_cannot_be_kept_is_said_and_training_goes_on(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".out.resume").write_text("in the way")  # no folder can be made here
    done = trained(base, tmp_path / "out", keep_every_s=0)
    assert "could not be kept" in caplog.text
    assert done.digest == trained(base, tmp_path / "whole").digest


def test_a_state_that_cannot_be_replaced_stays(base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(base, tmp_path / "out", keep_every_s=0, progress=stopping_at(4))
    (tmp_path / ".out.resume" / "step-5.partial").mkdir()
    with pytest.raises(KeyboardInterrupt):
        trained(base, tmp_path / "out", keep_every_s=1e9, progress=stopping_at(5))
    assert "could not be kept" in caplog.text
    steps: list[int] = []
    done = trained(base, tmp_path / "out", progress=lambda at, *_: steps.append(at))
    assert steps[0] == 5
    assert done.digest == trained(base, tmp_path / "whole").digest


def test_gradients_that_are_no_number_stop_before_the_weights_change(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from balkit.student.ranks import Ranks

    def spoilt(self: Ranks, weights: Any) -> None:
        weights[0].grad.view(-1)[0] = float("inf")

    monkeypatch.setattr(Ranks, "add_gradients", spoilt)
    with pytest.raises(StudentError, match=r"the gradients' norm is (nan|inf) at step 1; .*rows: r\d"):
        trained(base, tmp_path / "out")


# -- early stopping ----------------------------------------------------------------------------------------------------


def test_training_stops_when_dev_gets_no_better_and_keeps_the_best(base: Path, tmp_path: Path) -> None:
    options = LONGER.model_copy(
        update={"epochs": 40, "lr": 0.02, "early_stopping": recipe.EarlyStopping(patience=3, every_steps=2)}
    )
    dev = toy_rows([("red", "snow"), ("blue", "coal"), ("green", "ring")])  # what is learned is wrong there
    done = trained(base, tmp_path / "out", options=options, dev=dev)
    best = min(done.dev_losses, key=lambda found: found[1])
    assert done.steps < 80
    assert done.best_step == best[0] == done.dev_losses[-4][0]
    until = options.model_copy(update={"max_steps": best[0], "epochs": 40, "early_stopping": None})
    assert weights_digest(done.path) == weights_digest(trained(base, tmp_path / "until", options=until).path)


def test_early_stopping_without_dev_is_an_error(base: Path, tmp_path: Path) -> None:
    with pytest.raises(StudentError, match="none with a rationale"):
        trained(base, tmp_path / "out", options=WITH_DEV)


def test_a_run_without_dev_says_so_before_it_pays(tmp_path: Path) -> None:
    section = {"epochs": 1, "max_length": 160, "early_stopping": {"patience": 1}}
    with pytest.raises(RunError, match=r"train\.early_stopping goes by the loss on the dev split"):
        stages.run(make_pool(tmp_path / "pool"), make_recipe(train=section), teacher=Scripted(Rule()))


# -- several processes -------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool")
    section = {"epochs": 2, "batch_size": 8, "max_length": 160, "threads": 1}
    made = make_recipe(train=section, select={"first": "random", "then": "random"})
    stages.run(pool, made, teacher=Scripted(Rule()), train=False)
    (tmp_path / "recipe.yaml").write_text(recipe.dump(made))
    asked = ["-m", "balkit", "train", str(pool.path), "latest", "--recipe", str(tmp_path / "recipe.yaml"), "--json"]

    def trained_by(*launcher: str) -> dict[str, Any]:
        command = [sys.executable, *launcher, *asked]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
        assert done.returncode == 0, done.stderr
        folder = Path(json.loads(done.stdout)["checkpoint"])
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
        shutil.rmtree(folder)
        return manifest

    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    two = trained_by(*launch, "--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no")
    one = trained_by()
    assert (two["processes"], one["processes"]) == (2, 1)
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-4)
