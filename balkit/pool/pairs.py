"""Pairs of a worked answer and a worse one to the same example, for learning from preferences."""

from __future__ import annotations

import polars as pl

from balkit import texts
from balkit.errors import PoolError
from balkit.frames import RATIONALES, Kind, check
from balkit.pool.reviewed import REJECTED

_S, _I = pl.String(), pl.Int64()

#: A chosen and a rejected worked answer of an example. `rank` counts an example's pairs from 0; `reason` is why the
#: rejected one was.
PAIRS = Kind(
    "PAIRS",
    {
        "example_id": _S, "domain": _S, "split": _S, "rank": _I, "prompt": _S, "reference": _S, "chosen": _S,
        "rejected": _S, "chosen_answer": _S, "rejected_answer": _S, "chosen_id": _S, "rejected_id": _S, "reason": _S,
    },
    frozenset({"reference", "chosen_answer", "rejected_answer"}),
)  # fmt: skip

#: Reasons for which a worked answer is worse by its own fault, the surest first. A thin vote, a reply that was cut off
#: or a text that came twice says nothing of what it says.
FAULTS = (REJECTED, "answer_contradicts_reference", "outvoted")


def pairs(chosen: pl.DataFrame, rationales: pl.DataFrame, *, per_example: int) -> pl.DataFrame:
    """PAIRS, at most `per_example` of an example, by example_id, then rank; the result does not depend on row order.

    `chosen` has example_id, domain, split, prompt, reference and the accepted one's rationale_id, text, answer;
    `rationales` are RATIONALES that stand. A rejected one (see `FAULTS`) never has the text of a chosen one and, unless
    a person refused it, never its answer. Rejected ones are used once each before any is used again: the surest fault
    first, then by id. Raises `PoolError` for `per_example` below 1.
    """
    if per_example < 1:
        raise PoolError(f"pairs: per_example is {per_example}; an example gives at least 1")
    good = _shaped(chosen.unique(["example_id", "rationale_id"]).sort("example_id", "rationale_id"), name="chosen")
    bad = rationales.filter(~pl.col("accepted") & pl.col("reason").is_in(FAULTS))
    bad = bad.join(good, on="example_id", how="semi")
    order = pl.col("reason").replace_strict({reason: at for at, reason in enumerate(FAULTS)}, return_dtype=pl.Int64)
    bad = _shaped(bad.sort("example_id", order, "rationale_id"), name="rejected")
    same_text = good.select("example_id", rejected_key="chosen_key").unique()
    bad = bad.join(same_text, on=["example_id", "rejected_key"], how="anti")
    both = good.join(bad.drop("domain", "split", "prompt", "reference", strict=False), on="example_id")
    both = both.filter((pl.col("reason") == REJECTED) | pl.col("chosen_said").ne_missing(pl.col("rejected_said")))
    of, many = ["example_id", "rejected_at"], pl.len().cast(pl.Int64).over("example_id", "rejected_at")
    turn = ((pl.col("chosen_at") - pl.col("rejected_at")) % many + many) % many
    both = both.sort(*of, turn, "chosen_at").with_columns(round=pl.int_range(pl.len(), dtype=pl.Int64).over(*of))
    ranked = both.sort("example_id", "round", "rejected_at").with_columns(
        rank=pl.int_range(pl.len(), dtype=pl.Int64).over("example_id")
    )
    return check(ranked.filter(pl.col("rank") < per_example), PAIRS)


def _shaped(rows: pl.DataFrame, *, name: str) -> pl.DataFrame:
    """The rows with `name` in front of the columns of their rationales; of an example the same text once."""
    keys = pl.Series(f"{name}_key", [texts.normalised(text) for text in rows["text"]], dtype=pl.String)
    said = pl.Series(
        f"{name}_said", [None if one is None else texts.normalised(one) for one in rows["answer"]], dtype=pl.String
    )
    shaped = rows.rename({"text": name, "answer": f"{name}_answer", "rationale_id": f"{name}_id"})
    dropped = [column for column in RATIONALES.columns if column not in ("example_id", "reason")]
    shaped = shaped.drop(dropped, strict=False).hstack([keys, said])
    shaped = shaped.unique(["example_id", f"{name}_key"], keep="first", maintain_order=True)
    at = pl.int_range(pl.len(), dtype=pl.Int64).over("example_id").alias(f"{name}_at")
    return (shaped.drop("reason", strict=False) if name == "chosen" else shaped).with_columns(at)
