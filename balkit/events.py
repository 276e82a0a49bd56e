"""What a run says of itself while it goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


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
class Event:
    """What a run is doing now. `done` of `total` counts calls, training steps or rows; 0 of 0 is a step's start.

    `stages` is 0 for a step that is done alone.
    """

    stage: int
    stages: int
    step: str  # prepare | dev | data | train | evaluate dev | score | evaluate | done
    text: str = ""
    done: int = 0
    total: int = 0
    calls: Calls | None = None


Notify = Callable[[Event], None]
