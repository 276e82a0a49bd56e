"""The figures of docs/balance.md, made again from the real data: `python tests/test_balance_page.py` prints them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import real_input as real

from balkit import balance
from balkit.balance import Measured
from balkit.recipe import Balance

PAGE = Path(__file__).resolve().parent.parent / "docs" / "balance.md"
BUDGET, STAGES = 2600, 5
POLICIES = (
    "natural",
    "adaptive_release",
    "adaptive",
    "feedback",
    "temperature",
    "effective_number",
    "weights",
    "uniform",
)
#: Places of the domains shown, the largest first.
SHOWN = (0, 1, 2, 4, 9, 14, 24, 34, 44, 51)


def lines() -> Iterator[str]:
    """The rows of the table."""
    file = real.DATA / "long_tail_kd" / "r52" / "r52_count_100.jsonl"
    counts = Counter(json.loads(line)["label"] for line in file.read_text(encoding="utf-8").splitlines())
    order = sorted(counts, key=lambda domain: (-counts[domain], domain))
    seen = {domain: Measured(8 if domain in order[:10] else 2, 10) for domain in order}
    quotas = []
    for policy in POLICIES:
        plan = balance.schedule(
            counts,
            budget_rows=BUDGET,
            stages=STAGES,
            policy=Balance(policy=policy, weights={"earn": 10, "acq": 5}),  # type: ignore[arg-type]
            measured=dict.fromkeys(range(1, STAGES), seen),
        )
        quotas.append(dict(plan.group_by("domain").agg(pl.col("quota").sum()).iter_rows()))
    for domain in (order[place] for place in SHOWN):
        yield " | ".join([f"| {domain}", f"{counts[domain]:,}", *(f"{quota[domain]:,}" for quota in quotas)]) + " |"
    written = [sum(max(0, quota[domain] - counts[domain]) for domain in order) for quota in quotas]
    yield " | ".join(["| written", "", *(f"{rows:,}" for rows in written)]) + " |"


def test_the_table_of_quotas_is_what_the_policies_give() -> None:
    if not (real.DATA / "long_tail_kd").is_dir():
        pytest.skip(f"the real data is not here: BALKIT_REAL_DATA={real.DATA} holds no long_tail_kd")
    page = PAGE.read_text(encoding="utf-8")
    assert "\n".join(lines()) in page


if __name__ == "__main__":
    print(*lines(), sep="\n")
