"""What a run's rows stand for: sums, a tiny case by hand, the file beside the run, no vectors where none are made."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from small import Rule, make_pool, make_recipe

from balkit import frames, measuring
from balkit.errors import PoolDamaged
from balkit.stages import run
from balkit.teacher import Scripted

POINTS = {"east": (1, 0), "north": (0, 1), "between": (1, 1), "west": (-1, 0)}


def encode(texts: Sequence[str]) -> np.ndarray:
    vectors = np.array([POINTS[text] for text in texts], dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def example(prompt: str, domain: str = "d") -> dict[str, object]:
    return {
        "example_id": prompt, "prompt": prompt, "domain": domain, "split": "train", "origin": "source", "parents": [],
        "added_in": 1,
    }  # fmt: skip


def row(position: int, prompt: str, **changes: object) -> dict[str, object]:
    body = {
        "position": position, "row_id": str(position), "stage": 1, "example_id": prompt, "rationale_id": prompt,
        "copy": 0, "domain": "d", "split": "train", "origin": "source", "prompt": prompt, "rationale": "r",
        "answer": "a", "author": "m",
    }  # fmt: skip
    return body | changes


REAL = frames.EXAMPLES.of([example(prompt) for prompt in POINTS])
ROWS = frames.SNAPSHOT_ROWS.of(
    [row(0, "east"), row(1, "north", stage=2, origin="synthetic"), row(2, "east", stage=2, copy=1)]
)


def measured(rows: pl.DataFrame = ROWS, real: pl.DataFrame = REAL, **options: object) -> pl.DataFrame:
    quotas = {"d": 2, "empty": 0}
    return measuring.measures(rows, real=real, quotas=quotas, stage=2, **({"encode": encode} | options))  # type: ignore[arg-type]


def test_a_small_case_is_as_by_hand() -> None:
    first, empty = measured().to_dicts()
    expected = {"stage": 2, "domain": "d", "quota": 2, "added": 2, "rows": 3, "real": 1, "synthetic": 1, "repeats": 1}
    assert first | expected == first
    assert (first["pool"], first["share_of_pool"]) == (4, 0.25)
    assert first["radius"] == 1  # nothing taken is near to west
    assert first["mean_similarity"] == pytest.approx((1 + 1 + math.sqrt(0.5) + 0) / 4, abs=1e-6)
    assert (first["vendi_real"], first["vendi_synthetic"]) == (1, 1)
    assert first["neighbour_distance_real"] is None, "one row has no neighbour"
    assert first["length_ratio"] == pytest.approx(4.5 / 4.5)
    assert {empty[name] for name in frames.MEASURES.nullable if name != "quota"} == {None}


def test_the_order_of_rows_says_nothing() -> None:
    assert measured(ROWS.reverse(), REAL.reverse()).equals(measured())


def test_without_an_encoder_only_texts_are_measured() -> None:
    frame = measured(encode=None)
    assert frame["radius"].null_count() == frame["vendi_real"].null_count() == 2
    assert frame["length_ratio"].null_count() == 1


def test_overall_sums_rows_and_averages_what_can_be_averaged() -> None:
    (one,) = measuring.overall(measured()).to_dicts()
    assert (one["rows"], one["share_of_pool"], one["radius"]) == (3, 0.25, 1)
    assert "vendi_real" not in one
    assert measuring.overall(frames.MEASURES.empty()).is_empty()


@pytest.mark.long
def test_a_run_keeps_the_measures_of_every_stage_and_makes_lost_ones_again(tmp_path: Path) -> None:
    pool, recipe = make_pool(tmp_path / "pool"), make_recipe(select={"first": "k_center", "then": "k_center"})
    result = run(pool, recipe, teacher=Scripted(Rule()), train=False)
    file = pool.path / "runs" / result.run_id[:12] / "measures.json"
    kept = json.loads(file.read_text())["measures"]
    assert frames.MEASURES.of(kept).equals(result.measures)
    sums = result.measures.group_by("stage").agg(pl.col("rows", "quota").sum()).sort("stage")
    assert sums["rows"].to_list() == [stage.rows for stage in result.stages]
    assert sums["quota"].to_list() == [15, 15]
    assert result.measures["radius"].is_between(0, 1).all()
    grown = result.measures.pivot("stage", index="domain", values="mean_similarity")
    assert (grown["2"] >= grown["1"]).all(), "more rows never cover less"
    file.unlink()
    assert run(pool, recipe, teacher=Scripted(Rule()), train=False).measures.equals(result.measures)
    assert json.loads(file.read_text())["measures"] == kept
    file.write_text("{")
    with pytest.raises(PoolDamaged, match=r"measures\.json"):
        run(pool, recipe, teacher=Scripted(Rule()), train=False)


def test_a_run_that_needs_no_vectors_makes_none_to_be_measured_by(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool")
    recipe = make_recipe(fill=["real", "repeat"], select={"first": "random", "then": "random"})
    result = run(pool, recipe, teacher=Scripted(Rule()), train=False)
    assert not (pool.path / "vectors").exists()
    assert result.measures["radius"].null_count() == result.measures.height
    assert result.measures["distinct_3_real"].null_count() == 0
