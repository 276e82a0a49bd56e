"""`balkit status`: where a run of another process stands, while it goes, when it is killed, when it has ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from small import Rule, make_pool, make_recipe
from test_cli import Balkit, balkit

from balkit.errors import CapReached
from balkit.pool import Pool
from balkit.recipe import Caps, Price
from balkit.stages import run
from balkit.standing import RunStatus, look
from balkit.standing.process import birth, is_alive
from balkit.teacher import Scripted

__all__ = ["balkit"]

CHILD = """
import sys, time
from small import Rule, make_recipe
from balkit.pool import Pool
from balkit.stages import run
from balkit.teacher import Scripted
rule, pause = Rule(), float(sys.argv[2])
def teacher(request):
    time.sleep(pause)
    return rule(request)
run(Pool.open(sys.argv[1]), make_recipe(budget_rows=30, stages=2, select={"first": "random", "then": "random"}),
    teacher=Scripted(teacher), train=False)
"""


HERE = Path(__file__).resolve().parent
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])}


@contextmanager
def running(pool: Path, *, pause_s: float) -> Iterator[subprocess.Popen[bytes]]:
    """A second process that runs a recipe on the pool, with a teacher that takes its time."""
    with subprocess.Popen([sys.executable, "-c", CHILD, str(pool), str(pause_s)], env=ENVIRONMENT) as process:
        try:
            yield process
        finally:
            process.kill()


def seen(pool: Path, wanted: Callable[[RunStatus], bool]) -> RunStatus:
    """The status of the pool's last run as soon as it is as wanted."""
    for _ in range(600):
        found = look(pool).runs
        if found and wanted(found[0]):
            return found[0]
        time.sleep(0.1)
    raise AssertionError(f"it never came to that: {found}")


@pytest.mark.long
def test_a_run_of_another_process_is_seen_running_killed_followed_and_done(balkit: Balkit, tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool").path
    with running(pool, pause_s=0.3) as process:
        now = seen(pool, lambda one: one.standing is not None and one.standing.filled is not None)
        assert now.state == "running"
        assert now.process is not None
        assert now.process["pid"] == process.pid
        code, out, _ = balkit("status", str(pool), "--json")
        body = json.loads(out)
        assert (code, body["holder"], body["runs"][0]["state"]) == (0, process.pid, "running")
        code, out, _ = balkit("status", str(pool))
        assert f"running, process {process.pid} since " in out
        assert f"next: balkit status {pool} --follow" in out
        assert "balkit status pool --follow\n      watch the run that is going on" in balkit()[1]
        process.send_signal(signal.SIGKILL)
        process.wait()
    killed = look(pool).runs[0]
    assert (killed.state, killed.end) == ("dead", None)
    code, out, _ = balkit("status", str(pool))
    assert "killed, or a power cut" in " ".join(out.split())
    assert f"goes on with: balkit run {pool} {pool}/runs/{killed.record.run_id[:12]}/recipe.yaml" in out
    with running(pool, pause_s=0.05) as process:
        seen(pool, lambda one: one.state == "running")
        command = [sys.executable, "-m", "balkit", "status", str(pool), "--follow"]
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=ENVIRONMENT)
        followed = told.stdout.splitlines()
        assert process.wait(timeout=60) == 0
    assert any("stage " in line for line in followed[:-1])
    assert followed[-1].startswith("next: balkit export")
    done = look(pool).runs[0]
    assert (done.state, done.record) == ("done", killed.record)
    assert balkit("status", str(pool), "--follow")[0] == 0, "there is nothing to wait for"


def test_a_run_that_stopped_says_why_what_it_cost_and_how_it_goes_on(balkit: Balkit, tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool")
    recipe = make_recipe(budget_rows=30, stages=1, select={"first": "random"})
    price = Price(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)
    teacher = recipe.teacher.model_copy(update={"price": price})
    capped = recipe.model_copy(update={"caps": Caps(calls=5), "teacher": teacher})
    with pytest.raises(CapReached):
        run(pool, capped, teacher=Scripted(Rule()), train=False)
    found = look(pool.path).runs[0]
    assert (found.state, found.end and found.end["code"]) == ("stopped", "cap-reached")
    assert found.spent is not None
    assert (found.spent.calls, found.spent.cost_microusd > 0) == (5, True)
    _, out, _ = balkit("status", str(pool.path))
    for said in ("stopped, process", "[cap-reached]", "Raise the cap", "in 5 calls", "goes on with: balkit run"):
        assert said in out
    assert max(map(len, out.splitlines())) <= max(80, *(len(line) for line in out.splitlines() if "goes on" in line))


def test_looking_changes_nothing_and_takes_no_lock(balkit: Balkit, tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool")
    before = {file: file.stat().st_mtime_ns for file in sorted(pool.path.rglob("*"))}
    with pool.lock():
        code, out, _ = balkit("status", str(pool.path))
    assert (code, "no run so far" in out, f"process {os.getpid()} works on it" in out) == (0, True, True)
    balkit("status", str(pool.path))
    after = {file: file.stat().st_mtime_ns for file in sorted(pool.path.rglob("*")) if file.name != "lock"}
    assert after == before
    code, _, err = balkit("status", str(tmp_path / "nowhere"))
    assert (code, "[pool-missing]" in err) == (1, True)
    assert balkit("status", str(pool.path), "--json", "--follow")[0] == 2


def test_a_status_that_cannot_be_written_fails_no_run(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool")
    recipe = make_recipe(budget_rows=12, stages=1, select={"first": "random"})
    first = run(pool, recipe, teacher=Scripted(Rule()), train=False)
    folder = pool.path / "runs" / first.run_id[:12]
    (folder / "status.json").unlink()
    (folder / "status.json.new").mkdir()
    assert run(pool, recipe, teacher=Scripted(Rule()), train=False).snapshot_id == first.snapshot_id
    assert look(pool.path).runs[0].state == "done", "its report is there"
    (folder / "report.json").unlink()
    assert look(pool.path).runs[0].state == "unknown"
    for harm in ("", "[]", '{"standing": {"stage": 1}}'):
        (folder / "status.json").write_text(harm)
        assert look(pool.path).runs[0].standing is None


def test_a_number_that_another_process_has_now_is_no_sign_of_life() -> None:
    me = os.getpid()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        assert is_alive(other.pid, born=birth(other.pid))
        assert not is_alive(other.pid, born=birth(me))
        assert is_alive(other.pid, host="another-machine") is None
        other.kill()
        for _ in range(100):
            if birth(other.pid) is None:
                break
            time.sleep(0.05)
        assert not is_alive(other.pid), "dead, though nobody has waited for it yet"


@pytest.mark.long
def test_several_runs_are_told_with_the_last_one_first(balkit: Balkit, tmp_path: Path) -> None:
    pool: Pool = make_pool(tmp_path / "pool")
    names = []
    for seed in (0, 1):
        recipe = make_recipe(budget_rows=12, stages=1, select={"first": "random"}, name=f"seed{seed}", seed=seed)
        names.append(run(pool, recipe, teacher=Scripted(Rule()), train=False).run_id)
        time.sleep(1.1)  # moments are kept in seconds
    assert [one.record.run_id for one in look(pool.path).runs] == names[::-1]
    assert "other runs" in balkit("status", str(pool.path))[1]
