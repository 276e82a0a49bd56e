"""The pool at size: adding, reading, snapshots, old versions, growth; seconds, bytes and memory, as Markdown tables.

    python tests/benchmarks/bench_pool.py [rows] [--rounds 3] [--only append,memory,work,record,versions,growth]
                                          [--snapshot-rows N] [--folder FOLDER]

`rows` (1,000,000) examples of `corpus.py`: 200 Zipf domains, prompts of about 150 characters. What is compared runs in
turn, round by round, each from an empty write queue (`sync`) and, where it writes, on a file of its own. Every section
runs in a process of its own, which says how much memory it had before and at its peak (`resource.getrusage`).

append    `Pool.add` of a frame and of a JSONL file; then prepared rows through `tables.append` (digest, insert, commit,
          checkpoint) against bare INSERT ... SELECT of the same frames, and `executemany` of a sample, as it is linear.
          Targets: at most 1.5 times the first's seconds, at least 40 times the second's rows a second
memory    `Pool.add` of a JSONL file of 10,000, 100,000 and all rows, each in a process of its own
work      one percent more rows, and what reads everything, on the full pool
record    a snapshot's record against a copy of its rows in a DuckDB file. Target: a tenth of bytes and seconds
versions  reading an old version against the newest, which has half a percent of its rows relabelled and half a percent
          more. Target: at most 1.2 times
growth    a hundredth, a tenth and all of the rows. Target: no worse than linear
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import corpus
import polars as pl
from corpus import add, blank, copied, fresh, recipe_for
from measuring import Times, compared, digits, in_child, interleaved, median, seconds, table, told

from balkit import plan
from balkit.changes import changed_rows, changes
from balkit.pool import Commit, Pool, SnapshotDraft, answered, database, snapshots, tables, training_rows, writing

if TYPE_CHECKING:
    import duckdb  # otherwise in functions: imported as a child starts, it takes that for a shell and shows progress

Frames = Mapping[str, pl.DataFrame]

SAMPLE = 5_000  # rows for executemany
PART = 100_000  # rationales a commit
ONE = pl.lit(1, dtype=pl.Int64)
CONFIG: dict[str, Any] = {"enable_external_access": "false", "python_enable_replacements": "false"}  # as the pool's


# --- append


def append(folder: Path, rows: int, rounds: int) -> list[str]:
    """What `Pool.add` takes, and its last part against its peers."""
    asked = corpus.questions(rows)
    file = corpus.jsonl(folder / "append.jsonl", rows=rows)

    def added(source: pl.DataFrame | Path) -> float:
        with blank(folder) as pool:
            return add(pool, source)

    times = interleaved(rounds, {"a frame": partial(added, asked), "a JSONL file": partial(added, file)})
    lines = [told(name, took, digits(rows / statistics.median(took))) for name, took in times.items()]
    whole = table("`Pool.add`, end to end.", "source | seconds | rows/s | single rounds, s", lines)
    parts = prepared(folder, asked)
    sample = {name: frame.head(SAMPLE) for name, frame in parts.items()}
    ways = {
        "`tables.append`": (by_pool, parts),
        "INSERT ... SELECT": (by_insert, parts),
        "executemany": (by_row, sample),
    }
    times = interleaved(rounds, {name: partial(way, folder, some) for name, (way, some) in ways.items()})
    rates = {name: [ways[name][1]["labels"].height / t for t in took] for name, took in times.items()}
    ours = rates["`tables.append`"]
    lines = [[name, median(times[name]), median(rate), *compared(ours, rate)] for name, rate in rates.items()]
    title = (
        f"Prepared rows (examples and labels), file opened to closed; executemany of {sample['labels'].height:,} rows."
    )
    return [whole, table(title, "way | seconds | rows/s | our rows/s to these | single rounds", lines)]


def prepared(folder: Path, asked: pl.DataFrame) -> Frames:
    """The rows of `examples` and `labels` as an addition stores them."""
    with blank(folder) as pool:
        pool.add(asked, **corpus.COLUMNS)
        with database.reading(pool.path) as con:
            return {
                name: con.sql(f"SELECT {', '.join(tables.TABLES[name].columns)} FROM {name} WHERE added_in = 1").pl()
                for name in ("examples", "labels")
            }


def by_pool(folder: Path, parts: Frames) -> float:
    """As the pool does it."""

    def work() -> None:
        with writing.writing(pool.path) as con:
            tables.append(con, rows=parts, message="all")

    with blank(folder) as pool:
        return seconds(work)


def by_insert(folder: Path, parts: Frames) -> float:
    """What a careful user would write, on the same tables; no digest."""

    def insert(con: duckdb.DuckDBPyConnection) -> None:
        for name, frame in parts.items():
            number = {"number": pl.int_range(frame.height, dtype=pl.Int64)} if name == "examples" else {}
            con.register("incoming", frame.with_columns(added_in=ONE, **number))
            con.execute(f"INSERT INTO {name} BY NAME SELECT * FROM incoming")
            con.unregister("incoming")

    with blank(folder) as pool:
        return seconds(lambda: in_transaction(pool.path / "pool.duckdb", insert))


def by_row(folder: Path, parts: Frames) -> float:
    """A statement a row; that the rows became tuples before is not counted."""
    frames = {name: frame.with_columns(added_in=ONE) for name, frame in parts.items()}
    values = {name: (", ".join(frame.columns), frame.rows()) for name, frame in frames.items()}

    def insert(con: duckdb.DuckDBPyConnection) -> None:
        for name, (columns, rows) in values.items():
            con.executemany(f"INSERT INTO {name} ({columns}) VALUES ({', '.join('?' * len(rows[0]))})", rows)

    with blank(folder) as pool:
        return seconds(lambda: in_transaction(pool.path / "pool.duckdb", insert))


def in_transaction(path: Path, work: Callable[[duckdb.DuckDBPyConnection], None]) -> None:
    """One transaction and a checkpoint, with the pool's settings."""
    import duckdb

    with duckdb.connect(path, config=CONFIG) as con:
        con.execute("BEGIN TRANSACTION")
        work(con)
        con.execute("COMMIT")
        con.execute("CHECKPOINT")


