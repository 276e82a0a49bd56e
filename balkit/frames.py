"""The polars schemas that flow between rooms. A frame is checked where it enters a room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import polars as pl

from balkit.errors import FrameError


@dataclass(frozen=True)
class Kind:
    """A named set of columns with types. `nullable` columns may hold nulls, the others never."""

    name: str
    columns: Mapping[str, pl.DataType]
    nullable: frozenset[str] = frozenset()

    def empty(self) -> pl.DataFrame:
        """A frame of this kind with no rows."""
        return pl.DataFrame(schema=dict(self.columns))

    def of(self, rows: list[dict[str, object]]) -> pl.DataFrame:
        """A frame of this kind from dictionaries; a missing nullable key becomes null."""
        return check(pl.DataFrame(rows, schema=dict(self.columns), orient="row"), self)


def _kind(name: str, nullable: str = "", /, **columns: pl.DataType) -> Kind:
    return Kind(name, MappingProxyType(columns), frozenset(nullable.split()))


_S, _I, _F, _B = pl.String(), pl.Int64(), pl.Float64(), pl.Boolean()

#: Examples with the labels that hold at a version. `parents` are the demonstrations of a synthetic example.
EXAMPLES = _kind(
    "EXAMPLES",
    "reference",
    example_id=_S, prompt=_S, reference=_S, domain=_S, split=_S, origin=_S, parents=pl.List(pl.String()), added_in=_I,
)  # fmt: skip

#: Worked answers. `answer` is the final answer parsed out of `text`; `source` is the key of the call that wrote
#: it (or `given`), `author` the model. A rejected one has a `reason`.
RATIONALES = _kind(
    "RATIONALES",
    "answer reason detail",
    rationale_id=_S, example_id=_S, text=_S, answer=_S, accepted=_B, reason=_S, detail=_S, source=_S, author=_S,
)  # fmt: skip

#: One number that a checkpoint gives an example; `value` null has a `reason` (too_long, empty, not_finite). `settings`
#: says what else decides it, such as whose answer is scored; the same checkpoint may have several.
SCORES = _kind("SCORES", "value reason", example_id=_S, checkpoint=_S, name=_S, settings=_S, value=_F, reason=_S)

#: Examples per domain before choosing: `real` in the pool's train split, `unused` of them not yet considered.
COUNTS = _kind("COUNTS", domain=_S, real=_I, unused=_I)

#: What a stage asks of a domain, in rows: quota = take + make + repeat + short.
QUOTAS = _kind("QUOTAS", stage=_I, domain=_S, quota=_I, take=_I, make=_I, repeat=_I, short=_I, tail=_B)

#: What a choosing or checking step thought of every row. `rank` counts from 0 in the order of preference.
DECISIONS = _kind(
    "DECISIONS",
    "gain rank detail",
    example_id=_S, domain=_S, step=_S, method=_S, kept=_B, reason=_S, gain=_F, rank=_I, detail=_S,
)  # fmt: skip

#: A training set in order. `copy` counts repeats from 0; `position` counts from 0 over all stages.
SNAPSHOT_ROWS = _kind(
    "SNAPSHOT_ROWS",
    "reference",
    position=_I, row_id=_S, stage=_I, example_id=_S, rationale_id=_S, copy=_I, domain=_S, split=_S, origin=_S,
    prompt=_S, reference=_S, rationale=_S, answer=_S, author=_S,
)  # fmt: skip

#: What a domain's rows of a run stand for after a stage (`measuring.measures`), null where there is nothing to measure.
MEASURES = _kind(
    "MEASURES",
    "quota share_of_pool radius mean_similarity distinct_3_real distinct_3_synthetic neighbour_distance_real "
    "neighbour_distance_synthetic vendi_real vendi_synthetic length_ratio length_shift",
    stage=_I, domain=_S, quota=_I, added=_I, rows=_I, real=_I, synthetic=_I, repeats=_I, pool=_I, share_of_pool=_F,
    radius=_F, mean_similarity=_F, distinct_3_real=_F, distinct_3_synthetic=_F, neighbour_distance_real=_F,
    neighbour_distance_synthetic=_F, vendi_real=_F, vendi_synthetic=_F, length_ratio=_F, length_shift=_F,
)  # fmt: skip

#: What a checkpoint answered to each example of a split; `settings` says how it was asked and read.
EVALUATIONS = _kind(
    "EVALUATIONS",
    "predicted",
    checkpoint=_S, settings=_S, example_id=_S, domain=_S, split=_S, predicted=_S, correct=_B, text=_S,
)  # fmt: skip

#: Settled teacher calls, without their texts: the mirror of the ledger that SQL can join.
CALLS = _kind(
    "CALLS",
    "example_id",
    key=_S, run_id=_S, purpose=_S, endpoint=_S, model=_S, domain=_S, stage=_I, example_id=_S, attempts=_I,
    input_tokens=_I, output_tokens=_I, cost_microusd=_I, status=_S,
)  # fmt: skip


def check(frame: pl.DataFrame, kind: Kind) -> pl.DataFrame:
    """The frame with exactly the kind's columns, in order; raises `FrameError` that names every difference."""
    problems = []
    for name, dtype in kind.columns.items():
        if name not in frame.columns:
            problems.append(f"column {name!r} is missing")
        elif frame.schema[name] != dtype and frame.schema[name] != pl.Null():
            problems.append(f"column {name!r} is {frame.schema[name]}, not {dtype}")
        elif name not in kind.nullable and frame[name].null_count():
            problems.append(f"column {name!r} has {frame[name].null_count()} nulls")
    if problems:
        raise FrameError(f"not a frame of {kind.name}: {'; '.join(problems)} (it has: {', '.join(frame.columns)})")
    return frame.select(pl.col(name).cast(dtype) for name, dtype in kind.columns.items())
