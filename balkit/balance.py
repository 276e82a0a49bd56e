"""How many rows every domain gets in every stage. Sees counts, never text.

Sources: BalDistill (Zhou et al., Findings of EMNLP 2024), section 3.1, for `natural`, `uniform` ("naive balancing")
and `adaptive`; its released code for `adaptive_release`. `temperature` is the smoothing of multilingual training;
`effective_number` follows Cui et al. (CVPR 2019); `weights` are the user's; `feedback` is ours (`_moved`).

Shares are exact fractions and quotas are integers that sum to exactly the stage's budget: largest remainder, ties
by domain name. What a domain gained or lost by rounding is carried to its next stage, so that many small stages
drift from the ideal by less than one row.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction

import polars as pl

from balkit import frames
from balkit.errors import BudgetError
from balkit.recipe import Balance

Shares = dict[str, Fraction]


@dataclass(frozen=True)
class Measured:
    """How many of a domain's dev rows a student answered, and how many of them right."""

    correct: int
    rows: int


#: By domain.
Accuracies = Mapping[str, Measured]


def stage_budget(budget_rows: int, *, stage: int, stages: int) -> int:
    """Rows that stage `stage` (from 1) of `stages` adds: floor(iB/K) - floor((i-1)B/K)."""
    return stage * budget_rows // stages - (stage - 1) * budget_rows // stages


def shares(
    counts: Mapping[str, int], *, policy: Balance, stage: int, stages: int, measured: Accuracies | None = None
) -> Shares:
    """Each domain's share of a stage; the shares sum to exactly 1.

    `counts` are the real training examples of each domain, counted once at the run's base version. `measured` is how
    the student of the stage before did on dev; of all policies `feedback` alone looks at it, and is `adaptive` without.
    Raises `BudgetError` when there is no domain, no real example for a policy that goes by their number, or a weight
    for a domain that is not there.
    """
    if not counts:
        raise BudgetError("the pool has no domain to balance: add examples first (`balkit add`)")
    share = _POLICIES[policy.policy](counts, policy, Fraction(stage, stages), Fraction(stage - 1, stages))
    return _moved(share, measured, policy=policy) if policy.policy == "feedback" and measured else share


def schedule(
    counts: Mapping[str, int],
    *,
    budget_rows: int,
    stages: int,
    policy: Balance,
    measured: Mapping[int, Accuracies] | None = None,
) -> pl.DataFrame:
    """Quotas of all stages: `stage, domain, quota`, sorted; a stage's quotas sum to its budget.

    `measured` has, by stage, how that stage's student did on dev, as far as it is known; see `shares`.
    Raises `BudgetError` when the budget has not one row for every domain whose weight is not zero.
    """
    asked = len(counts) - list(policy.weights.values()).count(0) * (policy.policy == "weights")
    if budget_rows < asked:
        raise BudgetError(
            f"budget_rows {budget_rows} is smaller than the number of domains {asked}, so some domain would get "
            f"nothing: raise budget_rows to at least {asked}, or leave rare domains out of the pool"
        )
    rows = []
    owed = dict.fromkeys(counts, Fraction(0))
    for stage in range(1, stages + 1):
        budget = stage_budget(budget_rows, stage=stage, stages=stages)
        seen = (measured or {}).get(stage - 1)
        share = shares(counts, policy=policy, stage=stage, stages=stages, measured=seen)
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

    Sums to `lacking`, or to all the room of domains that have a share. Domains that get nothing are left out.
    """
    given = dict.fromkeys(room, 0)
    left = lacking
    while left:
        open_ = {domain: share[domain] for domain in room if given[domain] < room[domain] and share.get(domain, 0) > 0}
        if not open_:
            break
        for domain, rows in apportion(open_, total=left).items():
            rows = min(rows, room[domain] - given[domain])
            given[domain] += rows
            left -= rows
    return {domain: rows for domain, rows in given.items() if rows}


def fill_quotas(
    quotas: Mapping[str, int],
    *,
    stage: int,
    unused: Mapping[str, int],
    repeatable: Iterable[str],
    fill: Iterable[str],
    written_share: float = 0.0,
) -> pl.DataFrame:
    """A QUOTAS frame: what each domain takes, has written and repeats, if nothing is rejected.

    `unused` counts the rows that real examples not yet drawn can give; `repeatable` names domains that have a row to
    repeat; `written_share` of each quota is written first (`written_first`). A domain is tail when its quota exceeds
    its unused real examples' rows.
    """
    order, can_repeat = list(fill), set(repeatable)
    rows = []
    for domain, quota in sorted(quotas.items()):
        parts = {"real": 0, "synthetic": written_first(quota, share=written_share) if "synthetic" in order else 0}
        parts["repeat"], left = 0, quota - parts["synthetic"]
        for way in order:
            room = {"real": unused.get(domain, 0), "synthetic": left, "repeat": left}[way]
            if way == "repeat" and domain not in can_repeat and not parts["real"] + parts["synthetic"]:
                room = 0
            parts[way] += min(left, room)
            left -= min(left, room)
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


def written_first(quota: int, *, share: float) -> int:
    """Rows of a quota that are written though real examples may be left: the share, rounded down."""
    return int(quota * Fraction(str(share)))


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


def _effective_number(counts: Mapping[str, int], policy: Balance, _now: Fraction, _before: Fraction) -> Shares:
    # Class-balanced weights, Cui et al. 2019: a row counts 1 / E_n, E_n = (1 - beta^n) / (1 - beta), so n rows n / E_n.
    def weight(n: int) -> Fraction:
        with localcontext() as context:  # decimals, since a float's power differs from one C library to the next
            context.prec, beta = 50, Decimal(str(policy.beta))
            return Fraction(n * (1 - beta) / (1 - beta**n)) if n else Fraction(0)

    return _powers(counts, weight)


def _weights(counts: Mapping[str, int], policy: Balance, _now: Fraction, _before: Fraction) -> Shares:
    unknown = sorted(policy.weights.keys() - counts.keys())
    if unknown:
        close = difflib.get_close_matches(unknown[0], counts, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(sorted(counts))}"
        raise BudgetError(f"balance.weights: {unknown[0]!r} is no domain of the pool; {hint}")
    weights = {domain: Fraction(str(policy.weights.get(domain, 1))) for domain in counts}
    whole = sum(weights.values())
    if not whole:
        raise BudgetError("balance.weights gives every domain of the pool 0: no domain is left to take rows from")
    return {domain: weight / whole for domain, weight in weights.items()}


def _moved(share: Shares, measured: Accuracies, *, policy: Balance) -> Shares:
    """Shares with all but their `floor` moved in proportion to share x error of the student on dev.

    A domain's error is (wrong + s * mean) / (rows + s), where mean is the error over all dev rows and s `shrinkage`:
    few rows say little, and none the mean. With one more wrong answer a domain's share never falls.
    """
    known = [measured[domain] for domain in share if domain in measured]
    rows = sum(one.rows for one in known)
    wrong = rows - sum(one.correct for one in known)
    if not wrong:
        return share
    none, mean, floor = Measured(0, 0), Fraction(wrong, rows), Fraction(str(policy.floor))
    due = {}
    for domain, part in share.items():
        one = measured.get(domain, none)
        due[domain] = part * (one.rows - one.correct + policy.shrinkage * mean) / (one.rows + policy.shrinkage)
    whole = sum(due.values())
    return {domain: floor * part + (1 - floor) * due[domain] / whole for domain, part in share.items()}


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
    "effective_number": _effective_number,
    "weights": _weights,
    "feedback": _adaptive,  # before a student was measured
}