def memory(folder: Path, rows: int, rounds: int) -> list[str]:
    """The memory of adding a file, once for each size."""
    lines: list[list[object]] = []
    for size in sorted({min(10_000, rows), min(100_000, rows), rows}):
        file = corpus.jsonl(folder / f"{size}.jsonl", rows=size)
        took, before, peak = in_child(add_file, folder, file)
        lines.append([f"{size:,}", *map(digits, (file.stat().st_size / 2**20, took, before, peak))])
    return [table("`Pool.add` of a JSONL file.", "rows | file, MiB | seconds | before, MiB | peak, MiB", lines)]


def add_file(folder: Path, file: Path) -> float:
    """The seconds of adding a file to a blank pool."""
    with blank(folder) as pool:
        return add(pool, file)


# --- work on the full pool


def work(folder: Path, rows: int, rounds: int) -> list[str]:
    """One percent more, and every read."""
    numbers, percent, asked = itertools.count(), rows // 100, recipe_for(rows)
    with copied(folder / "base") as pool:
        since = pool.version

        def commit() -> float:
            examples = corpus.as_examples(fresh(percent, next(numbers)))
            return seconds(lambda: pool.commit(Commit("one percent more", examples=examples)))

        writes = {"`Pool.commit`": commit, "`Pool.add`": lambda: add(pool, fresh(percent, next(numbers)))}
        reads = {
            "`Pool.coverage`": pool.coverage,
            "`Pool.examples`": pool.examples,
            "`balkit.plan`": lambda: plan(pool, asked),
            "`changes` over 1 %": lambda: changes(pool, since=since, until=since + 1),
            "`changed_rows` over 1 %": lambda: changed_rows(pool, since=since, until=since + 1),
            "`Pool.check`": pool.check,
        }
        times = {f"{name} of 1 % more": took for name, took in interleaved(rounds, writes).items()}
        times |= interleaved(rounds, {name: partial(seconds, read) for name, read in reads.items()})
    lines = [told(name, took) for name, took in times.items()]
    return [table(f"On a pool of {rows:,} rows.", "step | seconds | single rounds, s", lines)]


