"""Pairs of a row's worked answer and a worse one, as training rows: what preference targets write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from balkit.errors import ExportError
from balkit.exports.rows import LONG, Message, Options, chat, judged

#: Prefixes the columns of what was rejected.
_NOT = "rejected_"

#: The columns of pairs.parquet: where a pair stands in the files, and where it comes from.
SIDECAR = ["part", "line", "row_id", "example_id", "domain", "rationale_id", "rejected_id", "reason", "n_tokens"]

#: How an export without any pair says what to do.
NO_PAIRS = (
    "needs pairs, and no row of the snapshot has one: a worked answer to the same example that was refused for its "
    "final answer, or by a person. Let a recipe try several times (rationale: {hint: false, tries: 4}), or refuse some "
    "with `balkit review`, run again, and export that snapshot"
)


def paired(rows: pl.DataFrame, pairs: pl.DataFrame, *, part: str, options: Options) -> pl.DataFrame:
    """The pairs of a part's kept EXPORT_ROWS, in the rows' order, then by rank, with `line` counted from 0.

    Columns: those of `SIDECAR` (`n_tokens` of the longer side), prompt, rationale, answer, completion_tokens, and
    rejected_rationale, rejected_answer, rejected_tokens (of its completion). A row's copies give no pairs of their own.
    Raises `ExportError` where what was rejected would be too long, or is nothing to learn from,
    unless the options leave such out.
    """
    first = rows.filter(pl.col("copy") == 0).select(
        *("line", "row_id", "example_id", "domain", "rationale_id", "prompt", "rationale", "answer"),
        *("n_tokens", "completion_tokens"),
    )
    split = "train" if part == "train" else "dev"
    named = pairs.filter(pl.col("split") == split).select(
        "example_id",
        "rank",
        "rejected_id",
        "reason",
        rationale_id="chosen_id",
        rejected_rationale="rejected",
        rejected_answer=pl.col("rejected_answer").fill_null(""),
    )
    both = first.join(named, on=["example_id", "rationale_id"]).sort("line", "rank")
    worse = both.select("example_id", "prompt", rationale="rejected_rationale", answer="rejected_answer")
    found = judged(worse, options=options).rename({"reason": "fault", "n_tokens": "rejected_total"})
    both = both.hstack(found.rename({"completion_tokens": "rejected_tokens"}))
    unfit = both.filter(pl.col("fault").is_not_null())
    for dropped, some, flag in (
        (options.drop_long, unfit.filter(pl.col("fault").is_in(LONG)), "--drop-long"),
        (options.drop_refused, unfit.filter(~pl.col("fault").is_in(LONG)), "--drop-refused"),
    ):
        if some.height and not dropped:
            raise ExportError(
                f"{some.height} of {both.height} rejected worked answers of the {part} part would not train as they "
                f"stand ({some['fault'][0]}, row {some['row_id'][0]} first): leave their pairs out with {flag}"
            )
    kept = both.filter(pl.col("fault").is_null())
    return kept.with_columns(
        part=pl.lit(part),
        line=pl.int_range(pl.len(), dtype=pl.Int64),
        n_tokens=pl.max_horizontal("n_tokens", "rejected_total"),
    ).drop("fault", "rejected_total", "rank")


def chats(pairs: pl.DataFrame, *, options: Options) -> Iterator[tuple[list[Message], Message, Message]]:
    """Of each pair the messages of the prompt, the chosen message and the rejected one."""
    columns = ("prompt", "rationale", "answer", _NOT + "rationale", _NOT + "answer")
    for prompt, rationale, answer, worse, wrong in pairs.select(columns).iter_rows():
        good = chat(prompt, rationale=rationale, answer=answer, options=options)
        bad = chat(prompt, rationale=worse, answer=wrong, options=options)
        yield good[:-1], good[-1], bad[-1]


def judgements(pairs: pl.DataFrame, *, options: Options) -> Iterator[tuple[list[Message], Message, bool]]:
    """Of each pair what was chosen and what was rejected, each once: the prompt, the message, whether it is wanted."""
    seen = set()
    ids = pairs.select("rationale_id", "rejected_id").iter_rows()
    for (prompt, good, bad), (chosen, rejected) in zip(chats(pairs, options=options), ids, strict=True):
        for message, which, wanted in ((good, chosen, True), (bad, rejected, False)):
            if which not in seen:
                seen.add(which)
                yield prompt, message, wanted


def trainable(pairs: pl.DataFrame, *, once: bool) -> int:
    """Tokens of the completions of both sides; `once`: of a side that is in several pairs once."""
    sides = {"rationale_id": "completion_tokens", "rejected_id": "rejected_tokens"}
    return sum(int((pairs.unique(which) if once else pairs)[tokens].sum()) for which, tokens in sides.items())


def longest_bytes(pairs: pl.DataFrame) -> int:
    """UTF-8 bytes of the longest side of a pair, prompt included."""
    sides = [
        pl.sum_horizontal(pl.col("prompt", f"{side}rationale", f"{side}answer").str.len_bytes()) for side in ("", _NOT)
    ]
    return int(pairs.select(pl.max_horizontal(sides).max()).item() or 0)


def lineage(parts: dict[str, pl.DataFrame]) -> Iterator[dict[str, Any]]:
    """The rows of pairs.parquet."""
    for pairs in parts.values():
        yield from pairs.select(SIDECAR).iter_rows(named=True)
