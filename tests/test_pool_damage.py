"""A pool whose files are harmed, copied, filled up and written by two says so, or gives exactly what it held."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import polars as pl
import pytest
from pool_rows import add, call, examples, scores, stage_commit

from balkit import frames
from balkit.errors import PoolDamaged
from balkit.pool import Pool

HERE = Path(__file__).parent
HEADERS = 3 * 4096  # DuckDB's three headers, before the first block
FLIPS = 60
COPIES = 8
FRAMES = ("examples", "rationales", "scores", "decisions", "evaluations", "calls", "snapshots", "coverage", "log")


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": f"{HERE}:{HERE.parent}"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def reads(folder: Path) -> dict[str, pl.DataFrame]:
    """Everything that a pool gives."""
    pool = Pool.open(folder, read_only=True)
    return {"snapshot": pool.snapshot("run-s1").rows, **{name: getattr(pool, name)() for name in FRAMES}}


def same(one: dict[str, pl.DataFrame] | None, other: dict[str, pl.DataFrame]) -> bool:
    return one is not None and all(one[name].equals(other[name]) for name in other)


def found_in(folder: Path) -> dict[str, pl.DataFrame] | None:
    """What a harmed pool gives; None when it says that it is damaged, in `check` at the latest."""
    try:
        found = reads(folder)
        return None if Pool.open(folder).check() else found
    except PoolDamaged:
        return None


def flipped(file: Path, offset: int) -> None:
    with file.open("r+b") as opened:
        opened.seek(offset)
        byte = opened.read(1)[0]
        opened.seek(offset)
        opened.write(bytes([byte ^ 0xFF]))


def copied(source: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    return folder


def offsets(size: int, *, count: int) -> list[int]:
    """One in six among the headers, the others anywhere."""
    rng = random.Random(0)
    return [rng.randrange(HEADERS if n % 6 == 0 else size) for n in range(count)]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of a few thousand rows of most kinds, as a folder to copy."""
    pool = Pool.create(tmp_path_factory.mktemp("sound") / "pool")
    add(pool, *[f"{n}: how much is {n} and {n}?" for n in range(2000)])
    add(pool, *[f"held out {n}" for n in range(300)], split="eval")
    stage = stage_commit(examples(*[f"of the stage {n}" for n in range(400)]))
    pool.commit(replace(stage, calls=frames.CALLS.of([call("k1")]), scores=scores(stage.examples)))
    pool.tag(2, "second")
    pool.retire(pool.examples(split="train")["example_id"].to_list()[:5], reason="misprint")
    return pool.path


@pytest.mark.long
def test_a_byte_flipped_anywhere_in_the_file_is_noticed_or_changes_nothing(sound: Path, tmp_path: Path) -> None:
    before, size = reads(sound), (sound / "pool.duckdb").stat().st_size
    noticed = 0
    for offset in offsets(size, count=FLIPS):
        folder = copied(sound, tmp_path / "pool")
        flipped(folder / "pool.duckdb", offset)
        found = found_in(folder)
        assert found is None or same(found, before), f"byte {offset} of {size}"
        noticed += found is None
    assert noticed > FLIPS / 4


