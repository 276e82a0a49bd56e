"""The quickstart's teacher: reads and writes support tickets by rule, without a network.

It stands behind the same door as a paid one and is as fallible: without a hint it is wrong now and then, and a few of
the tickets it writes are duplicates or badly formed. Everything it says is a function of the request's key.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from balkit.teacher import tickets
from balkit.teacher.protocol import Reply, Request

AUTHOR = "offline-support-teacher-1"
_WRONG_RATE = 0.04  # answers without a hint that name the runner-up
_CARELESS_RATE = 0.015  # worked answers that forget to declare their answer
_REPEAT_RATE = 0.03  # written tickets that repeat the one before
_MALFORMED_RATE = 0.02  # written tickets without a text
_PASSING_WEIGHT = 0.2  # what a keyword in a sentence said in passing still counts


@dataclass(frozen=True)
class Reading:
    """Topics from the likeliest down, and for each the words of the ticket that speak for it."""

    topics: tuple[str, ...]
    evidence: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Offline:
    """A `Teacher` of support tickets. Knows the twelve topics of the quickstart and no others.

    Free, unless the recipe names a price: then it is charged like any other, so that the money columns live.
    """

    is_free = True

    def ask(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Answers one after another, each as soon as it is pulled."""
        for request in requests:
            yield answer(request)


def answer(request: Request) -> Reply:
    """The reply to one request: a function of its key and of what it shows."""
    rng = random.Random(request.key)
    if request.purpose == "synthesis" and request.domain not in _knowledge().phrases.topics:
        return Reply(
            request, "permanent", error=f"the offline teacher knows no topic {request.domain!r}", author=AUTHOR
        )
    text = _written(request, rng) if request.purpose == "synthesis" else _worked(request, rng)
    asked = "".join(content for _, content in request.messages)
    return Reply(
        request,
        "ok",
        text=text,
        finish_reason="stop",
        input_tokens=_tokens(asked),
        output_tokens=_tokens(text),
        raw=json.dumps({"text": text}),
        author=AUTHOR,
        provider_id=f"offline-{request.key[:16]}",
    )


def read(ticket: str) -> Reading:
    """What the keyword rules make of a ticket, sentence by sentence; what is said in passing counts little."""
    scores: dict[str, float] = dict.fromkeys(_knowledge().rules, 0.0)
    evidence: dict[str, list[str]] = {topic: [] for topic in scores}
    for sentence in re.split(r"(?<=[.?!;])\s+", ticket.lower()):
        weight = _PASSING_WEIGHT if any(cue in sentence for cue in _knowledge().passing) else 1.0
        for topic, rules in _knowledge().rules.items():
            for rule in rules:
                words = rule.find(sentence)
                scores[topic] += weight * rule.weight * bool(words)
                evidence[topic] += [word for word in words if weight == 1.0]
    ranked = sorted(scores, key=lambda topic: (-scores[topic], topic))
    return Reading(tuple(ranked), {topic: tuple(dict.fromkeys(words)) for topic, words in evidence.items()})


@dataclass(frozen=True)
class _Rule:
    stems: tuple[re.Pattern[str], ...]
    weight: float

    def find(self, sentence: str) -> list[str]:
        """The matched words, or none unless every stem is there."""
        found = [match[0] for match in (stem.search(sentence) for stem in self.stems) if match]
        return found if len(found) == len(self.stems) else []


@dataclass(frozen=True)
class _Knowledge:
    phrases: tickets.Phrases
    rules: dict[str, tuple[_Rule, ...]]
    passing: tuple[str, ...]
    reasons: tuple[str, ...]


@cache
def _knowledge() -> _Knowledge:
    body = yaml.safe_load(
        resources.files("balkit.teacher").joinpath("offline_phrases.yaml").read_text(encoding="utf-8")
    )
    rules = {topic: tuple(_rule(key, weight) for key, weight in rows.items()) for topic, rows in body["rules"].items()}
    return _Knowledge(tickets.read(body), rules, tuple(body["passing"]), tuple(body["reasons"]))


def _rule(key: str, weight: float) -> _Rule:
    return _Rule(tuple(re.compile(rf"\b{re.escape(stem)}\w*") for stem in key.split("+")), float(weight))


def _worked(request: Request, rng: random.Random) -> str:
    ticket = request.subject or request.messages[-1][1]
    reading = read(ticket)
    topic = reading.topics[1 if rng.random() < _WRONG_RATE else 0]
    if request.reference in reading.evidence:
        topic = str(request.reference)
    words = reading.evidence[topic][:2]
    evidence = " and ".join(words) or "what is asked"
    reason = rng.choice(_knowledge().reasons).replace("<evidence>", evidence).replace("<topic>", topic)
    careless = rng.random() < _CARELESS_RATE
    return reason if careless else f"{reason}\nAnswer: {topic}"


def _written(request: Request, rng: random.Random) -> str:
    rows: list[dict[str, Any]] = []
    for _ in range(max(request.count, 1)):
        ticket = tickets.write(_knowledge().phrases, topic=request.domain, rng=rng)
        fate = rng.random()
        if fate < _REPEAT_RATE and rows:
            rows.append(dict(rows[-1]))
        elif fate < _REPEAT_RATE + _MALFORMED_RATE:
            rows.append({"prompt": "", "answer": request.domain})
        else:
            rows.append({"prompt": ticket, "answer": request.domain})
    return json.dumps({"examples": rows}, ensure_ascii=False)


def _tokens(text: str) -> int:
    return -(-len(text.encode("utf-8")) // 4)
