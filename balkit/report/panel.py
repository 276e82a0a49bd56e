"""Where a run stands, drawn: a panel for terminals and notebooks, a line for logs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from balkit.standing import Standing
from balkit.terminal import spelled

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from balkit.events import Calls
    from balkit.standing.tracking import Ended, Part

#: Columns of a panel.
WIDTH = 80
_BAR = 30
_STAGES_BEFORE = 3  # earlier stages that are shown


@dataclass(frozen=True)
class Panel:
    """All that is known, in 80 columns or less; a step that is done alone is a bar and a line, without a frame."""

    standing: Standing

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.panel import Panel as Frame
        from rich.table import Table
        from rich.text import Text

        one = self.standing
        grid = Table.grid(padding=(0, 1), pad_edge=False)
        grid.add_column(no_wrap=True, style="bold")
        grid.add_column(overflow="crop" if options.ascii_only else "ellipsis", no_wrap=True)
        for label, content in _parts(one, options.encoding):
            grid.add_row(label, content)
        if not one.run_id and not one.part:
            yield grid
            return
        title = Text(spelled(" ".join(filter(None, (one.part, one.name, one.run_id))), options.encoding))
        took = f"after {duration(one.elapsed_s)}"
        width = min(WIDTH, options.max_width)
        yield Frame(grid, title=title, title_align="left", subtitle=took, subtitle_align="right", width=width)


def _parts(standing: Standing, encoding: str) -> Iterator[tuple[str, RenderableType]]:
    from rich.text import Text

    if standing.stages:
        yield from _of_stages(standing)
    if standing.total or standing.done:
        told = f"{_count(standing)}{' calls' if standing.is_calling else ''}{_pace(standing)}"
        bar = Bar((standing.done,), standing.total) if standing.total else None
        yield standing.step, _beside(bar, told)
    if standing.text:
        label = "snapshot" if standing.step == "done" else ""
        yield label, Text(spelled(plain(standing.text), encoding))
    if standing.calls is not None:
        if standing.is_calling:
            yield "calls", Text(", ".join(_of_calls(standing.calls)))
        if money := _of_money(standing.calls):
            yield "money", _beside(_money_bar(standing.calls), money)
    if standing.filled is not None:
        for name, part in (("head", standing.filled.head), ("tail", standing.filled.tail)):
            if part.due:
                yield name, _beside(Bar((part.rows, part.answered), part.due), _of_part(part))
        if standing.filled.lowest:
            yield "lowest", Text(spelled(_lowest(standing.filled.lowest), encoding))


def _of_stages(standing: Standing) -> Iterator[tuple[str, RenderableType]]:
    from rich.text import Text

    before = [stage for stage in dict.fromkeys(one.stage for one in standing.ended) if stage != standing.stage]
    for stage in before[-_STAGES_BEFORE:]:
        yield f"stage {stage}" if stage else "before", Text(_steps(standing.ended, stage), style="dim")
    own = _steps(standing.ended, standing.stage)
    where = f"{standing.stage} of {standing.stages}: " if standing.stage else ""
    yield "stage", Text(f"{where}{own}{', ' if own else ''}").append(_now(standing.step), style="bold")


def _money_bar(calls: Calls) -> Bar | None:
    """Spent, then what is projected on top, of the cap."""
    if not calls.usd_cap:
        return None
    return Bar((calls.usd, max(0.0, (calls.usd_projected or 0.0) - calls.usd)), calls.usd_cap)


def line(standing: Standing) -> str:
    """All that is known in one line."""
    where = f"stage {standing.stage}/{standing.stages} {standing.step}" if standing.stages else standing.step
    parts = [" ".join(filter(None, (standing.part, where))), _count(standing), ", ".join(_said(standing))]
    if standing.filled is not None and standing.is_calling:
        parts.append("; ".join(_fill_said(standing)))
    return "  ".join(part for part in parts if part)


def _said(standing: Standing) -> Iterator[str]:
    if standing.text:
        yield standing.text
    if standing.calls is not None and standing.is_calling:
        yield from _of_calls(standing.calls)
        if money := _of_money(standing.calls):
            yield money
    pace = _pace(standing).removeprefix(", ")
    if pace:
        yield pace


def _fill_said(standing: Standing) -> Iterator[str]:
    assert standing.filled is not None
    for name, part in (("head", standing.filled.head), ("tail", standing.filled.tail)):
        if part.due:
            yield f"{name} {_of_part(part)}"
    if standing.filled.lowest:
        yield f"lowest {_lowest(standing.filled.lowest[:3])}"


def _of_calls(calls: Calls) -> Iterator[str]:
    yield f"{calls.cached:,} cached"
    if calls.to_buy:
        yield f"about {calls.to_buy:,} to buy"
    if calls.failed:
        yield f"{calls.failed:,} failed"
    yield f"{calls.tokens:,} tokens"
    if calls.paused_s:
        yield f"rate limited for {duration(calls.paused_s)}"


def _of_money(calls: Calls) -> str:
    if not (calls.usd or calls.usd_projected or calls.usd_cap):
        return ""
    end = "" if calls.usd_projected is None else f" of about ${calls.usd_projected:,.4f}"
    cap = "" if calls.usd_cap is None else f" (cap ${calls.usd_cap:,.2f})"
    return f"${calls.usd:,.4f}{end}{cap}"


def _of_part(part: Part) -> str:
    return f"{part.rows:,}/{part.due:,} rows" + (f", {part.answered:,} to check" if part.answered else "")


def _lowest(lowest: Sequence[tuple[str, int, int]]) -> str:
    return ", ".join(f"{plain(domain)} {rows:,}/{due:,}" for domain, rows, due in lowest)


def _steps(ended: Sequence[Ended], stage: int) -> str:
    return ", ".join(f"{one.step} {duration(one.seconds)}" for one in ended if one.stage == stage)


def _now(step: str) -> str:
    return step if step == "done" else f"{step} now"


def _count(standing: Standing) -> str:
    if standing.total:
        return f"{standing.done:,}/{standing.total:,}"
    return f"{standing.done:,}" if standing.done else ""


def _pace(standing: Standing) -> str:
    rate = "" if standing.rate is None else f", {standing.rate:,.1f}/s"
    return rate + ("" if standing.left_s is None else f", {duration(standing.left_s)} left")


def duration(seconds: float) -> str:
    """For people: 12 s, 3 min 04 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02} s" if whole < 3600 else f"{whole // 3600} h {whole // 60 % 60:02} min"


def plain(text: str) -> str:
    """A name of the data with control characters shown, not obeyed."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _beside(bar: Bar | None, told: str) -> RenderableType:
    from rich.table import Table

    if bar is None:
        return told
    grid = Table.grid(padding=(0, 1), pad_edge=False)
    grid.add_column(width=_BAR)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    grid.add_row(bar, told)
    return grid


@dataclass(frozen=True)
class Bar:
    """Parts of a whole, one behind the other, in blocks, or in ASCII where the terminal has nothing else."""

    parts: Sequence[float]
    of: float

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        blocks, rest = ("#=", ".") if options.ascii_only else ("█▒", "░")
        width, text, so_far, at = options.max_width, Text(no_wrap=True), 0.0, 0
        for part, block, style in zip(self.parts, blocks, ("green", "yellow"), strict=False):
            so_far += part
            to = min(width, int(width * so_far / self.of)) if self.of else 0
            text.append(block * (to - at), style=style)
            at = to
        yield text.append(rest * (width - at), style="dim")
