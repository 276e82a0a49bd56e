"""Where a run's calls and money will end, by its plan and by what its calls have cost so far, and how full it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import polars as pl

from balkit.events import Calls, Fill
from balkit.planning import Plan
from balkit.synthesize import Channel
from balkit.synthesize.asking import Ask
from balkit.teacher import Progress, Reply, Request, Spent

#: Calls bought from which on their own price counts, before that the forecast's.
_TELLING_CALLS = 10


def calls_of(progress: Progress) -> Calls:
    """What is known of calls without a plan."""
    return Calls(
        done=progress.done,
        cached=progress.cached,
        to_buy=0,
        failed=progress.failed,
        tokens=progress.tokens,
        usd=progress.cost_microusd / 1e6,
        paused_s=progress.paused_s,
    )


class Outlook:
    """Made when a stage begins. `spent` is what the run was charged before."""

    def __init__(self, plan: Plan, *, spent: Spent, cap_usd: float | None) -> None:
        usd = pl.col("usd")
        sums = plan.rows.group_by("stage").agg(
            pl.col("calls").sum(), usd=pl.when(usd.null_count() == 0).then(usd.sum())
        )
        self._planned = {stage: (calls, money) for stage, calls, money in sums.iter_rows()}
        self._spent_usd = spent.cost_microusd / 1e6
        self._cap_usd = cap_usd

    def calls(self, stage: int, progress: Progress) -> Calls:
        """What a stage's calls so far say of the run's end."""
        usd = self._spent_usd + progress.cost_microusd / 1e6
        planned, _ = self._planned.get(stage, (0, 0.0))
        to_buy = max(0, planned - progress.done)
        projected = self._projected(stage, progress, usd=usd, to_buy=to_buy)
        return replace(calls_of(progress), to_buy=to_buy, usd=usd, usd_projected=projected, usd_cap=self._cap_usd)

    def _projected(self, stage: int, progress: Progress, *, usd: float, to_buy: int) -> float | None:
        """Calls to come at the price of those bought in this stage, later stages as planned."""
        planned, planned_usd = self._planned.get(stage, (0, 0.0))
        bought = progress.done - progress.cached
        each: float | None = None
        if bought >= _TELLING_CALLS:
            each = progress.cost_microusd / 1e6 / bought
        elif planned_usd is not None:
            each = planned_usd / max(planned, 1)
        parts = [money for other, (_, money) in self._planned.items() if other > stage]
        parts.append(0.0 if not to_buy else None if each is None else to_buy * each)
        return None if None in parts else usd + sum(parts)


class Filling:
    """How full the quotas of a run's stages are while one is being made; `now` is what is known of it."""

    def __init__(self) -> None:
        self.now: Fill | None = None
        self._before: Counter[str] = Counter()  # rows of earlier stages
        self._due: Counter[str] = Counter()
        self._heard: dict[str, set[str]] = {}  # domain -> examples answered since rows were last counted

    def begin(self, quotas: Mapping[str, int], *, rows: Mapping[str, int], tail: frozenset[str]) -> None:
        """Another stage begins, with so many rows of the earlier ones."""
        self._before = Counter(rows)
        self._due.update(quotas)
        self._heard.clear()
        self.now = Fill(dict(self._due), dict(rows), tail=tail)

    def count(self, rows: Mapping[str, int]) -> None:
        """So many rows of the present stage are in; answers that were heard of are among them, or were refused."""
        assert self.now is not None
        self._heard.clear()
        self.now = replace(self.now, rows=dict(self._before + Counter(rows)), answered={})

    def have(self, rows: Mapping[str, int]) -> None:
        """So many rows of the run are in, now that the stage's are committed."""
        self.count(Counter(rows) - self._before)

    def listening(self, channel: Channel) -> Channel:
        """The channel, with every answer noted that comes through it."""
        lines = {
            purpose: [replace(line, ask=self._listened(line.ask)) for line in some]
            for purpose, some in channel.lines.items()
        }
        return replace(channel, ask=self._listened(channel.ask), lines=lines)

    def _listened(self, ask: Ask) -> Ask:
        def asked(requests: Iterable[Request]) -> Iterator[Reply]:
            for reply in ask(requests):
                self._hear(reply)
                yield reply

        return asked

    def _hear(self, reply: Reply) -> None:
        request = reply.request
        if self.now is None or reply.outcome != "ok" or request.purpose == "synthesis":
            return
        heard = self._heard.setdefault(request.domain, set())
        if request.example_id and request.example_id not in heard:
            heard.add(request.example_id)
            self.now = replace(self.now, answered={domain: len(ids) for domain, ids in self._heard.items()})
