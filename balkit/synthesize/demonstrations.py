"""Which real examples a synthesis call shows, and how they and what was written so far are shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from balkit import selection, texts
from balkit.selection.strata import clusters

Encode = Callable[[Sequence[str]], NDArray[np.float32]]

_CANDIDATES = 256  # of a domain's examples that its demonstrations are drawn from
_LONGEST = 2000  # characters of a demonstration's prompt that are shown
_CLUSTERS = 32  # of them, at most
_LISTED = 6  # texts written so far that are listed for being the last ones, and as many for being near
_LISTED_CHARS = 120  # of each


@dataclass(frozen=True)
class Demonstration:
    """A real example as it is shown."""

    example_id: str
    prompt: str
    reference: str | None
    domain: str


@dataclass
class _Clusters:
    """Which cluster each candidate is in, and how many texts cover each cluster."""

    vectors: NDArray[np.float32]  # (n, d) on the grid
    cluster: NDArray[np.int64]  # (n,)
    covered: NDArray[np.int64]  # (k,)

    @classmethod
    def of(cls, vectors: NDArray[np.float32], *, k: int) -> _Clusters:
        cluster = clusters(vectors, k=k)
        return cls(vectors, cluster, np.zeros(int(cluster.max()) + 1, np.int64))

    def cover(self, vectors: NDArray[np.float32]) -> None:
        """A text falls into the cluster of the candidate that is nearest to it."""
        nearest = (vectors @ self.vectors.T).argmax(axis=1)
        np.add.at(self.covered, self.cluster[nearest], 1)

    def draw(self, order: Sequence[int], *, count: int) -> list[int]:
        """Places of `count` candidates; each draw covers the clusters that it shows by one text."""
        chosen: list[int] = []
        closest = np.full(len(self.cluster), -np.inf, np.float32)  # to those chosen
        used = set[int]()
        while len(chosen) < count:
            free = [at for at in order if at not in chosen and self.cluster[at] not in used]
            if not free:
                used.clear()
                continue
            least = min(self.covered[self.cluster[at]] for at in free)
            equal = [at for at in free if self.covered[self.cluster[at]] == least]
            half = equal[: max(len(equal) // 2, min(len(equal), 4 * count))]
            chosen.append(min(half, key=lambda at: closest[at]))  # the first of equals, and so of none chosen
            closest = np.maximum(closest, self.vectors @ self.vectors[chosen[-1]])
            used.add(int(self.cluster[chosen[-1]]))
        np.add.at(self.covered, self.cluster[chosen], 1)
        return chosen


@dataclass
class Shelf:
    """The real examples by domain, with their clusters, made once for each domain that is asked for.

    Of a domain 256 candidates count. With vectors they fall into spherical k-means clusters, a quarter as many as
    candidates and 32 at most.
    """

    by_domain: dict[str, list[Demonstration]]
    count: int  # shown in a call
    seed: int
    encode: Encode | None = None
    _clusters: dict[str, _Clusters] = field(default_factory=dict)
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

    def cover(self, domain: str, prompts: Sequence[str]) -> None:
        """Counts these texts for the clusters that they fall into, so that others come first from now on."""
        clusters = self._in_clusters(domain)
        if clusters is not None and prompts and self.encode is not None:
            clusters.cover(selection.on_grid(self.encode(prompts), name="rows so far"))

    def draw(self, domain: str, *, sample: int) -> list[Demonstration]:
        """`count` different examples of the domain (all, where it has no more), others at every sample.

        With vectors: one each from the clusters that the fewest texts cover (`cover`, and earlier draws), and among
        equals farthest-first in a random half, so that a call's examples differ from one another. A domain without any
        borrows one each from other domains.
        """
        candidates = self._of(domain)
        if not candidates:
            return self._borrowed(domain, sample=sample)
        order = sorted(
            range(len(candidates)),
            key=lambda at: texts.rank_key(self.seed, domain, sample, candidates[at].example_id),
        )
        clusters = self._in_clusters(domain)
        picks = order[: self.count] if clusters is None else clusters.draw(order, count=self.count)
        return [candidates[at] for at in picks]

    def near(self, prompts: Sequence[str], *, to: Sequence[Demonstration]) -> list[int]:
        """The places of `prompts`, those nearest to any of the demonstrations first; in their order without vectors."""
        if self.encode is None or not prompts or not to:
            return list(range(len(prompts)))
        shown, written = (
            selection.on_grid(self.encode(some), name="prompts") for some in ([one.prompt for one in to], prompts)
        )
        closest = (written @ shown.T).max(axis=1)
        return sorted(range(len(prompts)), key=lambda at: (-closest[at], at))

    def _of(self, domain: str) -> list[Demonstration]:
        if domain not in self._candidates:
            found = self.by_domain.get(domain, [])
            ranked = sorted(found, key=lambda one: texts.rank_key(self.seed, domain, one.example_id))
            self._candidates[domain] = ranked[:_CANDIDATES]
        return self._candidates[domain]

    def _in_clusters(self, domain: str) -> _Clusters | None:
        """None without vectors, and where a call shows all that there is."""
        candidates = self._of(domain)
        if self.encode is None or len(candidates) <= self.count:
            return None
        if domain not in self._clusters:
            encoded = self.encode([one.prompt for one in candidates])
            vectors = selection.on_grid(encoded, name="demonstrations")  # ties decide a request's key
            k = min(_CLUSTERS, max(self.count, len(candidates) // 4))
            self._clusters[domain] = _Clusters.of(vectors, k=k)
        return self._clusters[domain]

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


def listed(prompts: Sequence[str], *, near: Callable[[Sequence[str]], Sequence[int]]) -> str:
    """A bounded list of what was written so far, the oldest first: the most recent six, and of the others six.

    `near` gives the places of those that come first.
    """
    if not prompts:
        return ""
    older, recent = list(prompts[:-_LISTED]), list(range(max(0, len(prompts) - _LISTED), len(prompts)))
    some = sorted([*near(older)[:_LISTED], *recent])
    lines = [f"- {_cut(' '.join(prompts[at].split()), _LISTED_CHARS)}" for at in some]
    return "\n".join(["Written so far (write nothing like these):", *lines])


def _line(one: Demonstration, *, domain: str) -> str:
    body = {"prompt": _cut(one.prompt, _LONGEST)}
    if one.reference is not None:
        body["answer"] = one.reference
    line = json.dumps(body, ensure_ascii=False)
    return line if one.domain == domain else f'[domain "{one.domain}"] {line}'


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
