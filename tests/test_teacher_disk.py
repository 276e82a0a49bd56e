"""A disk that fills up: a small file system where one can be mounted, else a limit on the size of files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from balkit.errors import TeacherPaused
from balkit.recipe import Caps
from balkit.teacher import Ledger, Reply, Request, Scripted

SCRIPT = """
import resource, sys
from balkit.errors import PoolError
from balkit.recipe import Caps
from balkit.teacher import Ledger, Reply, Request, Scripted

class Volleys:
    # Has room for many requests, so that their notes fill the disk as well as their replies do.
    is_free, room = True, 16
    def ask(self, requests):
        for request in requests:
            yield Reply(request, "ok", text="x" * (20_000 - int(sys.argv[3])), input_tokens=1, output_tokens=1, raw="x")

teacher = Scripted(lambda r: "x" * 20_000) if sys.argv[2] == "one by one" else Volleys()
resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))
def request(i):
    return Request("rationale", "t", "m", (("user", f"q{i}" + int(sys.argv[3]) * " "),), "t", 0, 60, 0.5)
ledger = Ledger(sys.argv[1])
try:
    door = ledger.door(teacher, run_id="r", price="free", model="m", caps=Caps(), tries=3)
    for reply in door.ask(request(i) for i in range(1000)):
        print(reply.request.key, flush=True)
except PoolError as error:
    print(error, file=sys.stderr)
    sys.exit(1)
"""


def request(i: int, *, spaces: int = 0) -> Request:
    return Request("rationale", "t", "m", (("user", f"q{i}" + spaces * " "),), "t", 0, 60, 0.5)


@pytest.mark.parametrize(("how", "spaces"), [("one by one", 0), ("in volleys", 0), ("in volleys", 19_999)])
def test_a_write_that_fails_stops_the_run_and_loses_nothing_that_was_handed_out(
    tmp_path: Path, how: str, spaces: int
) -> None:
    path = tmp_path / "calls.sqlite"
    command = [sys.executable, "-c", SCRIPT, str(path), how, str(spaces)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert f"{path}: the ledger cannot be read or written" in done.stderr
    assert "is the disk full? What was handed out is kept" in done.stderr
    keys = done.stdout.split()
    assert 5 < len(keys) < 1000
    with Ledger(path) as ledger:
        assert ledger.cached(keys) == set(keys)
        assert ledger.check() == []
        door = ledger.door(Scripted(lambda r: "y"), run_id="r", price="free", model="m", caps=Caps(), tries=3)
        replies = list(door.ask(request(i, spaces=spaces) for i in range(100)))
        assert sum(reply.cached for reply in replies) == len(keys)
        assert ledger.check() == []


TWO = """
import resource, sys
from balkit.errors import PoolError
from balkit.recipe import Caps, Price
from balkit.teacher import Ledger, Reply, Request, Scripted

class Volleys:
    room = 4
    def ask(self, requests):
        for request in requests:
            yield Reply(request, "ok", text=said, input_tokens=1, output_tokens=1, raw="x")

def request(i):
    return Request("rationale", "t", "m", (("user", f"q{i}"),), "t", 0, 60, 0.5)
def ask(ledger, first):
    price = Price(input_usd_per_mtok=1.0, output_usd_per_mtok=1.0)
    door = ledger.door(Volleys(), run_id="r", price=price, model="m", caps=Caps(), tries=3)
    return len(list(door.ask(request(i) for i in range(first, first + 8))))

ledger, other, said = Ledger(sys.argv[1]), Ledger(sys.argv[1]), "x" * 400_000
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
try:
    ask(ledger, 0)
    sys.exit("the disk was not full")
except PoolError:
    pass
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
said = "short"
if sys.argv[2] == "another pays":
    assert ask(other, 100) == 8
assert ask(ledger, 0) == 8
assert ledger.check() == [], ledger.check()
"""


@pytest.mark.parametrize("meanwhile", ["nobody pays", "another pays"])
def test_what_a_failed_commit_left_is_stored_later_unless_another_payer_came(tmp_path: Path, meanwhile: str) -> None:
    command = [sys.executable, "-c", TWO, str(tmp_path / "calls.sqlite"), meanwhile]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_nearly_full_pauses_the_run_with_every_reply_kept(small_disk: Path) -> None:
    sent: list[str] = []

    def say(asked: Request) -> Reply:
        sent.append(asked.key)
        return Reply(asked, "ok", text="x" * 100_000, input_tokens=1, output_tokens=1)

    with Ledger(small_disk / "calls.sqlite") as ledger:
        door = ledger.door(Scripted(say), run_id="r", price="free", model="m", caps=Caps(), tries=3)
        replies: list[str] = []
        asking = door.ask(request(i) for i in range(1000))
        with pytest.raises(TeacherPaused, match="the disk is nearly full"):
            replies.extend(reply.request.key for reply in asking)
        assert 5 < len(replies) < 1000
        assert replies == sent
        assert ledger.cached(sent) == set(sent)
        assert ledger.check() == []