@pytest.mark.parametrize("cut", [1, 4095, 4096, 300_000, "half", "all but the headers", "all but one block"])
def test_a_cut_file_is_noticed(sound: Path, tmp_path: Path, cut: int | str) -> None:
    folder = copied(sound, tmp_path / "pool")
    file = folder / "pool.duckdb"
    size = file.stat().st_size
    kept = {"half": size // 2, "all but the headers": HEADERS, "all but one block": HEADERS + 262_144}
    os.truncate(file, kept[cut] if isinstance(cut, str) else size - cut)
    assert found_in(folder) is None


@dataclass(frozen=True)
class Logged:
    """A pool with two commits in its WAL: what it gives with none, one or both of them, and HEAD after each."""

    folder: Path
    gives: tuple[dict[str, pl.DataFrame], ...]
    heads: tuple[bytes, ...]

    def at(self, folder: Path, *, head: int) -> Path:
        """A copy to harm, with HEAD as after so many of the two commits."""
        copied(self.folder, folder)
        (folder / "HEAD").write_bytes(self.heads[head])
        return folder

    def allowed(self, found: dict[str, pl.DataFrame] | None, *, head: int) -> bool:
        """A commit that HEAD knows is there or the pool says that it is damaged; one that it does not know may go."""
        return found is None or any(same(found, gives) for gives in self.gives[head:])


@pytest.fixture(scope="module")
def logged(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> Logged:
    """Made as a writer leaves it that is killed between COMMIT and CHECKPOINT: by SQL, copied while it is open."""
    home = tmp_path_factory.mktemp("logged")
    more, base = copied(sound, home / "more"), copied(sound, home / "base")
    gives, heads = [reads(more)], [(more / "HEAD").read_bytes()]
    for domain in ("b", "c"):
        add(Pool.open(more), *[f"{domain} {n}" for n in range(150)], domain=domain)
        gives.append(reads(more))
        heads.append((more / "HEAD").read_bytes())
    with duckdb.connect(base / "pool.duckdb", config={"wal_autocheckpoint": "1TB"}) as con:
        con.execute(f"ATTACH '{more / 'pool.duckdb'}' AS more (READ_ONLY)")
        tip = con.sql("SELECT max(version) FROM versions").fetchall()[0][0]
        for version in (tip + 1, tip + 2):
            con.execute("BEGIN")
            for table, column in (("examples", "added_in"), ("labels", "added_in"), ("versions", "version")):
                con.execute(f"INSERT INTO {table} SELECT * FROM more.{table} WHERE {column} = {version}")
            con.execute("COMMIT")
        shutil.copytree(base, home / "logged")
    return Logged(home / "logged", tuple(gives), tuple(heads))


@pytest.mark.parametrize("head", [0, 2])
@pytest.mark.long
def test_commits_in_a_wal_are_kept_and_the_pool_grows(logged: Logged, tmp_path: Path, head: int) -> None:
    folder = logged.at(tmp_path / "pool", head=head)
    assert (folder / "pool.duckdb.wal").stat().st_size > 10_000
    found = found_in(folder)
    assert found is not None
    assert logged.allowed(found, head=head)
    add(Pool.open(folder), "afterwards")
    assert Pool.open(folder, read_only=True).check() == []
    assert reads(folder)["examples"].height == found["examples"].height + 1


@pytest.mark.parametrize("head", [0, 2])
@pytest.mark.long
def test_a_byte_flipped_in_a_wal_loses_no_commit_unheard(logged: Logged, tmp_path: Path, head: int) -> None:
    rng = random.Random(head)
    for _ in range(12):
        folder = logged.at(tmp_path / "pool", head=head)
        wal = folder / "pool.duckdb.wal"
        offset = rng.randrange(wal.stat().st_size)
        flipped(wal, offset)
        assert logged.allowed(found_in(folder), head=head), f"byte {offset} of {wal.stat().st_size}"


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.3, 0.7, 0.999])
@pytest.mark.parametrize("head", [0, 2])
def test_a_cut_wal_loses_no_commit_unheard(logged: Logged, tmp_path: Path, head: int, kept: float) -> None:
    folder = logged.at(tmp_path / "pool", head=head)
    wal = folder / "pool.duckdb.wal"
    os.truncate(wal, int(kept * wal.stat().st_size))
    assert logged.allowed(found_in(folder), head=head)


def test_a_lost_wal_is_noticed_if_head_knew_its_commits(logged: Logged, tmp_path: Path) -> None:
    for head in (0, 1, 2):
        folder = logged.at(tmp_path / "pool", head=head)
        (folder / "pool.duckdb.wal").unlink()
        found = found_in(folder)
        assert found is None if head else same(found, logged.gives[0])


def test_a_wal_of_another_pool_changes_nothing_unheard(logged: Logged, sound: Path, tmp_path: Path) -> None:
    other = Pool.create(tmp_path / "other")
    other.commit(stage_commit(examples("one")))
    before = reads(other.path)
    shutil.copy(logged.folder / "pool.duckdb.wal", other.path)
    found = found_in(other.path)
    assert found is None or same(found, before)


