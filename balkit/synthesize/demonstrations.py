"""Which real examples a synthesis call shows, and how they and what was written so far are shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from balkit import selection, texts

Encode = Callable[[Sequence[str]], NDArray[np.float32]]

_CANDIDATES = 256  # of a domain's examples that its demonstrations are drawn from
_LONGEST = 2000  # characters of a demonstration's prompt that are shown
_LISTED = 12  # texts written so far that are listed
_LISTED_CHARS = 120  # of each


@dataclass(frozen=True)
class Demonstration:
    """A real example as it is shown."""

    example_id: str
    prompt: str
    reference: str | None
    domain: str


@dataclass
class Shelf:
    """The real examples by domain, and their vectors, made once for each domain that is asked for."""

    by_domain: dict[str, list[Demonstration]]
    count: int  # shown in a call
    seed: int
    encode: Encode | None = None
    _vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    _candidates: dict[str, list[Demonstration]] = field(default_factory=dict)

    @classmethod
    def of(cls, examples: pl.DataFrame, *, count: int, seed: int, encode: Encode | None) -> Shelf:
        """From EXAMPLES; those without a reference are used only where a domain has no others."""
        by_domain: dict[str, list[Demonstration]] = {}
        rows = examples.select("example_id", "prompt", "reference", "domain").sort("example_id")
        for row in rows.iter_rows(named=True):
            by_domain.setdefault(row["domain"], []).append(Demonstration(**row))
        for domain, found in by_domain.items():
            by_domain[domain] = [one for one in found if one.reference is not None] or found
        return cls(by_domain, count, seed, encode)

    def draw(self, domain: str, *, sample: int) -> list[Demonstration]:
        """`count` different examples of the domain (all, where it has no more), others at every sample.

        With vectors: farthest-first among a random half, so that a call's examples differ from one another. A domain
        without any borrows one each from other domains.
        """
        candidates = self._of(domain)
        if not candidates:
            return self._borrowed(domain, sample=sample)
        order = sorted(
            range(len(candidates)),
            key=lambda at: texts.rank_key(self.seed, domain, sample, candidates[at].example_id),
        )
        if self.encode is None or len(candidates) <= self.count:
            return [candidates[at] for at in order[: self.count]]
        pool = order[: max(len(order) // 2, min(len(order), 4 * self.count))]
        return [candidates[at] for at in self._farthest_first(domain, pool)]

    def _of(self, domain: str) -> list[Demonstration]:
        if domain not in self._candidates:
            found = self.by_domain.get(domain, [])
            ranked = sorted(found, key=lambda one: texts.rank_key(self.seed, domain, one.example_id))
            self._candidates[domain] = ranked[:_CANDIDATES]
        return self._candidates[domain]

    def _farthest_first(self, domain: str, pool: Sequence[int]) -> list[int]:
        assert self.encode is not None
        if domain not in self._vectors:
            encoded = self.encode([one.prompt for one in self._of(domain)])
            self._vectors[domain] = selection.on_grid(encoded, name="demonstrations")  # ties decide a request's key
        vectors = self._vectors[domain][list(pool)]
        chosen = [0]
        closest = vectors @ vectors[0]
        while len(chosen) < self.count:
            closest[chosen] = np.inf
            chosen.append(int(closest.argmin()))
            closest = np.maximum(closest, vectors @ vectors[chosen[-1]])
        return [pool[at] for at in chosen]

    def _borrowed(self, domain: str, *, sample: int) -> list[Demonstration]:
        others = sorted(
            (name for name, found in self.by_domain.items() if name != domain and found),
            key=lambda name: texts.rank_key(self.seed, domain, sample, name),
        )
        return [
            min(self._of(name), key=lambda one: texts.rank_key(self.seed, domain, sample, one.example_id))
            for name in others[: self.count]
        ]


def shown(demonstrations: Sequence[Demonstration], *, domain: str) -> str:
    """The demonstrations as text; those of other domains are marked as guides to the form only."""
    if not demonstrations:
        return ""
    lines = [_line(one, domain=domain) for one in demonstrations]
    own = demonstrations[0].domain == domain
    head = (
        f'Examples of the domain "{domain}":'
        if own
        else "No example of this domain is at hand. These are of other domains; they show the form, not the content:"
    )
    return "\n".join([head, *lines])


def listed(prompts: Sequence[str], *, order: Callable[[str], str]) -> str:
    """A bounded list of what was written so far, the first by `order`."""
    if not prompts:
        return ""
    some = sorted(prompts, key=order)[:_LISTED]
    lines = [f"- {_cut(' '.join(prompt.split()), _LISTED_CHARS)}" for prompt in some]
    return "\n".join(["Written so far (write nothing like these):", *lines])


def _line(one: Demonstration, *, domain: str) -> str:
    body = {"prompt": _cut(one.prompt, _LONGEST)}
    if one.reference is not None:
        body["answer"] = one.reference
    line = json.dumps(body, ensure_ascii=False)
    return line if one.domain == domain else f'[domain "{one.domain}"] {line}'


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
