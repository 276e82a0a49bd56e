"""Attributes that vary from call to call, so that what is written differs: a balanced design."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from balkit import texts


def drawn(attributes: Mapping[str, Sequence[str]], *, domain: str, sample: int, seed: int) -> dict[str, str]:
    """The value of each attribute for one call of a domain.

    Every combination has its turn in as many calls as there are combinations, and within that each value of an
    attribute about equally often in any stretch of calls: the place of a value is its digit of `sample` in mixed radix
    plus the digits of the attributes before it. Seed and domain decide the order of the values.
    """
    found, rest, before = {}, sample, 0
    for name, values in attributes.items():
        rest, digit = divmod(rest, len(values))
        ordered = sorted(values, key=lambda value: texts.rank_key(seed, domain, name, value))
        found[name] = ordered[(digit + before) % len(values)]
        before += digit
    return found


def told(drawn: Mapping[str, str]) -> str:
    """The attributes as a line of the request; "" where there are none."""
    if not drawn:
        return ""
    return f"All examples of this call have these attributes: {'; '.join(f'{k}: {v}' for k, v in drawn.items())}."
