"""What a step of a run hands to the pool in one piece, checked against what is there."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from balkit import frames, texts
from balkit.errors import PoolError
from balkit.pool import database, identity, snapshots
from balkit.pool.snapshots import SnapshotDraft
from balkit.pool.tables import TABLES, Key

if TYPE_CHECKING:
    import duckdb

SPLITS = ("train", "dev", "eval")
ORIGINS = ("source", "synthetic")

_NOT_IN_A_NAME = ("Cc", "Zl", "Zp")  # Unicode's categories of control characters and line ends


@dataclass(frozen=True)
class Commit:
    """Rows that enter a pool together, or not at all.

    `key` is (run_id, stage, step): a key that is committed already makes the commit a no-op. `added_in` of
    `examples` is ignored. Rows whose identity is stored are left out, whatever else they say. `retired` has example_id
    and reason.
    """

    message: str
    key: Key | None = None
    examples: pl.DataFrame | None = None
    rationales: pl.DataFrame | None = None
    scores: pl.DataFrame | None = None
    decisions: pl.DataFrame | None = None
    evaluations: pl.DataFrame | None = None
    calls: pl.DataFrame | None = None
    snapshot: SnapshotDraft | None = None
    retired: pl.DataFrame | None = None


def rows_of(con: duckdb.DuckDBPyConnection, commit: Commit, *, version: int) -> dict[str, pl.DataFrame]:
    """The rows per table that a commit adds to a pool at `version`.

    Raises `FrameError` for a frame of another kind and `PoolError` for rows that contradict themselves or the pool.
    """
    rows: dict[str, pl.DataFrame] = {}
    if commit.examples is not None:
        rows |= _examples(con, frames.check(commit.examples, frames.EXAMPLES))
    known = rows.get("examples", frames.EXAMPLES.empty())["example_id"]
    for name, kind in (
        ("rationales", frames.RATIONALES),
        ("scores", frames.SCORES),
        ("evaluations", frames.EVALUATIONS),
    ):
        frame = getattr(commit, name)
        if frame is not None:
            frame = frames.check(frame, kind)
            _refuse_orphans(con, name, frame, known=known)
            rows[name] = _unstored(con, name, frame)
    _refuse_bad_values(rows)
    if commit.decisions is not None:
        run_id, stage = commit.key[:2] if commit.key is not None else (None, None)
        rows["decisions"] = frames.check(commit.decisions, frames.DECISIONS).with_columns(
            run_id=pl.lit(run_id, pl.String), stage=pl.lit(stage, pl.Int64)
        )
    if commit.calls is not None:
        rows["calls"] = _unstored(con, "calls", frames.check(commit.calls, frames.CALLS))
    if commit.retired is not None:
        rows["retirements"] = retired(con, commit.retired.select("example_id", "reason"), version=version)
    if commit.snapshot is not None:
        rows |= snapshots.rows_of(con, commit.snapshot)
    return rows


def is_a_name(domain: str) -> bool:
    """Whether a domain may be called so: it stands in tables, file names and messages, in one line."""
    return not any(unicodedata.category(c) in _NOT_IN_A_NAME for c in domain)


def with_prompt_key(examples: pl.DataFrame) -> pl.DataFrame:
    """The frame with `prompt_key`, the digest of the normalised prompt by which leaks are found."""
    return examples.with_columns(identity.prompt_keys(examples["prompt"]).alias("prompt_key"))


def retired(con: duckdb.DuckDBPyConnection, wanted: pl.DataFrame, *, version: int) -> pl.DataFrame:
    """Those of the wanted ids that are in use. Raises `PoolError` for ids that the pool never had."""
    con.register("incoming", wanted)
    unknown = database.ask(con, "unknown_examples")["example_id"]
    usable = database.ask(con, "usable", version=version)
    con.unregister("incoming")
    if len(unknown):
        raise PoolError(f"{len(unknown)} ids are not in the pool, such as {unknown[0]!r}")
    return wanted.join(usable, on="example_id", how="semi", maintain_order="left")


def relabelled(con: duckdb.DuckDBPyConnection, wanted: pl.DataFrame, *, version: int) -> pl.DataFrame:
    """The labels that differ from those at `version`. Raises `PoolError` for unknown ids, bad splits, no domain."""
    domains = [texts.canonical(str(domain)) if domain is not None else None for domain in wanted["domain"]]
    wanted = wanted.select("example_id", pl.Series("domain", domains, dtype=pl.String), pl.col("split").cast(pl.String))
    odd = [domain for domain in domains if domain and not is_a_name(domain)]
    if odd:
        raise PoolError(f"relabel: domain {odd[0]!r} has a line end or a control character")
    bad = wanted.filter(
        ~pl.col("split").is_in(SPLITS).fill_null(False) | pl.col("domain").is_null() | (pl.col("domain") == "")
    )
    if bad.height:
        raise PoolError(
            f"relabel: domain {bad['domain'][0]!r}, split {bad['split'][0]!r}; a split is {', '.join(SPLITS)}"
        )
    if wanted["example_id"].is_duplicated().any():
        raise PoolError("relabel: an example_id stands twice")
    known = retired(con, wanted.select("example_id"), version=version)
    con.register("incoming", known)
    old = database.ask(con, "stored_labels", version=version)
    con.unregister("incoming")
    both = wanted.join(old, on="example_id", suffix="_old", maintain_order="left")
    differs = (pl.col("domain") != pl.col("domain_old")) | (pl.col("split") != pl.col("split_old"))
    return both.filter(differs).select("example_id", "domain", "split", "origin")


def _examples(con: duckdb.DuckDBPyConnection, examples: pl.DataFrame) -> dict[str, pl.DataFrame]:
    due = identity.example_ids(examples["prompt"], examples["reference"])
    _refuse_ids("examples", given=examples["example_id"], due=due)
    for column, allowed in (("split", SPLITS), ("origin", ORIGINS)):
        other = examples.filter(~pl.col(column).is_in(allowed))[column].unique(maintain_order=True).to_list()
        if other:
            raise PoolError(f"examples: {column} {other[0]!r} is not one of {', '.join(allowed)}")
    labels = examples.select("example_id", "domain", "split", "origin").unique()
    torn = labels.filter(pl.col("example_id").is_duplicated()).sort("example_id", "domain", "split")
    if torn.height:
        raise PoolError(
            f"example {torn['example_id'][0]} comes with two labels: {torn['domain'][0]!r}, {torn['domain'][1]!r}"
        )
    new = _unstored(con, "examples", examples)
    return {"examples": with_prompt_key(new), "labels": new}


def _unstored(con: duckdb.DuckDBPyConnection, name: str, frame: pl.DataFrame) -> pl.DataFrame:
    """The rows whose identity the table lacks, each identity once, the first of the frame."""
    identity = list(TABLES[name].order)
    frame = frame.unique(identity, keep="first", maintain_order=True)
    con.register("incoming", frame.select(identity))
    listed = ", ".join(identity)
    known = con.sql(f"SELECT DISTINCT {listed} FROM {name} SEMI JOIN incoming USING ({listed})").pl()
    con.unregister("incoming")
    return frame.join(known, on=identity, how="anti", maintain_order="left")


def _refuse_orphans(con: duckdb.DuckDBPyConnection, name: str, frame: pl.DataFrame, *, known: pl.Series) -> None:
    con.register("incoming", frame.select("example_id"))
    unknown = database.ask(con, "unknown_examples")["example_id"]
    con.unregister("incoming")
    lost = unknown.filter(~unknown.is_in(known.implode())) if len(unknown) else unknown
    if len(lost):
        raise PoolError(
            f"{name}: {len(lost)} rows are of examples that are not in the pool, such as {lost[0]}; add those first"
        )


def _refuse_bad_values(rows: dict[str, pl.DataFrame]) -> None:
    if "rationales" in rows:
        frame = rows["rationales"]
        due = identity.digests(frame.select("example_id", "text", "answer", "source"))
        _refuse_ids("rationales", given=frame["rationale_id"], due=due)
        silent = frame.filter(~pl.col("accepted") & pl.col("reason").is_null())
        if silent.height:
            raise PoolError(f"rationales: {silent['rationale_id'][0]} is rejected without a reason")
    if "scores" in rows:
        odd = rows["scores"].filter(pl.col("value").is_not_null() & ~pl.col("value").is_finite())
        if odd.height:
            raise PoolError(
                f"scores: {odd.height} values are not finite, such as {odd['value'][0]} of {odd['example_id'][0]}; "
                "an unscored example has a null value and a reason"
            )


def _refuse_ids(name: str, *, given: pl.Series, due: pl.Series) -> None:
    wrong = (given != due).arg_true()
    if len(wrong):
        row = wrong[0]
        raise PoolError(f"{name}: id {given[row]!r} is not the digest of its row, {due[row]!r}; see balkit.texts")
