"""Amounts, and the caps they may not pass. Pure arithmetic in integers; nothing is stored here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from balkit.errors import CapReached
from balkit.recipe import Caps, Limits
from balkit.teacher.prices import Rate
from balkit.teacher.protocol import Request

#: Tokens that a provider may add to the texts we send: role markers, a default system prompt, a schema's wrapping.
PER_REQUEST_TOKENS = 256
PER_MESSAGE_TOKENS = 16
PER_SCHEMA_TOKENS = 256


@dataclass(frozen=True)
class Amount:
    """What calls use up: calls, tokens (input and output together) and micro-dollars."""

    calls: int = 0
    tokens: int = 0
    cost_microusd: int = 0

    def plus(self, other: Amount) -> Amount:
        """The sum of both."""
        return Amount(self.calls + other.calls, self.tokens + other.tokens, self.cost_microusd + other.cost_microusd)

    def minus(self, other: Amount) -> Amount:
        """This less the other; parts may be negative."""
        return Amount(self.calls - other.calls, self.tokens - other.tokens, self.cost_microusd - other.cost_microusd)


@dataclass(frozen=True)
class Spent(Amount):
    """What a run has been charged: settled calls, and the reservation of those whose outcome is open or unknown."""

    by_stage: Mapping[int, Amount] = field(default_factory=dict)
    by_domain: Mapping[str, Amount] = field(default_factory=dict)


class Totals:
    """The running sums of one run, kept in step with the ledger."""

    def __init__(self) -> None:
        self.run = Amount()
        self.stages: dict[int, Amount] = {}
        self.domains: dict[str, Amount] = {}

    def add(self, amount: Amount, *, stage: int, domain: str) -> None:
        """Charge an amount (or release it, where it is negative)."""
        self.run = self.run.plus(amount)
        self.stages[stage] = self.stages.get(stage, Amount()).plus(amount)
        self.domains[domain] = self.domains.get(domain, Amount()).plus(amount)

    def spent(self) -> Spent:
        """The sums as they are now."""
        run = self.run
        return Spent(run.calls, run.tokens, run.cost_microusd, dict(self.stages), dict(self.domains))


def worst_case(request: Request, rate: Rate) -> Amount:
    """The most that one attempt can use up.

    Input: the UTF-8 bytes of the messages and the schema (no tokenizer makes more tokens than bytes), and what a
    provider adds around them. Output: `max_tokens`, which is always sent and covers reasoning tokens.
    """
    tokens = PER_REQUEST_TOKENS
    tokens += sum(PER_MESSAGE_TOKENS + _bytes(role) + _bytes(text) for role, text in request.messages)
    if request.schema is not None:
        tokens += PER_SCHEMA_TOKENS + _bytes(request.schema)
    return Amount(1, tokens + request.max_tokens, rate.cost_microusd(tokens, request.max_tokens))


def estimated_tokens(text: str) -> int:
    """An estimate for teachers that report no usage: four bytes a token, rounded up."""
    return -(-_bytes(text) // 4)


def estimated_usage(request: Request) -> int:
    """Tokens of a request as rate limits count them: the prompt, estimated, and all that it may write."""
    return sum(estimated_tokens(text) for _, text in request.messages) + request.max_tokens


def reached(caps: Caps, totals: Totals, *, request: Request, need: Amount) -> CapReached | None:
    """The error for the first cap that charging `need` would pass; None where all of them hold."""
    for who, recipe_key, limits, used in _scopes(caps, totals, request=request):
        for unit, limit, spent, more in _units(limits, used, need=need):
            if spent + more > limit:
                return _error(f"{who}.{unit}", f"{recipe_key}.{unit}", amounts=(limit, spent, more))
    return None


def _scopes(caps: Caps, totals: Totals, *, request: Request) -> Iterator[tuple[str, str, Limits, Amount]]:
    stage, domain = totals.stages.get(request.stage), totals.domains.get(request.domain)
    yield "run", "caps", caps, totals.run
    yield f"stage {request.stage}", "caps.per_stage", caps.per_stage, stage or Amount()
    yield f"domain {request.domain}", "caps.per_domain", caps.per_domain, domain or Amount()


def _units(limits: Limits, used: Amount, *, need: Amount) -> Iterator[tuple[str, int, int, int]]:
    if limits.calls is not None:
        yield "calls", limits.calls, used.calls, need.calls
    if limits.tokens is not None:
        yield "tokens", limits.tokens, used.tokens, need.tokens
    if limits.usd is not None:
        yield "usd", int(Decimal(str(limits.usd)) * 1_000_000), used.cost_microusd, need.cost_microusd


def _error(cap: str, recipe_key: str, *, amounts: tuple[int, int, int]) -> CapReached:
    limit, spent, more = (value / 1e6 if cap.endswith(".usd") else value for value in amounts)
    return CapReached(
        f"the cap {cap} is {limit:,.10g}; {spent:,.10g} are spent and the next call could use up to {more:,.10g} more. "
        f"Raise {recipe_key} in the recipe; the same command continues, and what was paid for is kept",
        cap=cap,
        limit=limit,
        spent=spent,
    )


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
