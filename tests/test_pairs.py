"""Accepted and rejected worked answers as pairs: which are taken, and how preference targets write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from small import make_pool, make_recipe
from test_export import WORDS, Frozen, snapshot_rows, tree
from test_review import Counted, rationale

from balkit import frames
from balkit.cli import app
from balkit.errors import ExportError, PoolError
from balkit.exports import TARGETS, Background, Options, around, export
from balkit.pool import Pool
from balkit.pool.pairs import PAIRS, pairs
from balkit.review import Verdict, cases_of, judge
from balkit.stages import run
from balkit.steps import validation_rows
from balkit.teacher import Request, Scripted

PAIRED = [name for name, target in TARGETS.items() if target.paired]


def chosen(*texts: str, answer: str = "4") -> pl.DataFrame:
    rows = [
        rationale("e", text, answer, call=str(n)) | {"prompt": "2 + 2?", "domain": "sums", "split": "train"}
        for n, text in enumerate(texts)
    ]
    return pl.DataFrame(rows).select(
        "example_id", "domain", "split", "prompt", "rationale_id", "text", "answer",
        reference=pl.lit("4"),
    )  # fmt: skip


def worse(*said: tuple[str, str | None, str]) -> pl.DataFrame:
    rows = [rationale("e", text, answer, call=f"w{n}", reason=why) for n, (text, answer, why) in enumerate(said)]
    return frames.RATIONALES.of(rows)


def test_only_what_is_worse_by_its_own_fault_is_rejected() -> None:
    reasons = ["vote_thin", "vote_tied", "cut_off", "refusal", "duplicate", "no_answer", "call_failed", "outvoted"]
    bad = worse(*((f"{why}.", "5", why) for why in [*reasons, "answer_contradicts_reference", "rejected_by_person"]))
    found = pairs(chosen("Add."), bad, per_example=99)
    assert found["reason"].to_list() == ["rejected_by_person", "answer_contradicts_reference", "outvoted"]
    assert found["rank"].to_list() == [0, 1, 2]


def test_the_same_text_or_the_same_answer_makes_no_pair_but_for_a_person() -> None:
    wrong = "answer_contradicts_reference"
    bad = worse(("ADD!", "5", wrong), ("Count.", "4", wrong), ("Ugly.", "4", "rejected_by_person"))
    assert pairs(chosen("Add."), bad, per_example=9)["rejected"].to_list() == ["Ugly."]


def test_every_rejected_one_is_used_before_any_is_used_again() -> None:
    bad = worse(*((f"Bad {n}.", str(n), "answer_contradicts_reference") for n in (5, 6)))
    found = pairs(chosen("A.", "B.", "C."), bad, per_example=5)
    told = list(found.select("chosen", "rejected").iter_rows())
    assert len(set(told)) == 5
    assert [len({rejected for _, rejected in told[at : at + 2]}) for at in (0, 2)] == [2, 2]
    assert len({one for one, _ in told[:2]}) == 2


@given(st.randoms(use_true_random=False), st.integers(1, 6))
def test_pairs_do_not_depend_on_the_order_of_rows(rng: Any, most: int) -> None:
    good, bad = chosen("A.", "B.", "C."), worse(*((f"Bad {n}.", str(n), "outvoted") for n in range(5, 9)))
    shuffled = [frame[rng.sample(range(frame.height), frame.height)] for frame in (good, bad)]
    expected = pairs(good, bad, per_example=most)
    assert expected.height == most
    assert pairs(shuffled[0], shuffled[1], per_example=most).equals(expected)


def test_an_example_gives_at_least_one() -> None:
    with pytest.raises(PoolError, match="per_example is 0"):
        pairs(chosen("A."), worse(), per_example=0)


class Learning(Counted):
    """Its first try at a prompt with an apple or a heron is wrong, the second is not."""

    def __call__(self, request: Request) -> str:
        self.wrong = "apple" if request.sample == 0 else ""
        return super().__call__(request)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pool, str]:
    pool = make_pool(tmp_path_factory.mktemp("pairs") / "pool", eval_rows=0)
    rationale = {"max_tokens": 64, "tries": 3, "hint": False}
    recipe = make_recipe(
        select={"first": "random", "then": "random"}, fill=["real"], stages=1, budget_rows=30, rationale=rationale
    )
    return pool, run(pool, recipe, teacher=Scripted(Learning()), train=False).snapshot_id


def test_a_snapshots_pairs_are_of_its_own_rows(trained: tuple[Pool, str]) -> None:
    pool, snapshot_id = trained
    found = pool.pairs(snapshot_id)
    rows = pool.snapshot(snapshot_id).rows
    assert found.height == rows.filter(pl.col("prompt").str.contains("apple"))["example_id"].n_unique() > 3
    assert found.join(rows, left_on="chosen_id", right_on="rationale_id", how="anti").is_empty()
    assert (found["chosen_answer"] != found["rejected_answer"]).all()
    assert pool.pairs("latest").equals(found)
    assert pool.pairs(pool.version).height >= found.height
    assert pool.pairs(1).is_empty()
    with pytest.raises(PoolError, match="no snapshot"):
        pool.pairs("none")


def test_what_a_person_refused_makes_pairs_from_then_on(trained: tuple[Pool, str]) -> None:
    pool, snapshot_id = trained
    before = pool.pairs(pool.version)
    row = pool.snapshot(snapshot_id).rows.filter(~pl.col("prompt").str.contains("apple")).row(0, named=True)
    (case,) = cases_of(pool, {row["example_id"]: "looked at"})
    judge(
        pool,
        [(case, [Verdict(case.example_id, "fix", case.worked[0].rationale_id, rationale="By eye.", answer="fruit")])],
    )
    (case,) = cases_of(pool, {row["example_id"]: "looked at"})
    judge(pool, [(case, [Verdict(case.example_id, "reject", row["rationale_id"])])])
    found = pool.pairs(pool.version)
    (mine,) = found.filter(pl.col("example_id") == row["example_id"]).to_dicts()
    assert (mine["chosen"], mine["reason"]) == ("By eye.\nAnswer: fruit", "rejected_by_person")
    assert found.height == before.height + 1
    assert row["example_id"] not in pool.pairs(snapshot_id)["example_id"]


# -- exports


def pairs_for(rows: pl.DataFrame, *, text: str = "Guess.", answer: str = "wrong") -> pl.DataFrame:
    """A pair for each of the SNAPSHOT_ROWS."""
    made = [
        {name: row[name] for name in ("example_id", "domain", "split", "prompt", "reference")}
        | {"rank": 0, "chosen": row["rationale"], "chosen_answer": row["answer"], "chosen_id": row["rationale_id"]}
        | {"rejected": text, "rejected_answer": answer, "rejected_id": f"bad {n}", "reason": "outvoted"}
        for n, row in enumerate(rows.iter_rows(named=True))
    ]
    return PAIRS.of(made)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_preference_rows_hold_both_sides_and_nothing_else(tmp_path: Path) -> None:
    rows = snapshot_rows({}, {})
    export(Frozen(rows), to=PAIRED, out=tmp_path / "o", background=Background(pairs=pairs_for(rows[1:])))
    (dpo,) = lines(tmp_path / "o/trl-dpo/data/train.jsonl")
    assert dpo == {
        "prompt": [{"role": "user", "content": "What is 1 + 1?"}],
        "chosen": [{"role": "assistant", "content": "Two times 1.\nAnswer: 2"}],
        "rejected": [{"role": "assistant", "content": "Guess.\nAnswer: wrong"}],
    }
    kto = lines(tmp_path / "o/trl-kto/data/train.jsonl")
    assert [(row["completion"], row["label"]) for row in kto] == [(dpo["chosen"], True), (dpo["rejected"], False)]
    (ranked,) = lines(tmp_path / "o/llamafactory-dpo/train.jsonl")
    assert ranked == {"messages": dpo["prompt"], "chosen": dpo["chosen"][0], "rejected": dpo["rejected"][0]}
    (from_,) = pl.read_parquet(tmp_path / "o/pairs.parquet").to_dicts()
    assert (from_["row_id"], from_["rationale_id"], from_["rejected_id"], from_["line"]) == ("train1", "r1", "bad 0", 0)
    report = json.loads((tmp_path / "o/EXPORT_REPORT.json").read_text())
    assert report["targets"]["trl-dpo"]["pairs"] == {"train": 1}
    assert report["targets"]["trl-dpo"]["rows_without_a_pair"] == {"train": 1}
    assert "trl-dpo: 1 of 2 train rows have a pair" in " ".join(report["warnings"])


@pytest.mark.parametrize("options", [Options(), Options(system="Be brief.", rationale="think")])
@pytest.mark.parametrize("name", PAIRED)
def test_every_pair_is_as_its_schema_says(tmp_path: Path, name: str, options: Options) -> None:
    rows, dev = (
        snapshot_rows({}, {}),
        snapshot_rows({"prompt": "new"}, split="dev").with_columns(example_id=pl.lit("d")),
    )
    known = Background(pairs=pairs_for(pl.concat([rows, dev])))
    export(Frozen(rows), to=[name], out=tmp_path / "o", validation=dev, options=options, background=known)
    validator = jsonschema.Draft202012Validator(dict(TARGETS[name].row))
    files = sorted((tmp_path / "o" / name).glob(TARGETS[name].files))
    assert [file.stem for file in files] == ["train", "validation"]
    for file in files:
        assert all(validator.is_valid(row) for row in lines(file))


def test_a_snapshot_without_any_pair_says_how_to_get_some(tmp_path: Path) -> None:
    rows = Frozen(snapshot_rows(*[{}] * 12))
    with pytest.raises(ExportError, match=r"trl-dpo needs pairs.*hint: false, tries: 4.*balkit review"):
        export(rows, to=["trl-dpo"], out=tmp_path / "o")
    report = export(rows, to=["all"], out=tmp_path / "all")
    assert set(report.content["targets_left_out"]) == set(PAIRED)


def test_a_rejected_text_that_is_too_long_fails_the_export_unless_told(tmp_path: Path) -> None:
    rows = snapshot_rows({}, {})
    known = Background(pairs=pl.concat([pairs_for(rows[:1], text="word " * 99), pairs_for(rows[1:])]))
    with pytest.raises(ExportError, match=r"1 of 2 rejected worked answers.*over_length.*--drop-long"):
        export(
            Frozen(rows),
            to=["trl-dpo"],
            out=tmp_path / "o",
            options=Options(tokens=WORDS, max_length=50),
            background=known,
        )
    options = Options(tokens=WORDS, max_length=50, drop_long=True)
    report = export(Frozen(rows), to=["trl-dpo"], out=tmp_path / "o", options=options, background=known)
    assert report.content["targets"]["trl-dpo"]["pairs"] == {"train": 1}


def test_the_configs_leave_room_for_the_longer_side_and_weigh_what_is_rarer(tmp_path: Path) -> None:
    rows = snapshot_rows({})
    three = [
        pairs_for(rows, text=f"{n} " + "word " * 3000).with_columns(rank=pl.lit(n), rejected_id=pl.lit(str(n)))
        for n in range(3)
    ]
    known = Background(pairs=pl.concat([one.with_columns(pl.col("rank").cast(pl.Int64)) for one in three]))
    export(Frozen(rows), to=PAIRED, out=tmp_path / "o", options=Options(tokens=WORDS, pairs=3), background=known)
    for name, file, key in [
        ("trl-dpo", "dpo.yaml", "max_length"), ("trl-kto", "kto.yaml", "max_length"),
        ("llamafactory-dpo", "train.yaml", "cutoff_len"),
    ]:  # fmt: skip
        assert yaml.safe_load((tmp_path / "o" / name / file).read_text())[key] > 3000
    assert yaml.safe_load((tmp_path / "o/trl-kto/kto.yaml").read_text())["desirable_weight"] == 3.0


def test_trainable_tokens_are_those_that_each_targets_loss_covers(tmp_path: Path) -> None:
    rows = snapshot_rows({}, {})  # "Two times 0. Answer: 0" has five words, "Guess. Answer: wrong" three
    known = pl.concat([pairs_for(rows), pairs_for(rows[:1], text="So it is.").with_columns(rejected_id=pl.lit("more"))])
    names = ["axolotl", "verl-rl", "hf", *PAIRED]
    options = Options(tokens=WORDS, pairs=2)
    report = export(Frozen(rows), to=names, out=tmp_path / "o", options=options, background=Background(pairs=known))
    found = {name: report.content["targets"][name]["trainable_tokens"] for name in names}
    assert found == {
        "axolotl": 10, "verl-rl": None, "hf": None, "trl-dpo": 26, "trl-kto": 21, "llamafactory-dpo": 26,
    }  # fmt: skip


def test_the_pools_pairs_reach_the_files(trained: tuple[Pool, str], tmp_path: Path) -> None:
    pool, snapshot_id = trained
    snapshot = pool.snapshot(snapshot_id)
    report = export(snapshot, to=["trl-dpo"], out=tmp_path / "o", background=around(pool, snapshot, pairs=1))
    found = pool.pairs(snapshot_id)
    assert report.content["targets"]["trl-dpo"]["pairs"] == {"train": found.height}
    rejected = {row["rejected"][0]["content"] for row in lines(tmp_path / "o/trl-dpo/data/train.jsonl")}
    assert rejected == set(found["rejected"])


@pytest.mark.long
def test_a_snapshot_that_stays_on_disk_is_exported_as_one_in_memory(trained: tuple[Pool, str], tmp_path: Path) -> None:
    pool, snapshot_id = trained
    held, dev = pool.snapshot(snapshot_id), validation_rows(pool, at=pool.snapshot(snapshot_id).version)
    for name, snapshot in (("held", held), ("scanned", pool.scan(snapshot_id))):
        known = around(pool, snapshot, pairs=3, validation=dev)
        export(snapshot, to=["all"], out=tmp_path / name, validation=dev, background=known)
    assert tree(tmp_path / "held") == tree(tmp_path / "scanned")
    every = around(pool, held, pairs=3).pairs_of(held.rows)
    assert every.equals(pool.at(held.version).pairs(chosen=held.rows.rename({"rationale": "text"}), per_example=3))


def test_the_command_takes_pairs(trained: tuple[Pool, str], tmp_path: Path) -> None:
    from typer.testing import CliRunner

    pool, snapshot_id = trained
    arguments = ["export", str(pool.path), snapshot_id, "--to", "trl-dpo,trl-kto", "--out", str(tmp_path / "o")]
    done = CliRunner().invoke(app, [*arguments, "--pairs", "2", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["targets"]["trl-kto"]["pairs"]["train"] > 3
