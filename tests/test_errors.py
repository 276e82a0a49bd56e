"""Errors: one tree, drawn where it is defined, and messages that say what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from balkit import errors
from balkit.errors import BalkitError, IngestError, MissingExtra, RecipeError, need


def classes(root: type[BalkitError] = BalkitError) -> Iterator[type[BalkitError]]:
    yield root
    for child in root.__subclasses__():
        yield from classes(child)


def drawn() -> list[tuple[int, str]]:
    """Depth and name of every class in the drawing."""
    lines = re.findall(r"^( {4}[ |`-]*)([A-Z]\w+)", errors.__doc__ or "", flags=re.MULTILINE)
    return [(len(indent) // 4 - 1, name) for indent, name in lines]


def defined() -> list[type[BalkitError]]:
    """The classes of the module in its order, without the shared body of two of them."""
    own = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, BaseException)]
    return [value for value in own if value is not errors.Problems]


def test_the_drawing_names_every_error() -> None:
    assert sorted(name for _, name in drawn()) == sorted(error.__name__ for error in defined())


def test_the_drawing_shows_who_descends_from_whom() -> None:
    above: dict[int, str] = {}
    for depth, name in drawn():
        above[depth] = name
        parents = {parent.__name__ for parent in getattr(errors, name).__mro__}
        assert {above[level] for level in range(depth)} <= parents, name


def test_every_error_is_defined_in_one_file() -> None:
    import balkit.cli
    import balkit.stages  # noqa: F401

    assert {error.__module__ for error in classes()} == {"balkit.errors"}


@pytest.mark.parametrize("error", defined(), ids=lambda error: error.__name__)
def test_every_error_says_what_it_is_for(error: type[BalkitError]) -> None:
    assert (error.__doc__ or "").endswith(".")


@pytest.mark.parametrize("error", defined(), ids=lambda error: error.__name__)
def test_every_error_has_a_code_and_a_fix_of_its_own(error: type[BalkitError]) -> None:
    assert {"code", "fix"} <= vars(error).keys(), "an inherited one says nothing of this error"
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", error.code)
    assert error.fix.endswith(".")
    assert [other for other in defined() if other.code == error.code] == [error]


def test_the_codes_stay_as_they_are() -> None:
    """Pages and scripts go by them: add codes, and never rename one."""
    assert list(errors.codes()) == [
        *("balkit", "recipe", "ingest", "frame", "missing-extra", "budget", "pool", "pool-missing", "pool-locked"),
        *("pool-damaged", "sql", "vectors", "teacher", "cap-reached", "teacher-stopped", "teacher-paused"),
        *("price-unknown", "student", "run", "export", "usage", "system", "interrupted", "defect"),
    ]
    assert all(means and fix for means, fix in errors.codes().values())


def test_every_command_in_a_fix_is_one_that_there_is() -> None:
    import typer

    from balkit.cli import app

    known: dict[str, typer.core.TyperCommand] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    fixes = "".join(fix for _, fix in errors.codes().values()).replace("`balkit COMMAND", "")
    said = re.findall(r"`balkit ([a-z]+)([^`]*)`", fixes)
    assert len(said) > 10
    for command, rest in said:
        context = known[command].make_context(command, [], resilient_parsing=True)
        options = {option for one in context.command.params for option in one.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= options, f"{command}{rest}"


@pytest.mark.parametrize("error", [RecipeError, IngestError])
def test_all_problems_are_shown_up_to_fifty(error: type[errors.Problems]) -> None:
    raised = error("bad.yaml: 53 problems", [f"line {n}: odd" for n in range(53)])
    assert raised.problems[52] == "line 52: odd"
    lines = str(raised).splitlines()
    assert lines[:2] == ["bad.yaml: 53 problems", "  - line 0: odd"]
    assert lines[-2:] == ["  - line 49: odd", "  ... and 3 more"]


def test_need_gives_the_module_that_is_there() -> None:
    import json

    assert need("json", extra="train") is json


@pytest.mark.parametrize("module", ["nobody_has_this", "nobody_has_this.inside"])
def test_need_names_the_extra_that_brings_a_missing_module(module: str) -> None:
    with pytest.raises(MissingExtra, match=re.escape("pip install 'balkit[train]'")) as caught:
        need(module, extra="train")
    assert (caught.value.module, caught.value.extra) == (module, "train")


def test_need_does_not_hide_what_a_present_module_lacks(tmp_path, monkeypatch) -> None:
    (tmp_path / "half_installed.py").write_text("import something_it_needs\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="something_it_needs"):
        need("half_installed", extra="train")
