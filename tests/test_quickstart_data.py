"""The quickstart's data and its offline teacher: a gain there must be a gain."""

from __future__ import annotations

import json
import runpy
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from balkit import recipe
from balkit.teacher import offline, tickets
from balkit.teacher.protocol import Purpose, Reply, Request

HERE = Path(__file__).parent.parent
DATA = HERE / "data" / "quickstart"
TEACHER_PHRASES = HERE / "balkit" / "teacher" / "offline_phrases.yaml"


def rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def ask(
    purpose: Purpose, *, sample: int = 0, domain: str = "", subject: str = "", reference: str | None = None
) -> Reply:
    request = Request(
        purpose,
        "offline",
        offline.AUTHOR,
        (("user", f"{domain}{subject}{reference}"),),
        "t",
        sample,
        128,
        0.7,
        domain=domain,
        subject=subject,
        reference=reference,
        count=4,
    )
    (reply,) = offline.Offline().ask([request])
    return reply


def test_pool_teacher_and_eval_share_no_phrase_and_no_layout() -> None:
    sources = [tickets.load(path) for path in (DATA / "phrases_pool.yaml", DATA / "phrases_eval.yaml", TEACHER_PHRASES)]
    for one, other in combinations(sources, 2):
        assert one.all() & other.all() == set()
        assert list(one.topics) == list(other.topics)


def test_make_writes_the_same_bytes(tmp_path: Path) -> None:
    runpy.run_path(str(DATA / "make.py"))["main"](tmp_path)
    for name in ("train", "dev", "eval"):
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (DATA / f"{name}.jsonl").read_bytes()


def test_pool_is_long_tailed_and_eval_is_even() -> None:
    train, even = Counter(row["topic"] for row in rows("train")), Counter(row["topic"] for row in rows("eval"))
    assert sum(train.values()) > 2500
    assert train["billing"] == max(train.values()) > 1000
    assert train["hacked account"] == min(train.values()) == 12
    assert set(even.values()) == {40}
    assert set(even) == set(train)
    assert (DATA / "train.jsonl").stat().st_size < 1_500_000


def test_no_ticket_stands_in_two_places() -> None:
    texts = [row["ticket"].lower() for name in ("train", "dev", "eval") for row in rows(name)]
    assert len(set(texts)) == len(texts)


def test_teacher_without_a_hint_is_good_and_not_perfect() -> None:
    right = [f"Answer: {row['topic']}" in ask("vote", subject=row["ticket"]).text for row in rows("eval")]
    assert 0.85 < sum(right) / len(right) < 0.99


def test_teacher_with_a_hint_gives_the_hinted_answer() -> None:
    replies = [ask("rationale", subject=row["ticket"], reference=row["topic"]) for row in rows("dev")]
    declared = [
        reply.text.endswith(f"\nAnswer: {row['topic']}") for reply, row in zip(replies, rows("dev"), strict=True)
    ]
    assert sum(declared) >= 55


def test_teacher_answers_as_a_function_of_the_request() -> None:
    assert ask("synthesis", domain="refund") == ask("synthesis", domain="refund")
    assert ask("synthesis", domain="refund").text != ask("synthesis", domain="refund", sample=1).text


@pytest.mark.parametrize("domain", yaml.safe_load(TEACHER_PHRASES.read_text(encoding="utf-8"))["topics"])
def test_written_tickets_parse_differ_and_are_right(domain: str) -> None:
    written = [
        example
        for sample in range(25)
        for example in json.loads(ask("synthesis", domain=domain, sample=sample).text)["examples"]
    ]
    assert len(written) == 100
    assert {example["answer"] for example in written} == {domain}
    texts = [example["prompt"] for example in written if example["prompt"]]
    assert len(set(texts)) >= 85
    read_back = [offline.read(text).topics[0] == domain for text in texts]
    assert sum(read_back) / len(read_back) > 0.85


def test_some_written_tickets_are_badly_formed_or_repeated() -> None:
    written = [
        example["prompt"]
        for sample in range(100)
        for example in json.loads(ask("synthesis", domain="login", sample=sample).text)["examples"]
    ]
    whole = [text for text in written if text]
    assert 0 < len(written) - len(whole) < 40
    assert 0 < len(whole) - len(set(whole)) < 40


def test_teacher_refuses_a_topic_it_does_not_know() -> None:
    reply = ask("synthesis", domain="astrology")
    assert reply.outcome == "permanent"
    assert "astrology" in reply.error


@pytest.mark.parametrize("name", ["quickstart", "quickstart_natural_random"])
def test_recipes_are_valid_and_comparable(name: str) -> None:
    ours, other = recipe.load(HERE / "recipes" / f"{name}.yaml"), recipe.load(HERE / "recipes" / "quickstart.yaml")
    assert ours.budget_rows == other.budget_rows
    assert (ours.student, ours.train, ours.evaluate) == (other.student, other.train, other.evaluate)