# --- a snapshot's record


def record(folder: Path, rows: int, rounds: int) -> list[str]:
    """The record of a snapshot of all rows against a copy of them."""
    with blank(folder) as pool:
        trained, file = answered_rows(pool, rows), pool.path / "pool.duckdb"
        packed, grown, sizes, steps, copies = packed_bytes(file), [], [], list[Times](), []
        for number in range(rounds):
            before = file.stat().st_size
            draft = SnapshotDraft(run_id=f"run{number}", stage=1, recipe_yaml="name: r\n", parent=None, rows=trained)
            steps.append(store(pool, draft))
            grown.append(file.stat().st_size - before)
            took, size = copy(folder, trained)
            copies.append(took)
            sizes.append(size)
        packed = (packed_bytes(file) - packed) / rounds
    times = {f"- {name}": [step[name][0] for step in steps] for name in steps[0]}
    laps = list(times.values())
    times["record: digest, insert, commit"] = [a + b for a, b in zip(laps[1], laps[3], strict=True)]
    times["record: all of `Pool.commit`"] = [sum(lap) for lap in zip(*laps, strict=True)]
    times["a copy of the rows"] = copies
    lines = [told(name, took, compared(copies, took)[0]) for name, took in times.items()]
    bytes_of = {
        "record, as committed": statistics.median(grown),
        "record, packed": packed,
        "a copy of the rows": sizes[0],
    }
    weights = [[name, *map(digits, (n / 2**20, n / rows, sizes[0] / n))] for name, n in bytes_of.items()]
    return [
        table(f"A snapshot of {rows:,} rows.", "what | seconds | the copy takes | single rounds, s", lines),
        table("The same, on the disk.", "what | MiB | bytes a row | the copy takes", weights),
    ]


def answered_rows(pool: Pool, rows: int) -> pl.DataFrame:
    """SNAPSHOT_ROWS of so many new examples of the pool, each with an accepted rationale."""
    pool.add(corpus.questions(rows), **corpus.COLUMNS)
    for number, part in enumerate(pool.examples().iter_slices(PART)):
        pool.commit(Commit(f"answers {number}", rationales=corpus.worked(part, seed=number)))
    return training_rows(answered(pool.examples(), pool.rationales()), stage=1)


def store(pool: Pool, draft: SnapshotDraft) -> Times:
    """What `Pool.commit` does with a draft, step by step."""
    found: Times = {}
    os.sync()
    clock = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal clock
        clock, began = time.perf_counter(), clock
        found[name] = [clock - began]

    with writing.writing(pool.path) as con:
        rows = snapshots.rows_of(con, draft)
        lap("validation of the draft")
        stored = tables.append(con, rows=rows, message="snapshot")
        lap("digest and insert")
        snapshots.refuse(con, draft, version=stored)
        lap("refusals, and reading it back")
    lap("commit and checkpoint")
    return found


def copy(folder: Path, trained: pl.DataFrame) -> tuple[float, int]:
    """Seconds and bytes of the same rows, texts and ids, in a table of a DuckDB file of its own."""

    def insert(con: duckdb.DuckDBPyConnection) -> None:
        con.register("incoming", trained)
        con.execute("CREATE TABLE copied AS SELECT * FROM incoming")
        con.unregister("incoming")

    with tempfile.TemporaryDirectory(dir=folder) as name:
        path = Path(name, "copy.duckdb")
        return seconds(lambda: in_transaction(path, insert)), path.stat().st_size


