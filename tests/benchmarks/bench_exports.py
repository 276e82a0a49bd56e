"""Exports at size: CPU seconds, bytes and peak memory of every target, beside what others take to write the same rows.

    python tests/benchmarks/bench_exports.py [rows ...] [--targets trl,hf,...] [--rounds 1] [--folder FOLDER]

For each number of rows (10,000 100,000 1,000,000 unless given) a pool of `corpus.py` with one snapshot of all of them:
prompts of about 150 characters, worked answers of about 600, and for a tenth of the rows a refused one, which makes a
pair. `balkit export POOL latest --to TARGET` runs in a process of its own, with no file of the snapshot there yet. CPU
time is user and system, which a busy machine changes little; the peak is that of resident memory; "nothing" is the same
process with a target that does not exist: imports, the snapshot's file, and what is read of the pool before. The peers
read the snapshot's Parquet file and write rows of `messages` once, without limits, lineage, digests, or reading them
back. A pool in FOLDER is kept and used again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import corpus
import polars as pl
from measuring import digits, in_child, peak_mib, table

from balkit import texts
from balkit.pool import Commit, Pool, SnapshotDraft, answered, training_rows

SIZES = (10_000, 100_000, 1_000_000)
TARGETS = ("trl", "trl-dpo", "llamafactory", "mlx", "verl", "openai", "hf", "jsonl", "parquet", "csv")
PART = 100_000  # examples whose answers are committed together
REFUSED = 10  # of so many examples one has a refused answer

#: The command line in a process that says at its end how much memory it had.
LAUNCHED = """
import atexit, sys
sys.path.insert(0, sys.argv.pop(1))
from bench_exports import tell_peak
atexit.register(tell_peak, sys.argv.pop(1))
from balkit.cli import main
sys.exit(main())
"""


@dataclass(frozen=True)
class Took:
    """What one process took."""

    cpu_s: float
    peak_mib: float
    bytes: int


def made(folder: Path, rows: int) -> Path:
    """A pool with one snapshot of so many rows."""
    path = folder / f"pool-{rows}"
    if (path / "made").exists():
        return path
    shutil.rmtree(path, ignore_errors=True)
    pool = Pool.create(path)
    pool.add(corpus.questions(rows), **corpus.COLUMNS)
    for number, part in enumerate(pool.examples().iter_slices(PART)):
        good = corpus.worked(part, seed=number)
        pool.commit(Commit(f"answers {number}", rationales=pl.concat([good, refused(good, seed=number)])))
    rows_of = training_rows(answered(pool.examples(), pool.rationales()), stage=1)
    draft = SnapshotDraft(run_id="bench", stage=1, recipe_yaml="name: bench\n", parent=None, rows=rows_of)
    pool.commit(Commit("snapshot", snapshot=draft))
    (path / "made").touch()
    return path


def refused(good: pl.DataFrame, *, seed: int) -> pl.DataFrame:
    """For one in `REFUSED` of the RATIONALES another one with a wrong answer."""
    some = good.gather_every(REFUSED)
    worse = some.with_columns(
        answer=pl.col("answer") + "9",
        text=corpus.prose(some.height, words=86, seed=10_000 + seed),
        accepted=pl.lit(False),
        reason=pl.lit("answer_contradicts_reference"),
    )
    cells = worse.select("example_id", "text", "answer", "source").iter_rows()
    return worse.with_columns(rationale_id=pl.Series([texts.rationale_id(*cell) for cell in cells]))


def exported(pool: Path, target: str) -> Took:
    """`balkit export` in a process of its own."""
    with tempfile.TemporaryDirectory(dir=pool.parent) as folder:
        out = Path(folder, "out")
        peak = Path(folder, "peak")
        launched = [sys.executable, "-c", LAUNCHED, str(Path(__file__).parent), str(peak)]
        command = ["export", str(pool), "latest", "--to", target, "--out", str(out)]
        shutil.rmtree(pool / "snapshots", ignore_errors=True)
        child = subprocess.Popen([*launched, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert child.stderr is not None
        said = child.stderr.read()
        _, status, usage = os.wait4(child.pid, 0)
        if status and target != "nothing":
            raise SystemExit(f"{target}: {said}")
        data = sum(file.stat().st_size for file in out.glob(f"{target}/**/*") if file.is_file())
        return Took(usage.ru_utime + usage.ru_stime, float(peak.read_text(encoding="ascii")), data)


def tell_peak(file: str) -> None:
    """Write this process's peak in MiB to a file."""
    Path(file).write_text(f"{peak_mib():.1f}", encoding="ascii")


def by_polars(source: Path, out: Path) -> float:
    """The CPU seconds of `write_ndjson`."""
    began = time.process_time()
    chats(pl.read_parquet(source)).write_ndjson(out)
    return time.process_time() - began


def by_datasets(source: Path, out: Path) -> float:
    """The CPU seconds of `Dataset.to_json`; importing it does not count."""
    import datasets

    began = time.process_time()
    datasets.Dataset.from_polars(chats(pl.read_parquet(source))).to_json(out)
    return time.process_time() - began


def chats(rows: pl.DataFrame) -> pl.DataFrame:
    """The one column `messages`."""
    said = {"user": pl.col("prompt"), "assistant": pl.col("rationale") + "\nAnswer: " + pl.col("answer")}
    turns = [pl.struct(pl.lit(role).alias("role"), text.alias("content")) for role, text in said.items()]
    return rows.select(messages=pl.concat_list(turns))


def measured(pool: Path, rows: int, targets: list[str], rounds: int) -> str:
    """The table of one size: medians are of rounds in turn."""
    source = pool.parent / f"rows-{rows}.parquet"
    shutil.copyfile(Pool.open(pool).snapshot_file("latest"), source)
    found: dict[str, list[Took]] = {name: [] for name in ("nothing", *targets)}
    peers: dict[str, list[Took]] = {"polars `write_ndjson`": [], "`Dataset.to_json`": []}
    for _ in range(rounds):
        for name, work in zip(peers, (by_polars, by_datasets), strict=True):
            with tempfile.TemporaryDirectory(dir=pool.parent) as folder:
                out = Path(folder, "rows.jsonl")
                seconds, _, peak = in_child(work, source, out)
                peers[name].append(Took(seconds, peak, out.stat().st_size))
        for name in found:
            found[name].append(exported(pool, name))
    base = min(took.cpu_s for took in peers["polars `write_ndjson`"])
    lines = []
    for name, took in (peers | found).items():
        best = min(took, key=lambda one: one.cpu_s)
        told = [best.cpu_s, max(one.peak_mib for one in took), best.bytes / 2**20, best.cpu_s / base]
        lines.append([name, *map(digits, told), " ".join(digits(one.cpu_s) for one in took)])
    return table(
        f"{rows:,} rows.", "what | CPU s | peak MiB | MiB of data | to `write_ndjson` | single rounds, s", lines
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("rows", type=int, nargs="*", default=list(SIZES))
    arguments.add_argument("--targets", default=",".join(TARGETS))
    arguments.add_argument("--rounds", type=int, default=1)
    arguments.add_argument("--folder", type=Path)
    given = arguments.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="balkit-exports-"))
    folder.mkdir(parents=True, exist_ok=True)
    for rows in given.rows:
        pool, _, _ = in_child(made, folder, rows)
        print(measured(pool, rows, given.targets.split(","), given.rounds), flush=True)
    if given.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
