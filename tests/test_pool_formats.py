"""Pools as older balkits wrote them: fixtures/make_pools.py says how they were made."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from pool_rows import add

from balkit.errors import PoolError
from balkit.pool import Pool, migrate

POOLS = Path(__file__).parent / "fixtures" / "pools"
FORMATS = sorted(int(home.name.removeprefix("format_")) for home in POOLS.iterdir())
FRAMES = ("examples", "rationales", "scores", "decisions", "evaluations", "calls", "snapshots", "coverage")


def old_pool(number: int, folder: Path) -> Path:
    home = POOLS / f"format_{number:04}"
    folder.mkdir()
    (folder / "HEAD").write_bytes((home / "HEAD").read_bytes())
    (folder / "pool.duckdb").write_bytes(gzip.decompress((home / "pool.duckdb.gz").read_bytes()))
    return folder


def said_by_the_old(number: int) -> Any:
    return json.loads((POOLS / f"format_{number:04}" / "reads.json").read_text(encoding="utf-8"))


def same(now: pl.DataFrame, then: list[dict[str, Any]]) -> bool:
    """Whether rows are as they were, in the columns of then: a newer balkit may read more, but nothing else."""
    return now.select(list(then[0]) if then else now.columns).to_dicts() == then


@pytest.fixture(params=FORMATS)
def number(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def pool(number: int, tmp_path: Path) -> Pool:
    return Pool.open(old_pool(number, tmp_path / "pool"))


def test_every_format_but_the_newest_has_a_pool_that_was_written_in_it() -> None:
    needed = {migration.number for migration in migrate.shipped()[:-1]}
    missing = sorted(needed - set(FORMATS))
    assert not missing, f"run tests/fixtures/make_pools.py for the formats {missing}, with the code before the newest"


def test_a_fixture_has_the_format_of_its_folder(number: int, tmp_path: Path) -> None:
    with duckdb.connect(old_pool(number, tmp_path / "pool") / "pool.duckdb", read_only=True) as con:
        assert con.sql("SELECT max(number) FROM migrations").fetchall() == [(number,)]


def test_an_old_pool_reads_as_it_did(pool: Pool, number: int) -> None:
    then = said_by_the_old(number)
    assert pool.version == then["version"]
    assert pool.retired_prompts() == then["retired prompts"]
    for name in FRAMES:
        assert same(getattr(pool, name)(), then[name]), name
    for version, rows in then["examples at"].items():
        assert same(pool.at(version).examples(), rows), version


def test_an_old_pools_snapshots_keep_rows_digests_and_parents(pool: Pool, number: int) -> None:
    then = said_by_the_old(number)
    assert pool.snapshot("run-s2").parent == "run-s1"
    for name, digest in then["snapshot digests"].items():
        snapshot = pool.snapshot(name)
        assert snapshot.digest == digest
        assert snapshot.deficits == then["deficits"][name]
        assert same(snapshot.rows, then["snapshot rows"][name])
        assert same(pool.refused_now(name), then["refused now"][name])


def test_an_old_pool_covers_its_domains(pool: Pool) -> None:
    rows = pool.coverage().select("domain", "train", "eval", "synthetic", "retired", "rationales", "leaks").rows()
    assert rows == [("algebra", 9, 2, 0, 1, 8, 1), ("birds", 7, 0, 0, 0, 3, 0), ("cooking", 3, 0, 1, 1, 2, 0)]


def test_an_old_pools_versions_keep_their_digests(pool: Pool, number: int) -> None:
    then = said_by_the_old(number)
    assert same(pool.sql("SELECT * FROM versions ORDER BY version"), then["versions"])
    assert pool.log()["digest"].to_list() == [row["digest"] for row in reversed(then["versions"])]
    assert pool.tags() == then.get("tags", {})
    assert "log" not in then or same(pool.log(), then["log"])


def test_an_old_pool_has_no_problems_and_grows(pool: Pool) -> None:
    assert pool.check() == []
    version = pool.version
    add(pool, "afterwards")
    assert pool.tag(version, "as-it-came") == version + 2
    assert pool.at("as-it-came").examples().height == pool.examples().height - 1
    assert Pool.open(pool.path, read_only=True).check() == []


@pytest.mark.parametrize("older", [number for number in FORMATS if number < migrate.shipped()[-1].number])
def test_an_old_pool_opened_for_reading_says_what_to_do_and_stays_as_it_is(older: int, tmp_path: Path) -> None:
    file = old_pool(older, tmp_path / "pool") / "pool.duckdb"
    before = file.read_bytes()
    with pytest.raises(PoolError, match="older format; open it once for writing"):
        Pool.open(file.parent, read_only=True)
    assert file.read_bytes() == before
