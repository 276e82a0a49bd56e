"""The grammar of the quickstart's support tickets: from lists of phrases to one ticket.

The phrases are not here: the pool, the eval split and the offline teacher each bring lists of their own, so that no
arm of the quickstart can win by having read the eval split's sentences.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_SLOT = re.compile(r"<(\w+)>")
_TYPO_RATE = 0.25  # tickets with misspelt words
_LOWER_RATE = 0.15  # tickets typed without capitals
_PARTS = {"greeting": "greetings", "opener": "openers", "closing": "closings", "signature": "signatures"}


@dataclass(frozen=True)
class Topic:
    """What customers say about one topic; `mentions` are past clauses that tickets about other topics drop."""

    things: tuple[str, ...]
    problems: tuple[str, ...]
    asks: tuple[str, ...]
    mentions: tuple[str, ...]


@dataclass(frozen=True)
class Phrases:
    """One source's phrases: whole lists by name (`layouts`, `greetings`, ...) and those of each topic."""

    shared: dict[str, tuple[str, ...]]
    topics: dict[str, Topic]

    def all(self) -> set[str]:
        """Every phrase and layout, normalised: what two sources must not have in common."""
        mine = [*self.shared.values()]
        mine += [
            part
            for topic in self.topics.values()
            for part in (topic.things, topic.problems, topic.asks, topic.mentions)
        ]
        return {" ".join(re.sub(r"[^\w<>]+", " ", text.lower()).split()) for part in mine for text in part}


def read(body: dict[str, Any]) -> Phrases:
    """Phrases from a parsed YAML file."""
    topics = {
        name: Topic(**{key: tuple(lines) for key, lines in parts.items()}) for name, parts in body["topics"].items()
    }
    shared = ("layouts", *_PARTS.values(), "times", "asides", "products")
    return Phrases({key: tuple(body[key]) for key in shared}, topics)


def load(path: Path) -> Phrases:
    """Phrases from a YAML file."""
    return read(yaml.safe_load(path.read_text(encoding="utf-8")))


def write(phrases: Phrases, *, topic: str, rng: random.Random) -> str:
    """One ticket about `topic`. A layout with an aside mentions another topic in passing.

    Draws from `rng` only, so the same state gives the same ticket.
    """
    layout = rng.choice(phrases.shared["layouts"])
    sentences = [_capital(_part(slot, phrases, topic, rng)) for slot in _SLOT.findall(layout)]
    ticket = " ".join(sentences)
    if rng.random() < _TYPO_RATE:
        ticket = _misspelt(ticket, rng)
    return ticket.lower() if rng.random() < _LOWER_RATE else ticket


def _part(slot: str, phrases: Phrases, topic: str, rng: random.Random) -> str:
    about = phrases.topics[topic]
    if slot in _PARTS:
        text = rng.choice(phrases.shared[_PARTS[slot]])
    elif slot == "aside":
        other = rng.choice([name for name in phrases.topics if name != topic])
        text = rng.choice(phrases.shared["asides"]).replace("<mention>", rng.choice(phrases.topics[other].mentions))
    elif slot == "problem":
        text = rng.choice(about.problems).replace("<thing>", rng.choice(about.things))
    else:
        text = rng.choice(about.asks)
    return _SLOT.sub(lambda match: _value(match[1], phrases, rng), text)


def _value(slot: str, phrases: Phrases, rng: random.Random) -> str:
    if slot == "order":
        return str(rng.randrange(10_000, 99_999))
    if slot == "amount":
        return f"${rng.randrange(5, 400)}"
    return rng.choice(phrases.shared[{"time": "times", "product": "products"}[slot]])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _misspelt(ticket: str, rng: random.Random) -> str:
    words = ticket.split(" ")
    long = [place for place, word in enumerate(words) if len(word) > 4 and word.isalpha()]
    for place in rng.sample(long, k=min(len(long), rng.choice((1, 1, 2, 3)))):
        words[place] = _swapped(words[place], rng)
    return " ".join(words)


def _swapped(word: str, rng: random.Random) -> str:
    """The word with two inner letters swapped, or one lost or doubled."""
    at = rng.randrange(1, len(word) - 2)
    return rng.choice(
        (word[:at] + word[at + 1] + word[at] + word[at + 2 :], word[:at] + word[at + 1 :], word[: at + 1] + word[at:])
    )
