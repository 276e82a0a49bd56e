"""The main job on real long-tailed data, with the shipped recipes (`make test-slow`); `-s` shows the numbers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import polars as pl
import pytest
import real_input as real

from balkit import recipe as recipes
from balkit import texts
from balkit.exports import Options, around, export
from balkit.planning import plan

REASON = real.missing()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(REASON is not None, reason=str(REASON)), pytest.mark.timeout(3600)]

MATH_TAIL = "Precalculus"


@pytest.fixture(scope="module")
def math_arms(tmp_path_factory: pytest.TempPathFactory) -> list[real.Arm]:
    made = real.math_arms(tmp_path_factory.mktemp("math"))
    print(*map(real.show, made), sep="\n")
    return made


@pytest.fixture(scope="module")
def r52(tmp_path_factory: pytest.TempPathFactory) -> real.Arm:
    made = real.r52_arm(tmp_path_factory.mktemp("r52"))
    print(real.show(made))
    return made


def sound(arm: real.Arm) -> None:
    """What holds of every run: whole, apart from eval, exported, consistent."""
    rows, budget, stages = arm.rows, arm.recipe.budget_rows, arm.recipe.stages
    assert [stage.rows for stage in arm.result.stages] == [i * budget // stages for i in range(1, stages + 1)]
    held_out = {texts.normalised(prompt) for prompt in arm.pool.examples(split="eval")["prompt"]}
    assert not held_out & {texts.normalised(prompt) for prompt in rows["prompt"]}
    assert set(rows["rationale"]) <= set(arm.pool.rationales().filter("accepted")["text"])
    assert all(stage.summary for stage in arm.result.stages)
    expected = arm.quotas()
    for entry in arm.deficits:
        assert sum(entry["given_to"].values()) == entry["rows"]
        expected += Counter(entry["given_to"])
        expected[entry["domain"]] -= entry["rows"]
    assert Counter(rows["domain"].to_list()) == expected
    assert arm.pool.check() == []
    exported = arm.pool.path.with_name(f"{arm.name}-export")
    assert sum(1 for _ in (exported / "trl" / "data" / "train.jsonl").open(encoding="utf-8")) == rows.height
    assert pl.read_parquet(exported / "hf" / "data" / "*.parquet").height == rows.height


def read_by_trainers(arm: real.Arm, out: Path) -> None:
    """The trainers' own loaders see every row, role and text of the run's last snapshot."""
    names, snapshot = ["trl", "llamafactory", "mlx", "hf"], arm.pool.scan(arm.result.snapshot_id)
    made = export(snapshot, to=names, out=out, options=Options(check=True), background=around(arm.pool, snapshot))
    assert {made.content["targets"][name]["check"]["rows"] for name in names} == {arm.rows.height}


def test_the_trainers_own_loaders_read_every_row_of_math(math_arms: list[real.Arm], tmp_path: Path) -> None:
    read_by_trainers(math_arms[0], tmp_path / "out")


def test_the_trainers_own_loaders_read_every_row_of_r52(r52: real.Arm, tmp_path: Path) -> None:
    read_by_trainers(r52, tmp_path / "out")


def test_math_plans_what_the_method_says(math_arms: list[real.Arm]) -> None:
    made = {arm.recipe.balance.policy: plan(arm.pool, arm.recipe).rows for arm in math_arms}
    written = {
        policy: dict(rows.group_by("domain").agg(pl.col("make").sum()).iter_rows()) for policy, rows in made.items()
    }
    assert written["adaptive"] == pytest.approx(
        {name: 31 if name == MATH_TAIL else 0 for name in written["adaptive"]}, abs=3
    )
    assert sum(written["uniform"].values()) == pytest.approx(192, abs=3)
    assert sum(rows > 0 for rows in written["uniform"].values()) == 3


def test_math_runs_whole_with_both_policies(math_arms: list[real.Arm]) -> None:
    for arm in math_arms:
        sound(arm)
        assert arm.rows.height == 2100
    assert set(math_arms[1].quotas().values()) == {300}


def test_math_writes_about_what_was_planned(math_arms: list[real.Arm]) -> None:
    adaptive, uniform = (arm.rows.filter(pl.col("origin") == "synthetic") for arm in math_arms)
    assert dict(adaptive.group_by("domain").len().iter_rows()) == pytest.approx({MATH_TAIL: 31}, abs=5)
    assert uniform.height == pytest.approx(192, abs=20)


def test_math_rows_say_who_wrote_them(math_arms: list[real.Arm]) -> None:
    for arm in math_arms:
        real_rows, written = (arm.rows.filter(pl.col("origin") == origin) for origin in ("source", "synthetic"))
        assert set(real_rows["author"]) == {"chatgpt", "human"}
        assert set(written["author"]) == {"chatgpt"}
        assert MATH_TAIL in set(written["domain"])


def test_math_problems_that_stand_in_eval_in_another_layout_are_left_out(math_arms: list[real.Arm]) -> None:
    pool = math_arms[0].pool
    held_out = {texts.normalised(prompt) for prompt in pool.examples(split="eval")["prompt"]}
    train = pool.examples(split="train", origin="source")["prompt"]
    assert sum(texts.normalised(prompt) in held_out for prompt in train) == 3


def test_a_second_policy_pays_for_no_answer_again(math_arms: list[real.Arm]) -> None:
    first, second = (arm.rows.filter(pl.col("origin") == "source") for arm in math_arms)
    shared = len(set(first["example_id"]) & set(second["example_id"]))
    cached = math_arms[1].pool.calls(run_id=math_arms[1].result.run_id).filter(pl.col("status") == "cached")
    assert cached.height >= shared > 0


def test_r52_runs_whole_with_domains_that_have_no_real_row(r52: real.Arm) -> None:
    sound(r52)
    rows = r52.rows
    assert (rows.height, rows["domain"].n_unique()) == (1300, 52)
    assert (rows["answer"] == rows["domain"]).all()


def test_r52_rows_of_uncertain_origin_are_marked(r52: real.Arm) -> None:
    authors = r52.rows.group_by("origin").agg(pl.col("author").unique())
    assert dict(authors.iter_rows()) == {"source": ["chatgpt"], "synthetic": ["origin_uncertain"]}


@pytest.mark.parametrize("name", ["math", "r52"])
def test_the_recipes_are_sound_as_shipped(name: str) -> None:
    shipped = recipes.load(real.ROOT / "recipes" / f"{name}.yaml")
    assert shipped.teacher.file == real.ROOT / "recipes" / ".." / "pools" / f"{name}.recorded.jsonl"


def test_r52_texts_of_both_splits_are_cleaned_alike() -> None:
    clean = real.loader("r52").clean
    assert (
        clean("Gold &lt;GLD.X> rose 3.5 pct, it's up. Reuter\n")
        == clean("gold gld x rose pct it s up")
        == "gold gld x rose pct it s up"
    )


def test_the_loaders_ask_for_the_data_folder(tmp_path: Path) -> None:
    for name in ("math", "r52"):
        with pytest.raises(FileNotFoundError):
            real.loader(name).load(tmp_path / name, tmp_path / "nowhere")