def packed_bytes(path: Path) -> int:
    """The size that `Pool.compact` would give the file, without its verifying."""
    import duckdb

    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        packed = Path(name, "packed.duckdb")
        with duckdb.connect() as con:
            con.execute(f"ATTACH '{path}' AS pool (READ_ONLY)")
            con.execute(f"ATTACH '{packed}' AS packed")
            con.execute("COPY FROM DATABASE pool TO packed")
            con.execute("DETACH packed")
        return packed.stat().st_size


# --- old versions, growth


def versions(folder: Path, rows: int, rounds: int) -> list[str]:
    """An old version against the newest."""
    lines: list[list[object]] = []
    with copied(folder / "base") as pool:
        old = pool.at(pool.version)
        moved = old.examples(split="train").head(rows // 200)
        pool.relabel(moved.with_columns(domain=pl.lit("topic 007")), message="half a percent moved")
        add(pool, fresh(rows // 200, 0))
        for name in ("examples", "coverage"):
            ways = {which: partial(seconds, getattr(view, name)) for which, view in (("old", old), ("new", pool))}
            interleaved(1, ways)
            times = interleaved(rounds, ways)
            lines.append([f"`{name}`", *map(median, times.values()), *compared(times["old"], times["new"])])
    header = "read | old version, s | newest, s | old to newest | single rounds"
    return [table(f"Version 2 of a pool of {rows:,} rows against version 4, which is the newest.", header, lines)]


def growth(folder: Path, rows: int, rounds: int) -> list[str]:
    """The same steps at three sizes."""
    found: dict[int, Times] = {size: {} for size in (rows // 100, rows // 10, rows)}
    for size, times in found.items():
        asked, recipe = corpus.questions(size), recipe_for(size)
        for _ in range(rounds):
            with blank(folder) as pool:
                times.setdefault("`Pool.add`", []).append(add(pool, asked))
                times.setdefault("`Pool.coverage`", []).append(seconds(pool.coverage))
                times.setdefault("`Pool.examples`", []).append(seconds(pool.examples))
                times.setdefault("`balkit.plan`", []).append(seconds(partial(plan, pool, recipe)))
    lines: list[list[object]] = []
    for name, last in found[rows].items():
        took = [statistics.median(times[name]) for times in found.values()]
        exponents = [f"{math.log10(b / a):.2f}" for a, b in itertools.pairwise(took)]
        lines.append([name, *map(digits, took), *exponents, told(name, last)[-1]])
    columns = ["step", *(f"{size:,} rows, s" for size in found), "exponent", "exponent", "single rounds of the last, s"]
    return [table("Medians, and the exponent from each size to the next (1 is linear).", " | ".join(columns), lines)]


SECTIONS = {one.__name__: one for one in (append, memory, work, record, versions, growth)}


def main() -> None:
    """Print the tables of every section that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, apart by commas")
    parser.add_argument("--snapshot-rows", type=int, help="rows of `record`; all by default")
    parser.add_argument("--folder", type=Path, help="where the pools are made; a temporary one by default")
    options = parser.parse_args()
    named = f"Python {platform.python_version()}, DuckDB {version('duckdb')}, polars {pl.__version__}"
    said = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {named}"
    print(f"{options.rows:,} rows, {options.rounds} rounds; {said}")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder, wanted = Path(name), options.only.split(",")
        if {"work", "versions"} & set(wanted):
            in_child(corpus.make_base, folder / "base", options.rows)
        for section in wanted:
            rows = options.snapshot_rows or options.rows if section == "record" else options.rows
            arguments, started = (folder, rows, options.rounds), time.perf_counter()
            if section == "memory":  # it starts processes of its own, from a small one
                print(*memory(*arguments), sep="\n", flush=True)
                continue
            lines, before, peak = in_child(SECTIONS[section], *arguments)
            spent = f"{section}: {time.perf_counter() - started:.0f} s in all, load {os.getloadavg()[0]:.1f}"
            print(*lines, f"\n{spent}; memory {before:,.0f} MiB before, {peak:,.0f} at the peak.", sep="\n", flush=True)


if __name__ == "__main__":
    main()
