"""Progress of a run for people: bars in a terminal, one text that changes in a notebook, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from balkit.events import Calls, Event, Notify

#: Seconds between two lines of progress where there is no terminal.
LINE_EVERY_S = 5.0
#: Seconds between two changes of the text in a notebook.
NOTEBOOK_EVERY_S = 0.5

_RATE_OVER_S = 60.0  # the rate is that of the last minute, so that a pause is seen and forgotten

_Key = tuple[int, str]  # stage, step


@contextmanager
def progress() -> Iterator[Notify]:
    """What `balkit.run` takes as `notify`, to show how far it is: `with balkit.progress() as notify: ...`

    Calls done, cached, to buy and failed, their rate and tokens, money spent and projected, and the time left of a
    step. In a terminal as bars, in a notebook as one text that changes, elsewhere as a plain line every 5 seconds; on
    stderr.
    """
    if _kernel() is not None:
        yield _Notebook().note
    elif sys.stderr.isatty():
        with _bars() as notify:
            yield notify
    else:
        yield Lines(sys.stderr).note


class Meter:
    """How fast a step goes, from what was said of it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[_Key, deque[tuple[float, int]]] = {}

    def note(self, event: Event) -> None:
        """Remember how far it is now."""
        seen = self._seen.setdefault((event.stage, event.step), deque())
        if seen and event.done < seen[-1][1]:  # another count began: vectors, then calls
            seen.clear()
        seen.append((self._clock(), event.done))
        while seen[-1][0] - seen[0][0] > _RATE_OVER_S and len(seen) > 2:
            seen.popleft()

    def rate(self, event: Event) -> float | None:
        """Of the last minute, a second; None before there are two points in time."""
        (start, first), (now, last) = (self._seen[event.stage, event.step][at] for at in (0, -1))
        return (last - first) / (now - start) if now > start and last > first else None

    def left_s(self, event: Event) -> float | None:
        """Until a step's end at that rate."""
        rate = self.rate(event)
        return None if rate is None or event.total <= event.done else (event.total - event.done) / rate


def said(event: Event, meter: Meter) -> str:
    """All that is known of a step, without its name and count."""
    parts = [event.text, *(_of_calls(event.calls) if event.calls else ())]
    rate, left = meter.rate(event), meter.left_s(event)
    if rate is not None:
        parts.append(f"{rate:,.1f}/s")
    if left is not None:
        parts.append(f"{_duration(left)} left")
    return ", ".join(part for part in parts if part)


def _of_calls(calls: Calls) -> Iterator[str]:
    yield f"{calls.cached:,} cached"
    if calls.to_buy:
        yield f"about {calls.to_buy:,} to buy"
    if calls.failed:
        yield f"{calls.failed:,} failed"
    yield f"{calls.tokens:,} tokens"
    if calls.usd or calls.usd_projected or calls.usd_cap:
        end = "" if calls.usd_projected is None else f" of about ${calls.usd_projected:,.4f}"
        cap = "" if calls.usd_cap is None else f" (cap ${calls.usd_cap:,.2f})"
        yield f"${calls.usd:,.4f}{end}{cap}"
    if calls.paused_s:
        yield f"rate limited for {_duration(calls.paused_s)}"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02} s" if whole < 3600 else f"{whole // 3600} h {whole // 60 % 60:02} min"


def _name(event: Event) -> str:
    return f"stage {event.stage}/{event.stages} {event.step}" if event.stages else event.step


def _count(event: Event) -> str:
    return f"{event.done:,}/{event.total:,}" if event.total else f"{event.done:,}" if event.done else ""


class Lines:
    """A line when a step begins, one every few seconds, and one for how it ended."""

    def __init__(self, out: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._start = clock()
        self._meter = Meter(clock)
        self._printed: Event | None = None
        self._printed_at = 0.0
        self._last: Event | None = None

    def note(self, event: Event) -> None:
        """Print it, or not yet."""
        last, self._last = self._last, event
        self._meter.note(event)
        if last is None or (last.stage, last.step) != (event.stage, event.step):
            if last is not None and last is not self._printed and last.done:
                self._print(last)
            self._print(event)
        elif self._clock() - self._printed_at >= LINE_EVERY_S:
            self._print(event)

    def _print(self, event: Event) -> None:
        self._printed, self._printed_at = event, self._clock()
        told = "  ".join(part for part in (_name(event), _count(event), said(event, self._meter)) if part)
        print(f"[{self._clock() - self._start:6.0f} s] {told}", file=self._out, flush=True)


class _Notebook:
    """One text below the cell: a line for every step, the last of them alive. Needs no widget."""

    def __init__(self) -> None:
        self._meter = Meter()
        self._lines: dict[_Key, str] = {}
        self._shown: Any = None
        self._shown_at = 0.0

    def note(self, event: Event) -> None:
        self._meter.note(event)
        key = (event.stage, event.step)
        new = key not in self._lines
        parts = (f"{_name(event):<22}", f"{_count(event):>13}", said(event, self._meter))
        self._lines[key] = "  ".join(parts).rstrip()
        ended = event.total and event.done >= event.total
        if not (new or ended) and time.monotonic() - self._shown_at < NOTEBOOK_EVERY_S:
            return
        self._shown_at = time.monotonic()
        text = {"text/plain": "\n".join(self._lines.values())}
        if self._shown is None:
            from IPython.display import display

            self._shown = display(text, raw=True, display_id=True)
        else:
            self._shown.update(text, raw=True)


@contextmanager
def _bars() -> Iterator[Notify]:
    """A bar a step, and below the last one a line of numbers."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.text import Text

    columns = TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), MofNCompleteColumn()
    bars, meter, below = Progress(*columns, TimeElapsedColumn()), Meter(), Text(overflow="ellipsis", no_wrap=True)
    tasks: dict[_Key, Any] = {}

    def notify(event: Event) -> None:
        meter.note(event)
        below.plain = said(event, meter)
        key = (event.stage, event.step)
        if key not in tasks:
            for task in bars.tasks:
                bars.update(task.id, total=task.completed or 1, completed=task.completed or 1)
            if event.step == "done":
                return
            tasks[key] = bars.add_task(_name(event), total=event.total or None)
        bars.update(tasks[key], completed=event.done, total=event.total or None)

    with Live(Group(bars, below), console=Console(stderr=True), refresh_per_second=4):
        yield notify


def _kernel() -> Any:
    """The notebook's kernel, if this runs in one."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return getattr(shell, "kernel", None)
