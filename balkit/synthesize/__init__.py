"""What the teacher is asked to write: worked answers for examples, and new examples for tail domains.

Both go in rounds; a round's requests are a pure function of earlier rounds' replies sorted by id, so that a resumed
run asks for the same keys and results do not depend on the order in which replies come in.
"""

from balkit.synthesize.asking import Ask, Channel, Line, rationales
from balkit.synthesize.effort import (
    Calls,
    Yield,
    by_domain,
    examples_for,
    expected_calls,
    no_yields,
    sub_budget,
    yields,
)
from balkit.synthesize.writing import Sources, Written, write_examples

__all__ = [
    "Ask",
    "Calls",
    "Channel",
    "Line",
    "Sources",
    "Written",
    "Yield",
    "by_domain",
    "examples_for",
    "expected_calls",
    "no_yields",
    "rationales",
    "sub_budget",
    "write_examples",
    "yields",
]
