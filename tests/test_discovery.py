"""Domains that are discovered: kept beside the labels, extended when examples come, seen by reads and commands."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from once import copied
from small import Rule, make_pool, make_recipe

from balkit.basis import Basis
from balkit.discovery import discover
from balkit.errors import PoolError, RecipeError, RunError
from balkit.pool import Pool
from balkit.stages import run
from balkit.teacher import Scripted
from balkit.vectors import Vectors
from balkit.vectors.encoders import Hashing

TOPICS = {
    "cooking": "butter flour oven recipe dough bake sugar whisk",
    "sailing": "mast anchor harbour sail keel rudder tide rope",
    "chess": "bishop knight castle pawn queen checkmate opening endgame",
}


def texts(topic: str, rows: int, *, start: int = 0) -> list[str]:
    words = TOPICS[topic].split()
    return [f"{' '.join(words[(i + j) % 8] for j in range(6))} {i}" for i in range(start, start + rows)]


def add(pool: Pool, topic: str, rows: int, *, split: str = "train", start: int = 0, domain: str = "all") -> None:
    frame = pl.DataFrame({"q": texts(topic, rows, start=start), "a": topic})
    pool.add(frame, prompt="q", answer="a", domain_is=domain, split=split)


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return copied(three_topics, tmp_path / "pool")


def three_topics(folder: Path) -> None:
    made = Pool.create(folder)
    for topic, rows in (("cooking", 60), ("sailing", 30), ("chess", 15)):
        add(made, topic, rows)
    add(made, "chess", 5, split="eval", start=100)


def vectors(pool: Pool, *, dim: int = 256) -> Vectors:
    return Vectors(pool.path / "vectors", Hashing(dim=dim))


def found_topics(pool: Pool, domain_set: str = "topics", **which: str) -> dict[str, set[str]]:
    """The answers, which are the true topics, by discovered domain."""
    examples = pool.examples(domain_set=domain_set, **which)
    return {name: set(part["reference"]) for (name,), part in examples.group_by("domain")}


def test_topics_are_found_named_and_given_to_every_split(pool: Pool) -> None:
    done = discover(pool, vectors(pool), domain_set="topics", k=3, min_rows=5)
    assert done.domains["rows"].to_list() == [60, 30, 15]
    assert sorted(found_topics(pool).values(), key=str) == [{"chess"}, {"cooking"}, {"sailing"}]
    for name, answers in found_topics(pool).items():
        assert set(name.split(", ")) <= set(TOPICS[next(iter(answers))].split())
    assert len(found_topics(pool, split="eval")) == 1
    assert (done.version, done.assigned, pool.check()) == (5, 110, [])


def test_the_labels_stay_and_older_versions_know_no_set(pool: Pool) -> None:
    discover(pool, vectors(pool), domain_set="topics", k=3, min_rows=5)
    assert set(pool.examples()["domain"]) == {"all"}
    assert pool.coverage()["domain"].to_list() == ["all"]
    assert pool.coverage(domain_set="topics")["train"].to_list() == [60, 30, 15]
    assert pool.at(4).domain_sets().height == 0
    with pytest.raises(PoolError, match="no set of domains 'topics'; there are: none"):
        pool.at(4).examples(domain_set="topics")
    stored = pool.sql("SELECT domain, count(*) AS n FROM domains_at(5, 'topics') GROUP BY domain ORDER BY n")
    assert stored["n"].to_list() == [20, 30, 60]


def test_examples_that_came_later_go_to_the_domains_that_are_there(pool: Pool) -> None:
    first = discover(pool, vectors(pool), domain_set="topics", k=3, min_rows=5)
    add(pool, "sailing", 10, start=500)
    again = discover(pool, vectors(pool), domain_set="topics")
    assert (again.assigned, again.candidates.height) == (10, 0)
    assert again.domains["domain"].to_list() == first.domains["domain"].to_list()
    assert sorted(found_topics(pool).values(), key=str) == [{"chess"}, {"cooking"}, {"sailing"}]
    assert discover(pool, vectors(pool), domain_set="topics").version == again.version


def test_discovering_again_replaces_the_domains_and_the_same_again_changes_nothing(pool: Pool) -> None:
    first = discover(pool, vectors(pool), domain_set="topics", k=3, min_rows=5)
    same = discover(pool, vectors(pool), domain_set="topics", k=3, min_rows=5, again=True)
    assert same.version == first.version
    fewer = discover(pool, vectors(pool), domain_set="topics", k=2, min_rows=5, again=True)
    assert (fewer.version, len(found_topics(pool))) == (first.version + 1, 2)
    assert len(pool.at(first.version).coverage(domain_set="topics")) == 3


def test_one_domain_can_be_taken_apart(pool: Pool) -> None:
    add(pool, "cooking", 20, start=900, domain="other")
    discover(pool, vectors(pool), domain_set="topics", k=3, min_rows=5, within="all")
    names = set(found_topics(pool))
    assert "other" in names
    assert all(name.startswith("all / ") for name in names - {"other"})
    assert len(names) == 4


def test_a_dry_run_stores_nothing(pool: Pool) -> None:
    done = discover(pool, vectors(pool), domain_set="topics", k=3, min_rows=5, dry_run=True)
    assert (done.version, pool.version, done.domains.height) == (4, 4, 3)
    assert pool.domain_sets().height == 0


def test_another_encoder_cannot_extend_a_set(pool: Pool) -> None:
    discover(pool, vectors(pool), domain_set="topics", k=3, min_rows=5)
    with pytest.raises(PoolError, match="hashing-1-256 within all, not by hashing-1-64"):
        discover(pool, vectors(pool, dim=64), domain_set="topics")


def test_a_domain_without_train_examples_is_named_with_those_that_are_there(pool: Pool) -> None:
    with pytest.raises(PoolError, match=r"no train examples of domain 'none' \(there are: all\)"):
        discover(pool, vectors(pool), within="none")


def test_domains_made_by_hand_are_kept_as_a_set_too(pool: Pool) -> None:
    ids = pool.examples()["example_id"]
    labels = pl.DataFrame({"example_id": ids, "domain": ["even", "odd"] * (len(ids) // 2)})
    version = pool.set_domains("parity", labels, detail={"by": "hand"})
    assert pool.coverage(domain_set="parity")["domain"].to_list() == ["even", "odd"]
    assert json.loads(pool.domain_sets()["detail"][0]) == {"by": "hand"}
    assert pool.set_domains("parity", labels, detail={"by": "hand"}) == version
    assert pool.check() == []


def test_a_set_made_by_hand_is_not_extended_by_discovery_and_keeps_its_detail(pool: Pool) -> None:
    ids = pool.examples().select("example_id", domain=pl.lit("one"))
    pool.set_domains("mine", ids, detail=["by hand"])
    pool.set_domains("mine", ids.with_columns(domain=pl.lit("two")))
    assert json.loads(pool.domain_sets()["detail"][0]) == ["by hand"]
    with pytest.raises(PoolError, match="were made by hand"):
        discover(pool, vectors(pool), domain_set="mine")


@pytest.mark.parametrize(
    ("name", "ids", "domain", "problem"),
    [
        ("9", None, "x", "names no set"),
        ("s", ["f" * 64], "x", "not in the pool"),
        ("s", None, "two\nlines", "no name of a domain"),
        ("s", None, " ", "no name of a domain"),
    ],
)
def test_a_bad_set_of_domains_is_refused(
    pool: Pool, name: str, ids: list[str] | None, domain: str, problem: str
) -> None:
    labels = pl.DataFrame({"example_id": ids or pool.examples()["example_id"][:1].to_list(), "domain": domain})
    with pytest.raises(PoolError, match=problem):
        pool.set_domains(name, labels)
    assert pool.version == 4


LABELS = {"kind": "label", "labels": ["bird", "fruit", "tool"]}


def with_a_set(folder: Path) -> Pool:
    """A pool whose labels all say `all`, and a set that says which is which."""
    pool = make_pool(folder)
    examples = pool.examples()
    pool.relabel(examples.with_columns(domain=pl.lit("all")), message="forget")
    pool.set_domains("topics", examples.select("example_id", "domain"))
    return pool


@pytest.mark.long
def test_a_run_balances_over_the_domains_of_a_set(tmp_path: Path) -> None:
    pool = with_a_set(tmp_path / "pool")
    recipe = make_recipe(domain_set="topics", answers=LABELS, select={"first": "random", "then": "random"})
    result = run(pool, recipe, teacher=Scripted(Rule()), train=False)
    rows = pool.snapshot(result.snapshot_id).rows
    plain = make_pool(tmp_path / "plain")
    same = run(plain, make_recipe(select={"first": "random", "then": "random"}), teacher=Scripted(Rule()), train=False)
    of = plain.snapshot(same.snapshot_id).rows["domain"].value_counts().sort("domain")
    assert rows["domain"].value_counts().sort("domain").equals(of)
    written = pool.examples(origin="synthetic", domain_set="topics")
    assert written.height
    assert set(written["domain"]) <= {"bird", "fruit", "tool"}
    assert run(pool, recipe, teacher=Scripted(Rule()), train=False).snapshot_id == result.snapshot_id
    assert pool.check() == []


def test_a_set_that_is_not_there_or_lacks_examples_stops_before_any_call(tmp_path: Path) -> None:
    pool = with_a_set(tmp_path / "pool")
    with pytest.raises(RunError, match="'other' is not in the pool; there are: topics"):
        Basis.of(pool, make_recipe(domain_set="other", answers=LABELS))
    pool.add(pl.DataFrame({"q": ["new"], "a": ["bird"]}), prompt="q", answer="a", domain_is="all")
    with pytest.raises(RunError, match="no domain for 1 examples"):
        Basis.of(pool, make_recipe(domain_set="topics", answers=LABELS))


def test_domains_of_a_set_are_no_labels_to_answer_with() -> None:
    with pytest.raises(RecipeError, match=r"list answers\.labels"):
        make_recipe(domain_set="topics")
