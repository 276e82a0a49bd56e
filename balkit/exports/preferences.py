"""Pairs of a row's worked answer and a worse one, as training rows: what preference targets write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet

from balkit.errors import ExportError
from balkit.exports.rows import EXPORT_ROWS, LONG, SLICE, Message, Options, chat, judged
from balkit.exports.rows import TEXTS as ROW_TEXTS
from balkit.pool.pairs import PAIRS

#: The columns of pairs.parquet: where a pair stands in the files, and where it comes from.
SIDECAR = ["part", "line", "row_id", "example_id", "domain", "rationale_id", "rejected_id", "reason", "n_tokens"]

#: How an export without any pair says what to do.
NO_PAIRS = (
    "needs pairs, and no row of the snapshot has one: a worked answer to the same example that was refused for its "
    "final answer, or by a person. Let a recipe try several times (rationale: {hint: false, tries: 4}), or refuse some "
    "with `balkit review`, run again, and export that snapshot"
)


#: The texts of a pair, which are read in blocks when they are needed.
TEXTS = ("prompt", "rationale", "answer", "rejected_rationale", "rejected_answer")

#: Gives PAIRS of all examples of some EXPORT_ROWS.
Known = Callable[[pl.DataFrame], pl.DataFrame]


def spooled(blocks: Iterator[pl.DataFrame], known: Known, *, part: str, options: Options, path: Path) -> pl.DataFrame:
    """Writes the pairs of a part's kept EXPORT_ROWS to a Parquet file and gives them without their texts.

    They stand in the order of the rows, then by rank, with `line` counted from 0. Columns: those of `SIDECAR`
    (`n_tokens` of the longer side), completion_tokens, rejected_tokens (of its completion), bytes (of the longer side
    with its prompt); in the file `TEXTS` too. A row's copies give no pairs of their own. Raises `ExportError` where
    what was rejected would be too long, or is nothing to learn from, unless the options leave such out.
    """
    nothing = EXPORT_ROWS.empty().with_columns(pl.lit(None, pl.String).alias(name) for name in ROW_TEXTS)
    empty = _joined(nothing, PAIRS.empty(), part=part, options=options)
    found, unfit = [empty.drop(TEXTS)], [empty.drop(TEXTS)]
    schema = empty.drop("fault").to_arrow().schema
    line = 0
    with pyarrow.parquet.ParquetWriter(path, schema) as file:
        for rows in blocks:
            both = _joined(rows, known(rows), part=part, options=options)
            unfit.append(both.filter(pl.col("fault").is_not_null()).drop(TEXTS))
            kept = both.filter(pl.col("fault").is_null())
            kept = kept.with_columns(line=line + pl.int_range(pl.len(), dtype=pl.Int64))
            line += kept.height
            file.write_table(kept.drop("fault").to_arrow().cast(schema))
            found.append(kept.drop(TEXTS))
    _refuse(pl.concat(unfit), of=line, part=part, options=options)
    return pl.concat(found).drop("fault")


def read(path: Path) -> Iterator[pl.DataFrame]:
    """The pairs of a file that `spooled` wrote, with their texts, in order."""
    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=SLICE):
            yield pl.DataFrame(pl.from_arrow(batch))


def _joined(rows: pl.DataFrame, pairs: pl.DataFrame, *, part: str, options: Options) -> pl.DataFrame:
    """The pairs of some rows with their texts, and with `fault`: why what was rejected would not train."""
    first = rows.filter(pl.col("copy") == 0).select(
        *("line", "row_id", "example_id", "domain", "rationale_id", "prompt", "rationale", "answer"),
        *("n_tokens", "completion_tokens", "bytes"),
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
    judgement = judged(worse, options=options).rename({"reason": "fault", "n_tokens": "total"})
    longer = pl.sum_horizontal(pl.col("prompt", "rejected_rationale", "rejected_answer").str.len_bytes().cast(pl.Int64))
    return both.hstack(judgement.rename({"completion_tokens": "rejected_tokens"})).select(
        *(name for name in SIDECAR if name not in ("part", "n_tokens")),
        *("completion_tokens", "rejected_tokens", *TEXTS, "fault"),
        part=pl.lit(part),
        n_tokens=pl.max_horizontal("n_tokens", "total"),
        bytes=pl.max_horizontal("bytes", longer),
    )


def _refuse(unfit: pl.DataFrame, *, of: int, part: str, options: Options) -> None:
    for dropped, some, flag in (
        (options.drop_long, unfit.filter(pl.col("fault").is_in(LONG)), "--drop-long"),
        (options.drop_refused, unfit.filter(~pl.col("fault").is_in(LONG)), "--drop-refused"),
    ):
        if some.height and not dropped:
            raise ExportError(
                f"{some.height} of {of + unfit.height} rejected worked answers of the {part} part would not train as "
                f"they stand ({some['fault'][0]}, row {some['row_id'][0]} first): leave their pairs out with {flag}"
            )


def chats(blocks: Iterator[pl.DataFrame], *, options: Options) -> Iterator[tuple[list[Message], Message, Message]]:
    """Of each pair the messages of the prompt, the chosen message and the rejected one."""
    for prompt, rationale, answer, worse, wrong in (row for pairs in blocks for row in pairs.select(TEXTS).iter_rows()):
        good = chat(prompt, rationale=rationale, answer=answer, options=options)
        bad = chat(prompt, rationale=worse, answer=wrong, options=options)
        yield good[:-1], good[-1], bad[-1]


def judgements(blocks: Iterator[pl.DataFrame], *, options: Options) -> Iterator[tuple[list[Message], Message, bool]]:
    """Of each pair what was chosen and what was rejected, each once: the prompt, the message, whether it is wanted."""
    seen = set()
    for pairs in blocks:
        ids = pairs.select("rationale_id", "rejected_id").iter_rows()
        for (prompt, good, bad), (chosen, rejected) in zip(chats(iter([pairs]), options=options), ids, strict=True):
            for message, which, wanted in ((good, chosen, True), (bad, rejected, False)):
                if which not in seen:
                    seen.add(which)
                    yield prompt, message, wanted


def count(pairs: pl.DataFrame, *, once: bool) -> int:
    """How many rows the pairs are; `once`: of each side one, however often it comes."""
    return sum(pairs[which].n_unique() for which in ("rationale_id", "rejected_id")) if once else pairs.height


def trainable(pairs: pl.DataFrame, *, once: bool) -> int:
    """Tokens of the completions of both sides; `once`: of a side that is in several pairs once."""
    sides = {"rationale_id": "completion_tokens", "rejected_id": "rejected_tokens"}
    return sum(int((pairs.unique(which) if once else pairs)[tokens].sum()) for which, tokens in sides.items())


def lineage(parts: dict[str, pl.DataFrame]) -> Iterator[dict[str, Any]]:
    """The rows of pairs.parquet."""
    for pairs in parts.values():
        yield from pairs.select(SIDECAR).iter_rows(named=True)
