"""How many rows every domain gets in every stage. Sees counts, never text.

Sources: BalDistill (Zhou et al., Findings of EMNLP 2024), section 3.1, for `natural`, `uniform` ("naive balancing")
and `adaptive`; its released code for `adaptive_release`. `temperature` is the smoothing of multilingual training.

Shares are exact fractions and quotas are integers that sum to exactly the stage's budget: largest remainder, ties
by domain name. What a domain gained or lost by rounding is carried to its next stage, so that many small stages
drift from the ideal by less than one row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction

import polars as pl

from balkit import frames
from balkit.errors import BudgetError
from balkit.recipe import Balance

Shares = dict[str, Fraction]


def stage_budget(budget_rows: int, *, stage: int, stages: int) -> int:
    """Rows that stage `stage` (from 1) of `stages` adds: floor(iB/K) - floor((i-1)B/K)."""
    return stage * budget_rows // stages - (stage - 1) * budget_rows // stages


def shares(counts: Mapping[str, int], *, policy: Balance, stage: int, stages: int) -> Shares:
    """Each domain's share of a stage; the shares sum to exactly 1.

    `counts` are the real training examples of each domain, counted once at the run's base version.
    Raises `BudgetError` when there is no domain, or no real example for a policy that goes by their number.
    """
    if not counts:
        raise BudgetError("the pool has no domain to balance: add examples first (`balkit add`)")
    return _POLICIES[policy.policy](counts, policy, Fraction(stage, stages), Fraction(stage - 1, stages))


def schedule(counts: Mapping[str, int], *, budget_rows: int, stages: int, policy: Balance) -> pl.DataFrame:
    """Quotas of all stages: `stage, domain, quota`, sorted; a stage's quotas sum to its budget.

    Raises `BudgetError` when the budget has not one row for every domain.
    """
    if budget_rows < len(counts):
        raise BudgetError(
            f"budget_rows {budget_rows} is smaller than the number of domains {len(counts)}, so some domain would get "
            f"nothing: raise budget_rows to at least {len(counts)}, or leave rare domains out of the pool"
        )
    rows = []
    owed = dict.fromkeys(counts, Fraction(0))
    for stage in range(1, stages + 1):
        budget = stage_budget(budget_rows, stage=stage, stages=stages)
        share = shares(counts, policy=policy, stage=stage, stages=stages)
        ideal = {domain: budget * share[domain] + owed[domain] for domain in counts}
        given = apportion(ideal, total=budget)
        owed = {domain: ideal[domain] - given[domain] for domain in counts}
        rows += [{"stage": stage, "domain": domain, "quota": given[domain]} for domain in sorted(counts)]
    return pl.DataFrame(rows, schema={"stage": pl.Int64, "domain": pl.String, "quota": pl.Int64})


def apportion(weights: Mapping[str, Fraction], *, total: int) -> dict[str, int]:
    """Integers proportional to the weights that sum to `total`: largest remainder, ties by name.

    Weights below zero count as zero. All-zero weights share equally.
    """
    if not weights:
        raise BudgetError(f"nothing to share {total} rows among")
    positive = {name: max(weight, Fraction(0)) for name, weight in weights.items()}
    whole = sum(positive.values())
    ideal = {name: total * (w / whole if whole else Fraction(1, len(weights))) for name, w in positive.items()}
    given = {name: int(value) for name, value in ideal.items()}
    by_remainder = sorted(ideal, key=lambda name: (given[name] - ideal[name], name))
    for name in by_remainder[: total - sum(given.values())]:
        given[name] += 1
    return given


def redistribute(lacking: int, *, share: Shares, room: Mapping[str, int]) -> dict[str, int]:
    """Rows that other domains take over, by the same policy's shares and never more than a domain's `room`.

    Sums to `lacking`, or to all the room there is. Domains without room are left out.
    """
    given = dict.fromkeys(room, 0)
    left = lacking
    while left:
        open_ = {domain: share.get(domain, Fraction(0)) for domain in room if given[domain] < room[domain]}
        if not open_:
            break
        for domain, rows in apportion(open_, total=left).items():
            rows = min(rows, room[domain] - given[domain])
            given[domain] += rows
            left -= rows
    return {domain: rows for domain, rows in given.items() if rows}


def fill_quotas(
    quotas: Mapping[str, int], *, stage: int, unused: Mapping[str, int], repeatable: Iterable[str], fill: Iterable[str]
) -> pl.DataFrame:
    """A QUOTAS frame: what each domain takes, has written and repeats, if nothing is rejected.

    `unused` counts the real examples not yet drawn; `repeatable` names domains that have a row to repeat. A domain
    is tail when its quota exceeds its unused real examples.
    """
    order, can_repeat = list(fill), set(repeatable)
    rows = []
    for domain, quota in sorted(quotas.items()):
        left = quota
        parts = {"real": 0, "synthetic": 0, "repeat": 0}
        for way in order:
            room = {"real": unused.get(domain, 0), "synthetic": left, "repeat": left}[way]
            if way == "repeat" and domain not in can_repeat and not parts["real"] + parts["synthetic"]:
                room = 0
            parts[way] = min(left, room)
            left -= parts[way]
        rows.append(
            {
                "stage": stage,
                "domain": domain,
                "quota": quota,
                "take": parts["real"],
                "make": parts["synthetic"],
                "repeat": parts["repeat"],
                "short": left,
                "tail": quota > unused.get(domain, 0),
            }
        )
    return frames.QUOTAS.of(rows)


def _natural(counts: Mapping[str, int], _policy: Balance, _now: Fraction, _before: Fraction) -> Shares:
    return _powers(counts, lambda n: Fraction(n))


def _uniform(counts: Mapping[str, int], _policy: Balance, _now: Fraction, _before: Fraction) -> Shares:
    return dict.fromkeys(counts, Fraction(1, len(counts)))


def _adaptive(counts: Mapping[str, int], policy: Balance, now: Fraction, before: Fraction) -> Shares:
    # The paper: n_d/N * (K-i)/K + 1/l * i/K, i from 1, so that the last stage is fully balanced.
    return _mix(_natural(counts, policy, now, before), _uniform(counts, policy, now, before), balanced=now)


def _adaptive_release(counts: Mapping[str, int], policy: Balance, now: Fraction, before: Fraction) -> Shares:
    # The released code counts i from 0, so that its last stage is only (K-1)/K balanced.
    return _mix(_natural(counts, policy, now, before), _uniform(counts, policy, now, before), balanced=before)


def _temperature(counts: Mapping[str, int], policy: Balance, _now: Fraction, _before: Fraction) -> Shares:
    return _powers(counts, lambda n: Fraction(float(n) ** policy.exponent) if n else Fraction(0))


def _powers(counts: Mapping[str, int], weight: Callable[[int], Fraction]) -> Shares:
    weights = {domain: weight(n) for domain, n in counts.items()}
    whole = sum(weights.values())
    if not whole:
        raise BudgetError("no domain has a real training example: only `uniform` can share rows among empty domains")
    return {domain: w / whole for domain, w in weights.items()}


def _mix(natural: Shares, uniform: Shares, *, balanced: Fraction) -> Shares:
    return {domain: (1 - balanced) * natural[domain] + balanced * uniform[domain] for domain in natural}


_POLICIES: dict[str, Callable[[Mapping[str, int], Balance, Fraction, Fraction], Shares]] = {
    "natural": _natural,
    "uniform": _uniform,
    "adaptive": _adaptive,
    "adaptive_release": _adaptive_release,
    "temperature": _temperature,
}
