"""Where the shipped recipes and the quickstart's data lie: inside an installed wheel, or beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

from balkit.errors import BalkitError

_PACKAGE = Path(__file__).resolve().parent


def recipes_folder() -> Path:
    """The folder of the recipes that ship with balkit."""
    return find("recipes", package=_PACKAGE)


def quickstart_folder() -> Path:
    """The folder of the quickstart's rows: train.jsonl, dev.jsonl, eval.jsonl."""
    return find("data/quickstart", package=_PACKAGE)


def find(name: str, *, package: Path) -> Path:
    """`_<name>` inside the package folder (a wheel), else `<name>` beside it (a checkout).

    Raises `BalkitError` when it is in neither place: the installation is not whole.
    """
    places = [package / f"_{name}", package.parent / name]
    for place in places:
        if place.is_dir():
            return place
    raise BalkitError(f"{name} is missing ({' and '.join(map(str, places))} do not exist): install balkit again")
