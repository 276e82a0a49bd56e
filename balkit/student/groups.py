"""Groups of domains that accuracies are given for: head and tail by quota; many, middle and few by train examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

#: A domain with more train examples than `MANY` is many-shot, with fewer than `FEW` few-shot, else in the middle
#: (many-, medium- and few-shot of Liu et al., Large-Scale Long-Tailed Recognition in an Open World, CVPR 2019).
MANY, FEW = 100, 20


def shot(examples: int) -> str:
    """many, middle or few: what a domain with so many train examples is."""
    return "many" if examples > MANY else "few" if examples < FEW else "middle"


def groups(domains: Iterable[str], *, head: Set[str], counts: Mapping[str, int] | None) -> dict[str, frozenset[str]]:
    """The domains of `head` and `tail`, and with `counts` (train examples by domain) of `many`, `middle` and `few`."""
    every = frozenset(domains)
    found = {"head": every & head, "tail": every - head}
    if counts is not None:
        for name in ("many", "middle", "few"):
            found[name] = frozenset(domain for domain in every if shot(counts.get(domain, 0)) == name)
    return found
