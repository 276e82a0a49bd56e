"""Frames: exactly the declared columns, or every difference by name."""

from __future__ import annotations

import polars as pl
import pytest

from balkit import frames
from balkit.errors import FrameError

KINDS = [kind for kind in vars(frames).values() if isinstance(kind, frames.Kind)]
SCORE = {"example_id": "e", "checkpoint": "c", "name": "ifd", "settings": "s", "value": 0.5, "reason": None}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_an_empty_frame_is_of_its_kind(kind: frames.Kind) -> None:
    assert kind.empty().schema == pl.Schema(kind.columns)
    assert frames.check(kind.empty(), kind).height == 0
    assert kind.of([]).equals(kind.empty())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_is_found_by_its_name_and_may_only_lack_its_own_columns(kind: frames.Kind) -> None:
    assert getattr(frames, kind.name) is kind
    assert kind.nullable <= kind.columns.keys()


def test_every_difference_is_named_at_once() -> None:
    frame = pl.DataFrame({"example_id": ["e", None], "checkpoint": [1, 2], "name": ["a", "b"], "value": [0.1, None]})
    with pytest.raises(FrameError) as caught:
        frames.check(frame, frames.SCORES)
    said = str(caught.value)
    assert said.startswith("not a frame of SCORES: ")
    assert "column 'example_id' has 1 nulls" in said
    assert "column 'checkpoint' is Int64, not String" in said
    assert "column 'reason' is missing" in said
    assert "it has: example_id, checkpoint, name, value" in said
    assert "'value'" not in said


def test_columns_come_in_the_declared_order_and_others_go() -> None:
    frame = pl.DataFrame([{"more": 1} | dict(reversed(SCORE.items()))])
    assert frame.columns != list(frames.SCORES.columns)
    assert frames.check(frame, frames.SCORES).columns == list(frames.SCORES.columns)


def test_a_column_of_nulls_alone_takes_the_declared_type() -> None:
    frame = pl.DataFrame([SCORE | {"value": None}])
    assert frame.schema["value"] == pl.Null()
    assert frames.check(frame, frames.SCORES).schema["value"] == pl.Float64()


def test_a_column_of_nulls_alone_is_refused_where_none_may_be() -> None:
    with pytest.raises(FrameError, match="'name' has 1 nulls"):
        frames.check(pl.DataFrame([SCORE | {"name": None}]), frames.SCORES)


def test_a_missing_key_of_a_row_is_null_only_where_that_is_allowed() -> None:
    short = {name: value for name, value in SCORE.items() if name not in ("value", "reason")}
    assert frames.SCORES.of([short])["value"].to_list() == [None]
    with pytest.raises(FrameError, match="'checkpoint' has 1 nulls"):
        frames.SCORES.of([{"example_id": "e", "name": "ifd"}])
