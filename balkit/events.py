"""What a run says of itself while it goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Calls:
    """Where a step stands with its teachers: requests and tokens of the step, US dollars of the whole run."""

    done: int  # answered now or from the ledger, the failed among them
    cached: int  # answered from the ledger
    to_buy: int  # still to come as planned; an estimate, since refused rows bring further calls
    failed: int
    tokens: int  # read and written in replies that were bought now
    usd: float  # charged so far
    usd_projected: float | None = None  # at the run's end; None where no price is known, or nothing was planned
    usd_cap: float | None = None
    paused_s: float = 0.0  # how long a rate limit lasts from now


@dataclass(frozen=True)
class Fill:
    """How full the quotas of a run's stages up to the present one are, in rows by domain.

    `tail` names the domains whose real examples cannot meet their quotas; all others are head.
    """

    due: Mapping[str, int]
    rows: Mapping[str, int]  # checked and in; a domain that took over another's rows has more than are due
    answered: Mapping[str, int] = field(default_factory=dict)  # worked answers that came and are not checked yet
    tail: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Event:
    """What a run is doing now. `done` of `total` counts calls, training steps or rows; 0 of 0 is a step's start.

    `stages` is 0 for a step that is done alone. `part` says where in something larger the run stands (`cell 3 of 12`).
    """

    stage: int
    stages: int
    step: str  # prepare | dev | data | train | evaluate dev | score | evaluate | done
    text: str = ""
    done: int = 0
    total: int = 0
    calls: Calls | None = None
    fill: Fill | None = None
    run_id: str = ""
    name: str = ""  # the recipe's
    part: str = ""


Notify = Callable[[Event], None]
