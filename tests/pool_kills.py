"""Kills processes at random moments while they write to a pool, and looks at what is left: `make pool-kills`.

    python tests/pool_kills.py [kills] [seed]

A child adds (a JSONL file or a frame) and commits stages with rationales and a snapshot, and says so before and after
each. Most kills (SIGKILL) are aimed between the two: by how long the same took before, or just after the first file of
the folder changed; some come at any moment. In one round of four two children write and one is killed. Every ten kills
comes a new pool, of another size.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import polars as pl
from pool_rows import add, examples, stage_commit

from balkit.pool import Pool

SERVER = multiprocessing.get_context("forkserver")
KILLS_A_POOL = 10
FIRST_ROWS = (0, 3_000, 20_000, 500)
KINDS = ("file", "frame", "stage")
WAIT_S = 60.0


def message(kind: str, name: str, count: int) -> str:
    """What a version says of itself: how many examples it must have."""
    return f"{kind} {name} {count}"


def write(pool: Pool, kind: str, name: str, count: int) -> None:
    """One version: `count` examples that no other version has."""
    prompts, said = [f"{name}: {i} {'x' * (i % 90)}" for i in range(count)], message(kind, name, count)
    columns: dict[str, Any] = {"prompt": "q", "answer": "a", "domain_is": "a", "message": said}
    if kind == "frame":
        pool.add(pl.DataFrame({"q": prompts, "a": ["4"] * count}), **columns)
    elif kind == "file":
        file = pool.path.with_name(f"{os.getpid()}.jsonl")
        file.write_text("".join(json.dumps({"q": prompt, "a": "4"}) + "\n" for prompt in prompts))
        pool.add(file, **columns)
    else:
        pool.commit(replace(stage_commit(examples(*prompts), run=name), message=said))


def writer(folder: Path, name: str, tell: Connection, seed: int) -> None:
    """In a process of its own: versions until it is told to stop; each is announced when it is there."""
    rng, number = random.Random(seed), 0
    pool = Pool.open(folder, wait_s=WAIT_S)
    while not tell.poll():
        kind, count, number = rng.choice(KINDS), rng.randint(1, 120), number + 1
        tell.send(("begins", kind, "", time.monotonic()))
        write(pool, kind, f"{name}-{number}", count)
        tell.send(("done", kind, message(kind, f"{name}-{number}", count), time.monotonic()))


class Writer:
    """A child, and what it said."""

    def __init__(self, folder: Path, name: str, *, seed: int) -> None:
        self._said, theirs = SERVER.Pipe()
        self.process = SERVER.Process(target=writer, args=(folder, name, theirs, seed))
        self.process.start()
        theirs.close()
        self.announced: list[str] = []
        self.took: list[tuple[str, float]] = []
        self.within: str | None = None
        self._began = 0.0

    def listen(self, timeout_s: float | None = 0.0) -> bool:
        """Take in one thing that it says within so many seconds; whether it said something."""
        try:
            if not self._said.poll(timeout_s):
                return False
            word, kind, said, moment = self._said.recv()
        except (EOFError, ConnectionResetError):
            return False
        if word == "begins":
            self.within, self._began = kind, moment
        else:
            self.announced.append(said)
            self.took.append((kind, moment - self._began))
            self.within = None
        return True

    def kill(self) -> None:
        """SIGKILL; what it had said before counts as announced."""
        self.process.kill()
        self.process.join()
        while self.listen():
            pass

    def stop(self) -> int | None:
        """Let it end what it is doing; its exit code."""
        self._said.send("stop")
        while self.listen(WAIT_S):
            pass
        self.process.join(WAIT_S)
        return self.process.exitcode


@dataclass
class Seen:
    """What the kills met, and what did not hold."""

    kills: int = 0
    pools: int = 0
    versions: int = 0
    rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    took_s: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def usual_s(self, kind: str) -> float:
        """How long such a write took of late."""
        return statistics.median(self.took_s[kind][-15:] or [0.1])

    def must(self, holds: bool, claim: str) -> None:
        """Note what does not hold."""
        if not holds:
            self.violations.append(f"kill {self.kills}: {claim}")
            print(f"BROKEN {self.violations[-1]}", flush=True)


class PoolUnderFire:
    """One pool; children write to it and are killed, and after each kill it is looked at."""

    def __init__(self, folder: Path, seen: Seen, *, rng: random.Random, first_rows: int) -> None:
        self._folder, self._seen, self._rng = folder, seen, rng
        self._announced: list[str] = []
        pool = Pool.create(folder)
        if first_rows:
            write(pool, "frame", "first", first_rows)
        add(pool, "first of all")
        self._usual_files = self._files()
        self._known = pool.version

    def round(self) -> None:
        """One kill, alone or beside another writer, then the look."""
        seen, rng = self._seen, self._rng
        two = rng.random() < 0.25
        names = [f"{seen.kills}{letter}" for letter in ("ab" if two else "a")]
        writers = [Writer(self._folder, name, seed=rng.randrange(2**32)) for name in names]
        victim, others = writers[0], writers[1:]
        self._wait(victim)
        victim.kill()
        seen.kills += 1
        seen.counts["with another process writing"] += two
        seen.counts["before the child had said that it is done"] += victim.within is not None
        for other in others:
            seen.must(other.stop() == 0, f"the process that was not killed ended with {other.process.exitcode}")
        for each in writers:
            self._announced += each.announced
            for kind, took in each.took:
                seen.took_s[kind].append(took)
        self._look(killed=victim)

    def _wait(self, victim: Writer) -> None:
        """Until the moment of the kill: any time, within a write, or just after the folder began to change."""
        way = self._rng.random()
        if way < 0.1:
            time.sleep(self._rng.uniform(0.0, 1.0))
            return
        skip = self._rng.randrange(2)
        while len(victim.announced) < skip or victim.within is None:
            if not victim.listen(WAIT_S):
                raise SystemExit("a child says nothing")
        usual_s = self._seen.usual_s(victim.within)
        if way < 0.4:
            time.sleep(self._rng.uniform(0.0, 1.1) * usual_s)
            return
        before, until = self._signs(), time.monotonic() + 3 * usual_s
        while self._signs() == before and time.monotonic() < until:
            time.sleep(0.0005)
        time.sleep(self._rng.uniform(0.0, 0.3) ** 2 * usual_s)

    def _signs(self) -> list[tuple[str, int, int, int]]:
        """What of the files changes as soon as one is written to."""
        found = []
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):
                stat = path.stat()
                found.append((path.name, stat.st_ino, stat.st_size, stat.st_mtime_ns))
        return sorted(found)

    def _files(self) -> set[str]:
        return {path.name for path in self._folder.iterdir()}

    def _look(self, *, killed: Writer) -> None:
        seen = self._seen
        left = self._files() - self._usual_files
        copies = {name for name in left if name.endswith(".new")}
        staged = {name for name in left if name.startswith(".staging.")}
        seen.counts["that left a WAL, a copy or what was staged"] += bool(left)
        seen.must(len(copies) <= 1 and len(staged) <= 1, f"more than one of a kind: {sorted(left)}")
        read_only = Pool.open(self._folder, read_only=True).version if seen.kills % 2 else None
        pool = Pool.open(self._folder, wait_s=WAIT_S)
        log = pool.log()
        version = pool.version
        seen.must(read_only in (None, version), f"version {read_only} for readers, {version} for writers")
        seen.must(log["version"].to_list() == list(range(version, 0, -1)), "the versions have a gap")
        messages = set(log["message"])
        lost = [said for said in self._announced if said not in messages]
        seen.must(not lost, f"announced and not there: {lost}")
        unsaid = log.filter(pl.col("version") > self._known, ~pl.col("message").is_in(self._announced))
        seen.counts["that left a version not announced yet"] += bool(unsaid.height)
        seen.must(unsaid.height <= 1, f"{unsaid.height} versions that nobody announced")
        self._whole(pool, log)
        problems = pool.check()
        seen.must(not problems, f"check: {problems}")
        add(pool, f"after {seen.kills}")
        seen.must(pool.version == version + 1, f"the next add made version {pool.version} after {version}")
        left = self._files() - self._usual_files
        seen.must(not left, f"left after the next write: {sorted(left)}")
        self._usual_files |= left  # said once
        self._known = pool.version

    def _whole(self, pool: Pool, log: pl.DataFrame) -> None:
        """Every version since the last look has the rows that its message says."""
        for row in log.filter(pl.col("version") > self._known).iter_rows(named=True):
            kind, _, count = row["message"].split()
            has = (row["examples"], row["rationales"], row["snapshot_id"] is not None)
            due = (int(count), int(count) if kind == "stage" else 0, kind == "stage")
            self._seen.must(has == due, f"version {row['version']} {row['message']!r} has {has}, not {due}")
            if row["snapshot_id"] is not None:
                rows = pool.snapshot(row["snapshot_id"]).rows.height
                self._seen.must(rows == int(count), f"snapshot {row['snapshot_id']} has {rows} rows, not {count}")

    def end(self) -> None:
        """Count what it came to."""
        pool = Pool.open(self._folder)
        self._seen.pools += 1
        self._seen.versions += pool.version
        self._seen.rows += pool.examples().height


def pools_under_fire(folder: Path, seen: Seen, *, kills: int, seed: int) -> Iterator[PoolUnderFire]:
    """Pool after pool, until there were enough kills."""
    rng = random.Random(seed)
    while seen.kills < kills:
        first_rows = FIRST_ROWS[seen.pools % len(FIRST_ROWS)]
        yield PoolUnderFire(folder / f"pool {seen.pools}", seen, rng=rng, first_rows=first_rows)


def main(kills: int = 200, seed: int = 0) -> int:
    """0 if everything held; else the pools are kept."""
    SERVER.set_forkserver_preload(["polars", "duckdb", "pyarrow", "pool_rows"])
    seen, began, folder = Seen(), time.monotonic(), Path(tempfile.mkdtemp(prefix="balkit-kills-"))
    for pool in pools_under_fire(folder, seen, kills=kills, seed=seed):
        for _ in range(min(KILLS_A_POOL, kills - seen.kills)):
            pool.round()
        pool.end()
    usual = ", ".join(f"{kind} {1000 * seen.usual_s(kind):.0f} ms" for kind in KINDS)
    print(f"{seen.kills} kills in {time.monotonic() - began:.0f} s; {seen.pools} pools, {seen.versions} versions and")
    print(f"{seen.rows:,} examples in the end; the usual write took: {usual}. Of the kills came")
    for what, count in seen.counts.items():
        print(f"{count:6} {what}")
    print(f"{len(seen.violations)} violations")
    if seen.violations:
        print(f"the pools are kept in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(*(int(value) for value in sys.argv[1:3])))
