"""How many teacher calls missing rows need: for the plan, and as a domain's sub-budget."""

from __future__ import annotations

import math
from dataclasses import dataclass

from balkit.recipe import Synthesis

#: Share of written examples that pass all checks, assumed before a run has its own: the release of BalDistill kept
#: 1,244 of 1,567 written MATH rows (79 %), and 43 of those are duplicates.
EXPECTED_YIELD = 0.75


@dataclass(frozen=True)
class Calls:
    """Teacher calls: when all goes well, when it goes as expected, and at the very most."""

    low: int
    expected: int
    high: int


def examples_for(rows: int, *, per_example: int) -> int:
    """Examples that bring so many rows, where each gives `per_example`; the last one may give fewer."""
    return -(-rows // per_example)


def sub_budget(missing: int, *, section: Synthesis) -> int:
    """Synthesis calls a domain may use for its missing rows: ceil(missing x calls_per_row / per_call), at least 1."""
    return max(1, math.ceil(missing * section.calls_per_row / section.per_call)) if missing > 0 else 0


def expected_calls(missing: int, *, section: Synthesis) -> Calls:
    """Synthesis calls that write the missing rows of one domain; the calls that answer them are not counted here."""
    high = sub_budget(missing, section=section)
    low = math.ceil(missing / section.per_call)
    return Calls(min(low, high), min(math.ceil(missing / section.per_call / EXPECTED_YIELD), high), high)
