"""What `balkit --help` shows: the commands under titles. Typer's own page takes 0.2 s longer, for what it loads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from typer.core import TyperGroup

#: Under which title `balkit --help` shows a command, and in which order.
SECTIONS = {
    "First steps": ("quickstart", "init", "doctor", "recipes", "errors"),
    "The pool": ("add", "coverage", "sql", "log", "tag", "diff", "check", "retire", "relabel", "compact", "discover"),
    "A run": ("plan", "select", "run", "status", "spend", "calls", "report", "export"),
    "One step alone": ("annotate", "synthesize", "train", "score", "eval"),
    "Quality and evidence": ("audit", "conflicts", "review", "compare"),
}


class Sections(TyperGroup):
    """The group of all commands."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the sections."""
        return [name for names in SECTIONS.values() for name in names]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the page, as wide as the terminal and at least readable in a pipe."""
        from rich.console import Console
        from rich.padding import Padding
        from rich.text import Text

        console = Console()
        for text in (self.get_usage(ctx), self.help or ""):
            console.print(Padding(Text(text), (1, 1, 0, 1)))
        console.print()
        options = [record for one in self.get_params(ctx) if (record := one.get_help_record(ctx)) is not None]
        console.print(_panel("Options", options))
        sections = {title: self._told(ctx, names) for title, names in SECTIONS.items()}
        wide = max(len(name) for rows in sections.values() for name, _ in rows)
        for title, rows in sections.items():
            console.print(_panel(title, rows, wide=wide))

    def _told(self, ctx: Any, names: Iterable[str]) -> list[tuple[str, str]]:
        """The commands, each with the first paragraph of its help."""
        known = [(name, self.get_command(ctx, name)) for name in names]
        return [(name, " ".join((one.help or "").partition("\n\n")[0].split())) for name, one in known if one]


def _panel(title: str, rows: Iterable[tuple[str, str]], *, wide: int | None = None) -> Any:
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(style="bold cyan", no_wrap=True, width=wide)
    table.add_column(ratio=1)
    for name, about in rows:
        table.add_row(Text(name), Text(about))
    return Panel(table, title=title, title_align="left", border_style="dim")
