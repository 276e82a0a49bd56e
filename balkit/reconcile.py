"""Whether a pool and its ledger tell the same story: what was paid for, and what came of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress

import polars as pl

from balkit.errors import PoolDamaged
from balkit.pool import Pool
from balkit.teacher import Ledger
from balkit.vectors import drop_damaged

_KEY = re.compile(r"[0-9a-f]{64}")
_PAID = ("input_tokens", "output_tokens", "cost_microusd")


def ledger_of(pool: Pool) -> Ledger:
    """The pool's ledger, open. Raises `PoolDamaged` where it is missing though calls were paid through it.

    A blank one would forget what its runs have spent, and buy their replies again.
    """
    path = pool.path / "calls.sqlite"
    paid = 0 if path.exists() else pool.calls().filter(pl.col("status") != "cached").height
    if paid:
        raise PoolDamaged(
            f"{path}: is missing, and {paid} calls of the pool were paid through it; restore it from a backup, with "
            "the files whose names begin like its own"
        )
    return Ledger(path)


def calls_of(pool: Pool) -> pl.DataFrame:
    """CALLS of all runs, as the ledger has them: it is ahead of the pool's mirror until a stage is committed.

    The mirror's, where there is no ledger, which opening would make, or the folder cannot be written, which it needs.
    """
    file = pool.path / "calls.sqlite"
    if not (file.exists() and os.access(file, os.W_OK) and os.access(pool.path, os.W_OK)):
        return pool.calls()
    with Ledger(file) as ledger:
        return ledger.calls()


def problems_of(pool: Pool) -> list[str]:
    """What is wrong with a pool, with its ledger and between them, one line each; empty when all is well.

    Reads every row of both. The ledger may be ahead of the pool, since calls are kept before the step that asked for
    them is committed, but never behind it.
    """
    problems, path = pool.check(), pool.path / "calls.sqlite"
    if not path.exists():
        lost = pool.calls().filter(pl.col("status") != "cached").height
        return problems + ([f"{path}: is missing, and {lost} calls of the pool were paid through it"] if lost else [])
    with Ledger(path) as ledger:
        damaged = ledger.check()
        return [*problems, *(damaged or between(pool, ledger))]


def repair(pool: Pool) -> list[str]:
    """Mend what is only made from other things, and say what: files of snapshots, vectors. Nothing else is touched.

    A snapshot whose own rows are damaged is left to `problems_of`.
    """
    done = []
    for name in pool.snapshots()["snapshot_id"]:
        with suppress(PoolDamaged):
            if pool.snapshot_file_problem(name) is not None:
                done.append(f"{pool.snapshot_file(name)}: was damaged and is made again")
    for file in drop_damaged(pool.path / "vectors"):
        done.append(f"{file}: was damaged and is gone; its texts are encoded again when they are needed")
    return done


def between(pool: Pool, ledger: Ledger) -> Iterator[str]:
    """Where the pool says of a call what the ledger does not.

    Every succeeded call that the pool mirrors has a reply in the ledger and cost the same there. The source of every
    rationale, where it is the key of a call and not a word such as `given`, is a call of the ledger.
    """
    mirrored = pool.calls().filter(pl.col("status") == "succeeded")
    kept = ledger.calls()
    answered = ledger.cached(mirrored["key"])
    for key, run_id in mirrored.select("key", "run_id").iter_rows():
        if key not in answered:
            yield f"{ledger.path}: no reply to call {key}, which run {run_id[:12]} paid for"
    both = mirrored.join(kept, on=["key", "run_id"], suffix="_kept")
    differs = both.filter(pl.any_horizontal(pl.col(name) != pl.col(f"{name}_kept") for name in _PAID))
    for row in differs.iter_rows(named=True):
        said, cost = (", ".join(f"{name} {row[name + end]}" for name in _PAID) for end in ("", "_kept"))
        yield f"{ledger.path}: call {row['key']} has {cost}; the pool says {said}"
    known = set(kept["key"])
    for name, source in pool.rationales().select("rationale_id", "source").iter_rows():
        if _KEY.fullmatch(source) and source not in known:
            yield f"{ledger.path}: no call {source}, of which rationale {name} is the reply"
