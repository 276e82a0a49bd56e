"""How far one domain is whose rows are missing: what it is asked for next, and why it ends."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

from balkit import texts
from balkit.recipe import Synthesis
from balkit.synthesize.candidates import Row
from balkit.synthesize.effort import BARREN_CALLS, Yield, sub_budget

#: Rounds in which no reply of a domain could be read, until it is given up: the first, and one asked again.
_UNREADABLE = 2


@dataclass
class Lacking:
    """One domain. `before` is what the run had from it earlier."""

    name: str
    missing: int  # rows
    calls_left: int
    before: Yield
    uncounted: list[str] = field(default_factory=list)  # prompts that no cluster of the real examples is covered by yet
    calls_made: int = 0
    rows_asked: int = 0
    queue: list[Row] = field(default_factory=list)  # checked, not answered yet
    kept: list[Row] = field(default_factory=list)
    good: int = 0  # rows asked for here that passed, less those, of earlier ones too, that were refused afterwards
    unreadable: int = 0  # rounds in a row in which no reply could be read
    gave_up: bool = False  # for its replies, each of which says why
    last_key: str = ""

    @classmethod
    def of(cls, name: str, missing: int, *, section: Synthesis, before: Yield) -> Lacking:
        return cls(name, missing, sub_budget(missing, section=section, made=before.calls), before)

    @property
    def tally(self) -> Yield:
        """What this invocation had from it."""
        return Yield(self.calls_made, self.rows_asked, self.good)

    @property
    def ever(self) -> Yield:
        """What the run had from it."""
        return self.before + self.tally

    def wait(self, row: Row) -> None:
        """A row that has passed the checks stands in line to be answered."""
        self.queue.append(row)
        self.uncounted.append(row.example.prompt)

    def passed(self, row: Row) -> None:
        """A row of this invocation has passed the checks; those of earlier ones are counted in `before`."""
        self.wait(row)
        self.good += 1

    def take(self) -> list[Row]:
        """The rows to have answered now: no more than are lacking."""
        lacking = self.missing - len(self.kept)
        taken, self.queue = self.queue[:lacking], self.queue[lacking:]
        return taken

    def next_calls(self, *, per_call: int, every: Yield) -> int:
        """Calls of the next round: what is lacking over the share of rows that is kept, as far as calls are left.

        Till a row has passed, no more than up to the number at which the domain is barren.
        """
        lacking, ever = self.missing - len(self.kept), self.ever
        calls = min(math.ceil(lacking / (per_call * ever.kept_fraction(every, expected=1.0))), self.calls_left)
        return max(0, calls if ever.kept > 0 else min(calls, BARREN_CALLS - ever.calls))

    def ask(self, *, per_call: int) -> None:
        """Notes a call."""
        self.calls_made, self.calls_left, self.rows_asked = (
            self.calls_made + 1,
            self.calls_left - 1,
            self.rows_asked + per_call,
        )

    def note_round(self, *, was_read: bool) -> None:
        """A domain whose replies could not be read is asked once more (by the next ordinals), then no more."""
        self.unreadable = 0 if was_read else self.unreadable + 1
        if self.unreadable >= _UNREADABLE:
            self.give_up()

    def give_up(self) -> None:
        self.calls_left, self.gave_up = 0, True

    def ended(self, *, section: Synthesis, stage: int) -> dict[str, object] | None:
        """A row of DECISIONS that says why a domain got fewer rows than were missing, where no reply says so.

        It stands under the domain's last call, or a digest of stage and domain where none was made.
        """
        lacking, ever, cap = self.missing - len(self.kept), self.ever, section.max_calls_per_domain
        if lacking <= 0 or self.gave_up:
            return None
        capped = cap is not None and ever.calls >= cap
        reason = "no_yield" if ever.is_barren else "calls_capped" if capped else "calls_used_up"
        told = {"missing": lacking, "calls": ever.calls, "rows_asked": ever.written, "passed": ever.kept}
        return {
            "example_id": self.last_key or texts.digest(["ended", stage, self.name]),
            "domain": self.name,
            "step": "synthesis",
            "method": "budget",
            "kept": False,
            "reason": reason,
            "detail": json.dumps(told),
        }
