"""Commands whose options are read when they are called: to read those of all of them at every start costs 0.1 s."""

from __future__ import annotations

import copy
import inspect
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand
from typer.main import get_command_from_info

if TYPE_CHECKING:
    from typer.models import CommandInfo


def later(app: typer.Typer) -> None:
    """Makes every command that was registered so far one of these, those of its groups too."""
    for group in app.registered_groups:
        if group.typer_instance is not None:
            later(group.typer_instance)
    for info in app.registered_commands:
        _put_off(info)


def _put_off(info: CommandInfo) -> None:
    whole = copy.copy(info)
    assert whole.callback is not None

    class Later(TyperCommand):
        def make_context(self, *args: Any, **kwargs: Any) -> typer.Context:
            made = get_command_from_info(whole, pretty_exceptions_short=False, rich_markup_mode=self.rich_markup_mode)
            return made.make_context(*args, **kwargs)  # type: ignore[return-value]

    info.cls = Later
    info.help = whole.help or inspect.getdoc(whole.callback)
    info.name = whole.name = whole.name or whole.callback.__name__.replace("_", "-")
    info.callback = _nothing


def _nothing() -> None:
    """Stands for a command; its options are none."""