FULL_DISK = """
import os, resource, sys
from balkit.errors import PoolError
from balkit.pool import Pool
pool = Pool.open(sys.argv[1])
room = os.path.getsize(sys.argv[1] + "/pool.duckdb") + 100_000
resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
try:
    pool.add(sys.argv[2], prompt="q", answer="a", domain_is="a")
except PoolError as error:
    print(error)
"""


def rows_file(path: Path, *, count: int) -> Path:
    """JSONL that no packing makes small."""
    rng = random.Random(0)
    path.write_text("".join(json.dumps({"q": rng.randbytes(60).hex(), "a": "4"}) + "\n" for _ in range(count)))
    return path


@pytest.mark.parametrize("count", [8_000, 2_500])
@pytest.mark.long
def test_a_disk_that_fills_up_while_a_file_is_added_leaves_the_version_before(tmp_path: Path, count: int) -> None:
    folder, file = tmp_path / "pool", rows_file(tmp_path / "rows.jsonl", count=count)
    Pool.create(folder).commit(stage_commit(examples("one")))
    before, names = reads(folder), sorted(folder.iterdir())
    process = child(FULL_DISK, folder, file)
    said, _ = process.communicate()
    assert process.returncode == 0
    assert str(folder) in said
    found = found_in(folder)
    assert found is not None
    add(Pool.open(folder), "afterwards")
    assert Pool.open(folder).check() == []
    assert sorted(folder.iterdir()) == names
    assert same(found, before)


ADDING = """
import sys
import time
from pool_rows import add
from balkit.pool import Pool
_, folder, name, count = sys.argv
pool = Pool.open(folder, wait_s=120)
print("ready", flush=True)
for n in range(int(count)):
    add(pool, *[f"{name} {n} {i}" for i in range(50)])
"""


@pytest.mark.long
def test_two_processes_that_add_at_once_lose_nothing(tmp_path: Path) -> None:
    pool = Pool.create(tmp_path / "pool", wait_s=120)
    both = [child(ADDING, pool.path, name, 10) for name in ("one", "other")]
    assert [process.wait(120) for process in both] == [0, 0]
    assert pool.check() == []
    assert pool.log()["version"].to_list() == list(range(20, 0, -1))
    assert set(pool.log()["examples"]) == {50}
    due = {f"{name} {n} {i}" for name in ("one", "other") for n in range(10) for i in range(50)}
    assert set(pool.examples()["prompt"]) == due
    assert pool.examples().height == 1_000


@pytest.mark.long
def test_a_copied_and_a_moved_pool_is_a_pool_of_its_own(sound: Path, tmp_path: Path) -> None:
    before = reads(sound)
    copy = copied(sound, tmp_path / "copy").rename(tmp_path / "moved and named – anew")
    assert same(found_in(copy), before)
    add(Pool.open(copy), "only here")
    assert Pool.open(copy).check() == []
    assert reads(copy)["examples"].height == before["examples"].height + 1
    assert same(found_in(sound), before)


@pytest.mark.long
def test_a_copy_made_while_another_process_writes_is_whole_or_damaged(tmp_path: Path) -> None:
    pool = Pool.create(tmp_path / "pool")
    process = child(ADDING, pool.path, "one", 1_000)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for number in range(COPIES):
            with suppress(shutil.Error):  # a file was there when the folder was listed, and then no more
                shutil.copytree(pool.path, tmp_path / f"copy {number}")
            time.sleep(0.03 * number)
    finally:
        process.kill()
        process.wait()
    for number in range(COPIES):
        assert whole_or_damaged(tmp_path / f"copy {number}"), f"copy {number}"


def whole_or_damaged(folder: Path) -> bool:
    try:
        copy = Pool.open(folder)
        whole = copy.examples().height == 50 * copy.version and set(copy.log()["examples"]) <= {50}
        return bool(copy.check()) or whole
    except PoolDamaged:
        return True


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path: Path) -> None:
    folder = tmp_path / "pool"
    add(Pool.create(folder), "one")
    names, ended = sorted(folder.iterdir()), child("")
    ended.wait()
    (folder / f".HEAD.{ended.pid}").write_text("1 ")  # killed between writing it and renaming it
    add(Pool.open(folder), "two")
    assert Pool.open(folder).check() == []
    assert sorted(folder.iterdir()) == names
