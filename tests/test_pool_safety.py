"""What happens to a pool when processes are killed, files are harmed, and others hold it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pool_rows import add, examples, stage_commit

from balkit.errors import PoolDamaged, PoolError, PoolLocked, SqlError
from balkit.pool import Pool, database, migrate, tables, writing

HERE = Path(__file__).parent


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool.create(tmp_path / "pool", wait_s=0.3)


def behind_its_back(pool: Pool, *statements: str) -> None:
    """Change the file as no user should."""
    with duckdb.connect(pool.path / "pool.duckdb") as con:
        for statement in statements:
            con.execute(statement)


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": f"{HERE}:{HERE.parent}"}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


ADDING = """
import sys
from pool_rows import add
from balkit.pool import Pool
pool = Pool.open(sys.argv[1])
print("ready", flush=True)
for n in range(1000):
    add(pool, *[f"{n}: {i}" for i in range(20)])
"""


@pytest.mark.parametrize("round_", range(3))
@pytest.mark.long
def test_a_writer_killed_at_any_moment_leaves_whole_versions(pool: Pool, round_: int) -> None:
    process = child(ADDING, pool.path)
    assert first_line(process) == "ready"
    time.sleep(random.Random(round_).uniform(0.3, 1.2))
    process.kill()
    process.wait()
    again = Pool.open(pool.path)
    version = again.version
    assert again.examples().height == 20 * version
    assert again.check() == []
    add(again, "afterwards")
    assert again.version == version + 1
    assert again.check() == []


def test_a_commit_that_head_does_not_know_yet_is_kept(pool: Pool) -> None:
    add(pool, "one")
    killed_before_head = (pool.path / "HEAD").read_bytes()
    add(pool, "two")
    (pool.path / "HEAD").write_bytes(killed_before_head)
    looking = Pool.open(pool.path, read_only=True)
    assert looking.version == 2
    assert looking.check() == ["HEAD says version 1, the file holds 2; the next opening for writing mends it"]
    assert Pool.open(pool.path).check() == []


ADDING_ONCE = """
import sys
from pool_rows import add
from balkit.pool import Pool
add(Pool.open(sys.argv[1]), "one")
print("done")
"""

MAKING = """
import sys
from pool_rows import add
from balkit.errors import PoolError
from balkit.pool import Pool
try:
    pool = Pool.create(sys.argv[1])
except PoolError as error:
    assert "already" in str(error), error
    pool = Pool.open(sys.argv[1])
