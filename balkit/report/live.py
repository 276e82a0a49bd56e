"""Progress of a run for people: a panel in a terminal, one that changes in a notebook, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from balkit.events import Event, Notify
from balkit.report.panel import WIDTH, Panel, line
from balkit.standing import Standing, Tracker
from balkit.terminal import is_live

#: Seconds between two lines of progress where there is no terminal.
LINE_EVERY_S = 5.0
#: Seconds between two changes of the panel in a notebook.
NOTEBOOK_EVERY_S = 0.5
#: Changes of the panel a second, in a terminal.
_PER_SECOND = 4


@contextmanager
def progress() -> Iterator[Notify]:
    """What `balkit.run` takes as `notify`, to show how far it is: `with balkit.progress() as notify: ...`

    Stage and step; calls done, cached, to buy and failed, their rate and tokens; money spent and projected against the
    cap; the time left of a step; how full the quotas of head and tail are. In a terminal and in a notebook as one panel
    that changes, elsewhere (a log, a pipe, TERM=dumb) as a plain line every 5 seconds; on stderr.
    """
    if _kernel() is not None:
        yield _Notebook().note
    elif is_live(sys.stderr):
        with _live() as notify:
            yield notify
    else:
        yield Lines(sys.stderr).note


class Lines:
    """A line when a step begins, one every few seconds, and one for how it ended."""

    def __init__(self, out: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._start = clock()
        self._tracker = Tracker(clock)
        self._printed_at = 0.0
        self._is_printed = True  # the last event

    def note(self, event: Event) -> None:
        """Print it, or not yet."""
        is_new = self._tracker.key != (event.stage, event.step)
        if is_new and not self._is_printed and self._tracker.now().done:
            self._print()
        self._tracker.note(event)
        self._is_printed = False
        if is_new or self._clock() - self._printed_at >= LINE_EVERY_S:
            self._print()

    def _print(self) -> None:
        self._printed_at, self._is_printed = self._clock(), True
        print(f"[{self._clock() - self._start:6.0f} s] {line(self._tracker.now())}", file=self._out, flush=True)


class _Notebook:
    """One panel below the cell, as text and as HTML. Needs no widget."""

    def __init__(self) -> None:
        self._tracker = Tracker()
        self._shown: Any = None
        self._shown_at = 0.0

    def note(self, event: Event) -> None:
        is_new = self._tracker.key != (event.stage, event.step)
        self._tracker.note(event)
        ended = event.total and event.done >= event.total
        if not (is_new or ended) and time.monotonic() - self._shown_at < NOTEBOOK_EVERY_S:
            return
        self._shown_at = time.monotonic()
        body = drawn(self._tracker.now())
        if self._shown is None:
            from IPython.display import display

            self._shown = display(body, raw=True, display_id=True)
        else:
            self._shown.update(body, raw=True)


def drawn(standing: Standing) -> dict[str, str]:
    """The panel by its MIME types, for a notebook."""
    import io

    from rich.console import Console

    console = Console(file=io.StringIO(), record=True, width=WIDTH, force_jupyter=False, highlight=False)
    console.print(Panel(standing))
    html = console.export_html(
        inline_styles=True, clear=False, code_format='<pre style="line-height: 1.2">{code}</pre>'
    )
    return {"text/plain": console.export_text().rstrip(), "text/html": html}


@contextmanager
def _live() -> Iterator[Notify]:
    """The panel, changed in place; what is printed meanwhile stands above it."""
    from rich.console import Console
    from rich.live import Live

    tracker = Tracker()

    def now() -> Any:
        return "" if tracker.key is None else Panel(tracker.now())

    console = Console(stderr=True, highlight=False)
    with Live(
        get_renderable=now,
        console=console,
        refresh_per_second=_PER_SECOND,
        redirect_stdout=sys.stdout.isatty(),
        vertical_overflow="crop",
    ):
        yield tracker.note


def _kernel() -> Any:
    """The notebook's kernel, if this runs in one."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return getattr(shell, "kernel", None)