add(pool, sys.argv[2])
print("done")
"""

WRITING_LONG = """
import sys, time
from pathlib import Path
from balkit.pool import writing
with writing.writing(Path(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(60)
"""

LEAVING_A_LOG = """
import sys, time
import duckdb
con = duckdb.connect(sys.argv[1] + "/pool.duckdb")
con.execute("INSERT INTO tags VALUES ('theirs', 1, 1)")
print("ready", flush=True)
time.sleep(60)
"""

FULL_DISK = """
import os, resource, sys
from pool_rows import add
from balkit.errors import PoolError
from balkit.pool import Pool
pool = Pool.open(sys.argv[1])
room = os.path.getsize(sys.argv[1] + "/pool.duckdb") + 100_000
resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
try:
    add(pool, *[f"{i} {os.urandom(50).hex()}" for i in range(20_000)])
except PoolError as error:
    print(error)
"""


@pytest.mark.long
def test_a_full_disk_is_said_and_leaves_the_version_before(pool: Pool) -> None:
    add(pool, "one")
    process = child(FULL_DISK, pool.path)
    assert "Could not write file" in first_line(process)
    process.wait()
    again = Pool.open(pool.path)
    assert (again.version, again.check()) == (1, [])
    add(again, "two")
    assert (again.version, again.check()) == (2, [])


def test_an_older_file_under_a_newer_head_is_noticed(pool: Pool) -> None:
    add(pool, "one")
    shutil.copy(pool.path / "pool.duckdb", pool.path / "old")
    add(pool, "two")
    (pool.path / "old").replace(pool.path / "pool.duckdb")
    with pytest.raises(PoolDamaged, match=r"HEAD says version 2 .* holds version 1 .* backup"):
        Pool.open(pool.path)


def test_what_the_message_says_makes_a_lost_commit_accepted(pool: Pool) -> None:
    add(pool, "one")
    shutil.copy(pool.path / "pool.duckdb", pool.path / "old")
    add(pool, "two")
    (pool.path / "old").replace(pool.path / "pool.duckdb")
    with pytest.raises(PoolDamaged) as caught:
        _ = pool.version
    (pool.path / "HEAD").write_text(str(caught.value).rsplit(": ", 1)[1] + "\n")
    assert Pool.open(pool.path).check() == []


def test_a_missing_head_is_noticed(pool: Pool) -> None:
    add(pool, "one")
    (pool.path / "HEAD").unlink()
    with pytest.raises(PoolDamaged, match="HEAD is missing"):
        Pool.open(pool.path)


def test_a_head_that_is_none_is_noticed(pool: Pool) -> None:
    (pool.path / "HEAD").write_text("seven\n")
    with pytest.raises(PoolDamaged, match="not a version and a digest"):
        Pool.open(pool.path)


def test_a_missing_file_is_noticed(pool: Pool) -> None:
    (pool.path / "pool.duckdb").unlink()
    with pytest.raises(PoolDamaged, match=r"pool\.duckdb is not"):
        Pool.open(pool.path)


@pytest.mark.parametrize("kept", [0.0, 0.02, 0.3, 0.7, 0.95])
def test_a_cut_file_is_noticed_on_opening(pool: Pool, kept: float) -> None:
    add(pool, *[f"prompt {i}" for i in range(5000)])
    file = pool.path / "pool.duckdb"
    os.truncate(file, int(file.stat().st_size * kept))
    with pytest.raises(PoolDamaged):
        Pool.open(pool.path)


def test_a_file_that_is_no_database_is_noticed(pool: Pool) -> None:
    (pool.path / "pool.duckdb").write_bytes(b"garbage" * 1000)
    with pytest.raises(PoolDamaged, match="cannot be read"):
        Pool.open(pool.path)


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE examples SET reference = '5'", "version 1: its rows are not those that were committed"),
        ("DELETE FROM rationales", "rows are not those"),
        ("UPDATE snapshot_entries SET copy = 1", "snapshot run-s1"),
        ("UPDATE versions SET message = 'x' WHERE version = 1", "version 1: its record is not the one"),
        ("INSERT INTO labels VALUES ('x', 'a', 'train', 'source', 9)", "labels: 1 rows of no version"),
        ("DELETE FROM examples", "rationales: 1 rows of no example"),
        ("DELETE FROM snapshots", "rows are not those"),
    ],
)
def test_the_check_finds_what_was_changed_behind_its_back(pool: Pool, statement: str, problem: str) -> None:
    pool.commit(stage_commit(examples("one")))
    assert pool.check() == []
    behind_its_back(pool, statement)
    assert any(problem in line for line in pool.check())


def test_a_changed_snapshot_is_not_handed_out(pool: Pool) -> None:
    pool.commit(stage_commit(examples("one", "two")))
    behind_its_back(pool, "UPDATE snapshot_entries SET position = 1 - position")
    with pytest.raises(PoolDamaged, match="are not the 2 that were committed"):
        pool.snapshot("run-s1")


HOLDING = """
import duckdb, sys, time
con = duckdb.connect(sys.argv[1] + "/pool.duckdb")
print("ready", flush=True)
time.sleep(float(sys.argv[2]))
con.close()
time.sleep(30)
"""


def test_a_pool_that_another_process_writes_names_its_pid(pool: Pool) -> None:
    process = child(HOLDING, pool.path, 30)
    try:
        assert first_line(process) == "ready"
        with pytest.raises(PoolLocked, match=f"process {process.pid} has it open") as caught:
            pool.examples()
        assert caught.value.pid == process.pid
    finally:
        process.kill()
        process.wait()


def test_a_short_writer_is_waited_for(pool: Pool) -> None:
    process = child(HOLDING, pool.path, 0.5)
    try:
        assert first_line(process) == "ready"
        assert Pool.open(pool.path, wait_s=20).version == 0
    finally:
        process.kill()
        process.wait()


LOCKING = """
import sys, time
from balkit.pool import Pool
with Pool.open(sys.argv[1]).lock():
    print("ready", flush=True)
    time.sleep(30)
"""


READING = """
import sys
import duckdb
con = duckdb.connect(sys.argv[1] + "/pool.duckdb", read_only=True)
print(con.sql("SELECT count(*) FROM examples").fetchone()[0], flush=True)
sys.stdin.readline()
print(con.sql("SELECT count(*) FROM examples").fetchone()[0], flush=True)
"""


def test_a_commit_waits_for_no_reader_and_no_reader_sees_half_of_it(pool: Pool) -> None:
    add(pool, "one")
    reader = child(READING, pool.path)
    assert first_line(reader) == "1"
    add(pool, "two", "three")
    assert (pool.version, pool.check()) == (2, [])
    assert reader.communicate("\n")[0].strip() == "1"


def test_a_reader_waits_for_no_writer(pool: Pool) -> None:
    add(pool, "one")
    with writing.writing(pool.path) as con:
        con.execute("DELETE FROM examples")
        assert Pool.open(pool.path, wait_s=0.0).examples()["prompt"].to_list() == ["one"]


def test_a_second_writer_is_told_who_writes(pool: Pool) -> None:
    process = child(WRITING_LONG, pool.path)
    assert first_line(process) == "ready"
    with pytest.raises(PoolLocked, match=f"process {process.pid} is writing") as caught:
        add(pool, "one")
    assert caught.value.pid == process.pid
    process.kill()
    process.wait()
    add(pool, "one")
    assert pool.version == 1


def test_no_thread_reads_what_was_before_another_threads_commit(pool: Pool) -> None:
    add(pool, "one")
    reading, done = threading.Event(), threading.Event()

    def read_for_long() -> None:
        with database.reading(pool.path):
            reading.set()
            done.wait(10)

    thread = threading.Thread(target=read_for_long)
    thread.start()
    reading.wait(10)
    add(pool, "two")
    with pytest.raises(PoolLocked, match="another thread of this process"):
        _ = pool.version
    done.set()
    thread.join()
    assert pool.version == 2


def test_the_log_that_another_client_left_is_brought_into_the_file(pool: Pool) -> None:
    add(pool, "one")
    process = child(LEAVING_A_LOG, pool.path)
    assert first_line(process) == "ready"
    process.kill()
    process.wait()
    assert (pool.path / "pool.duckdb.wal").exists()
    add(pool, "two")
    assert not (pool.path / "pool.duckdb.wal").exists()
    assert pool.sql("SELECT count(*) AS n FROM tags")["n"][0] == 1


def test_what_a_killed_writer_spilled_is_gone_with_the_next_write(pool: Pool) -> None:
    spilled = pool.path / ".pool.duckdb.99999999-0.new.tmp"
    spilled.mkdir()
    (spilled / "duckdb_temp_storage").touch()
    add(pool, "one")
    assert not spilled.exists()


def linked(tmp_path: Path, name: str, *, to: str) -> Pool:
    """A pool whose file lies elsewhere under another name."""
    made = Pool.create(tmp_path / name, wait_s=0.3)
    file = tmp_path / "elsewhere" / to
    file.parent.mkdir(exist_ok=True)
    (made.path / "pool.duckdb").rename(file)
    (made.path / "pool.duckdb").symlink_to(file)
    return made


def test_pools_whose_files_lie_in_one_folder_do_not_meet(tmp_path: Path) -> None:
    one, two = linked(tmp_path, "one", to="a.duckdb"), linked(tmp_path, "two", to="b.duckdb")
    with writing.writing(one.path) as con:
        con.execute("INSERT INTO tags VALUES ('theirs', 1, 1)")
        process = child(ADDING_ONCE, two.path)
        assert process.communicate()[0].strip() == "done"
    assert (two.version, two.check(), one.version) == (1, [], 0)
    assert (one.path / "pool.duckdb").is_symlink()


def test_the_log_of_a_linked_file_is_found(tmp_path: Path) -> None:
    pool = linked(tmp_path, "pool", to="a.duckdb")
    process = child(LEAVING_A_LOG, pool.path)
    assert first_line(process) == "ready"
    process.kill()
    process.wait()
    assert (tmp_path / "elsewhere" / "a.duckdb.wal").exists()
    add(pool, "one")
    assert pool.sql("SELECT count(*) AS n FROM tags")["n"][0] == 1
    assert (pool.version, list((tmp_path / "elsewhere").glob("*.wal"))) == (1, [])


def test_an_error_of_the_callers_stays_what_it_is(pool: Pool) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"), writing.writing(pool.path):
        Path("nowhere").read_text()


def test_a_child_that_was_forked_while_writing_holds_up_nobody(pool: Pool) -> None:
    with writing.writing(pool.path):
        pid = os.fork()
        if pid == 0:
            time.sleep(2)
            os._exit(0)
    add(pool, "one")
    assert pool.version == 1
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@pytest.mark.long
def test_a_pool_that_is_made_twice_at_once_is_made_once(tmp_path: Path) -> None:
    processes = [child(MAKING, tmp_path / "pool", n) for n in range(4)]
    assert sorted(process.communicate()[0].strip() for process in processes) == ["done"] * 4
    pool = Pool.open(tmp_path / "pool")
    assert (pool.version, pool.examples().height, pool.check()) == (4, 4, [])


def test_the_digest_of_a_large_version_of_an_older_format_is_known(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as older:
        older.setattr(tables, "BLOCK", 10**9)
        add(pool, *map(str, range(40)))
    monkeypatch.setattr(tables, "BLOCK", 16)
    assert pool.check() == []
    add(pool, *map(str, range(40, 80)))
    assert pool.check() == []
    behind_its_back(pool, "UPDATE examples SET reference = '5' WHERE prompt = '3'")
    assert "version 1: its rows are not those that were committed" in pool.check()


def test_one_paying_process_a_pool_and_it_is_named(pool: Pool) -> None:
    process = child(LOCKING, pool.path)
    try:
        assert first_line(process) == "ready"
        with pytest.raises(PoolLocked, match=f"process {process.pid} is running") as caught, pool.lock():
            pass
        assert caught.value.pid == process.pid
        assert add(pool, "others still write and read")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with pool.lock():
        assert (pool.path / "lock").read_text() == str(os.getpid())
    with pool.lock():
        pass


@pytest.mark.long
def test_threads_of_one_process_commit_one_after_the_other(tmp_path: Path) -> None:
    pool = Pool.create(tmp_path / "pool", wait_s=60)
    errors: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for n in range(4):
                add(pool, f"{name} {n}")
                pool.sql("SELECT count(*) FROM examples")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert pool.version == pool.examples().height == 12
    assert pool.check() == []


def test_reads_that_are_held_together_see_one_state_and_nothing_is_written_meanwhile(pool: Pool) -> None:
    add(pool, "one")
    with pool.held():
        other = threading.Thread(target=add, args=(Pool.open(pool.path), "two"))
        other.start()
        other.join()
        assert (pool.version, pool.examples().height) == (1, 1)
        assert pool.sql("SELECT count(*) AS n FROM examples")["n"].to_list() == [1]
        with pool.held(), pytest.raises(AssertionError, match="a write inside of `held`"):
            add(pool, "three")
    assert (pool.version, pool.examples().height) == (2, 2)


def interrupted(pool: Pool) -> None:
    with writing.writing(pool.path) as con:
        con.execute("INSERT INTO retirements VALUES ('x', 'y', 1)")
        raise KeyboardInterrupt


def test_an_interrupted_commit_leaves_nothing(pool: Pool) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted(pool)
    assert pool.check() == []


@pytest.mark.parametrize("opened", [database.reading, writing.writing])
@pytest.mark.long
def test_ctrl_c_in_the_middle_of_a_statement_is_a_keyboard_interrupt(pool: Pool, opened: Any) -> None:
    add(pool, "one")
    threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt), opened(pool.path) as con:
        con.execute("SELECT count(*) FROM range(500000000) t(n) WHERE n % 7 = 3")
    assert pool.check() == []
    assert pool.version == 1


@pytest.mark.long
def test_compacting_keeps_every_version_and_makes_the_file_no_larger(pool: Pool) -> None:
    for n in range(12):
        add(pool, *(f"{n} {i} " + 200 * "x" for i in range(50)))
    pool.tag(3, "early")
    before, versions = pool.examples(), pool.log()
    size, smaller = pool.compact()
    assert (pool.path / "pool.duckdb").stat().st_size == smaller <= size
    assert pool.examples().equals(before)
    assert pool.log().equals(versions)
    assert pool.at("early").examples().height == 150
    assert pool.sql("SELECT count(*) AS n FROM coverage").rows() == [(1,)]
    assert pool.check() == []
    add(pool, "afterwards")
    assert pool.check() == []


def test_a_pool_that_is_not_as_committed_is_not_compacted(pool: Pool) -> None:
    add(pool, "one")
    behind_its_back(pool, "UPDATE examples SET prompt = 'two'")
    before = (pool.path / "pool.duckdb").read_bytes()
    with pytest.raises(PoolDamaged, match=r"is not compacted, since it is damaged\nversion 1: its rows"):
        pool.compact()
    assert (pool.path / "pool.duckdb").read_bytes() == before
    assert [path.name for path in pool.path.iterdir() if "compact" in path.name] == []


def test_compacting_keeps_the_files_mode_and_minds_no_export(pool: Pool) -> None:
    pool.commit(stage_commit(examples("one")))
    pool.snapshot_file("latest")
    (pool.path / "snapshots" / "run-s1" / "manifest.json").unlink()
    (pool.path / "pool.duckdb").chmod(0o660)
    pool.compact()
    assert (pool.path / "pool.duckdb").stat().st_mode & 0o777 == 0o660


COMPACTING = """
import sys
from balkit.pool import Pool
pool = Pool.open(sys.argv[1])
print("ready", flush=True)
while True:
    pool.compact()
"""


@pytest.mark.parametrize("round_", range(3))
@pytest.mark.long
def test_a_kill_while_compacting_leaves_the_pool_whole(pool: Pool, round_: int) -> None:
    for n in range(3):
        add(pool, *(f"{n} {i} " + 200 * "x" for i in range(300)))
    process = child(COMPACTING, pool.path)
    assert first_line(process) == "ready"
    time.sleep(random.Random(round_).uniform(0.1, 0.8))
    process.kill()
    process.wait()
    again = Pool.open(pool.path)
    assert (again.check(), again.version, again.examples().height) == ([], 3, 900)
    again.compact()
    assert [path.name for path in pool.path.iterdir() if "compact" in path.name] == []


def test_a_newer_format_says_to_upgrade(pool: Pool) -> None:
    behind_its_back(pool, "INSERT INTO migrations VALUES (9999, 'future', TIMESTAMP '2030-01-01')")
    with pytest.raises(PoolError, match="format 9999, and this balkit knows formats up to 3: pip install"):
        Pool.open(pool.path)


def blank(tmp_path: Path) -> Any:
    return duckdb.connect(tmp_path / "blank.duckdb")


def test_migrations_are_applied_once_and_recorded(tmp_path: Path) -> None:
    with blank(tmp_path) as con:
        for _ in range(2):
            migrate.migrate(con, known=migrate.shipped())
        numbers = con.sql("SELECT number FROM migrations").fetchall()
        assert numbers == [(migration.number,) for migration in migrate.shipped()]


def test_a_migration_that_fails_leaves_the_format_before_it(tmp_path: Path) -> None:
    broken = migrate.Migration(9, "broken", "CREATE TABLE half (x BIGINT); INSERT INTO nowhere VALUES (1);")
    with blank(tmp_path) as con:
        migrate.migrate(con, known=migrate.shipped())
        with pytest.raises(duckdb.Error):
            migrate.migrate(con, known=[*migrate.shipped(), broken])
        assert migrate.format_of(con) == migrate.shipped()[-1].number
        assert con.sql("SELECT 1 FROM duckdb_tables() WHERE table_name = 'half'").fetchall() == []


def test_a_query_gives_a_frame_and_takes_parameters(pool: Pool) -> None:
    add(pool, "one", "two", domain="a")
    assert pool.sql("SELECT count(*) AS n FROM examples WHERE prompt = ?", ["one"]).rows() == [(1,)]
    assert pool.sql("SELECT count(*) AS n FROM labels WHERE domain = $d", {"d": "a"}).rows() == [(2,)]
    assert pool.sql("SELECT prompt FROM examples_at(0)").height == 0


def test_sums_of_integers_are_integers(pool: Pool) -> None:
    add(pool, "one")
    assert pool.sql("SELECT sum(train) AS n FROM coverage").rows() == [(1,)]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("INSERT INTO examples VALUES (1)", "INSERT is refused: queries only read"),
        ("DELETE FROM examples", "DELETE is refused"),
        ("DROP TABLE examples", "DROP is refused"),
        ("CREATE TEMP TABLE x AS SELECT 1", "CREATE is refused"),
        ("COPY examples TO 'x.csv'", "COPY is refused"),
        ("ATTACH 'x.duckdb'", "ATTACH is refused"),
        ("SET memory_limit = '1TB'", "SET is refused"),
        ("INSTALL httpfs", "LOAD is refused"),
        ("SELECT 1; SELECT 2", "one statement at a time; this is 2"),
        ("SELECT * FROM read_text('/etc/passwd')", "sees the pool and no other file"),
        ("SELECT * FROM '/etc/passwd.csv'", "sees the pool and no other file"),
        ("SELECT * FROM secret_frame", "does not exist"),
        ("SELECT nothing FROM examples", "nothing"),
        ("SELEC 1", "syntax error"),
        ("-- nothing", "the query is empty"),
        ("EXPLAIN ANALYZE DELETE FROM examples", "read-only"),
        ("SELECT INTERVAL 1 DAY", "cast it to VARCHAR"),
    ],
)
def test_a_query_that_does_more_than_read_is_refused(pool: Pool, query: str, message: str) -> None:
    secret_frame = pool.examples()
    with pytest.raises(SqlError, match=message):
        pool.sql(query)
    assert secret_frame.height == pool.version == 0


def test_a_pivot_is_a_query(pool: Pool) -> None:
    add(pool, "one", domain="a")
    assert pool.sql("PIVOT labels ON split USING count(*) GROUP BY domain").rows() == [("a", 1)]


def test_a_query_without_end_is_stopped(pool: Pool) -> None:
    with pytest.raises(SqlError, match=r"ran past 0\.3 s"):
        pool.sql("SELECT count(*) FROM range(1000000000000)", timeout_s=0.3)
    assert add(pool, "and the pool is free again")


def test_a_query_that_needs_too_much_memory_is_stopped(pool: Pool) -> None:
    with pytest.raises(SqlError, match="needs more than 100 MB"):
        pool.sql("SELECT list(i::VARCHAR || 'a long string') FROM range(100000000) t(i)", memory_mb=100)
