"""A Hugging Face dataset folder: README.md (the card) and data/<split>-*.parquet, with provenance in every row."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from balkit import figures
from balkit import recipe as recipes
from balkit.errors import MissingExtra
from balkit.exports import card
from balkit.exports.files import write_parquet, write_text
from balkit.exports.material import Material, Target
from balkit.exports.plain import CANONICAL_ROW, canonical_rows, canonical_schema

#: What an export says first where terms are missing.
_UNSTATED = "NOT STATED in the card: {what}; say so under `card` in a recipe (--card RECIPE) and export again"
_NO_FIGURE = "hf: the card has no figure, since matplotlib is not installed: pip install 'balkit[report]'"


def write(material: Material, folder: Path) -> Mapping[str, object]:
    """The card, its figure where matplotlib is there, the recipe, and one Parquet file a split."""
    (folder / "data").mkdir()
    for part in material.parts:
        path = folder / "data" / f"{part}-00000-of-00001.parquet"
        write_parquet(partial(canonical_rows, material, part), path, schema=canonical_schema(material))
    drawn = _drawn(material, folder / card.FIGURE)
    write_text(card.text(material, figure=drawn), folder / "README.md")
    if recipe := card.published(material):
        write_text(recipes.dump(recipe), folder / card.RECIPE)
    return {"figure": drawn}


def notes(material: Material, settings: Mapping[str, object]) -> list[str]:
    """What the report warns of: terms that nobody stated, a missing figure."""
    missing = card.unstated(material)
    said = [_UNSTATED.format(what="; ".join(missing))] if missing else []
    return said + ([] if settings["figure"] else [_NO_FIGURE])


def _drawn(material: Material, path: Path) -> bool:
    try:
        figures.balance(card.domains(material), path)
    except MissingExtra:
        return False
    return True


TARGET = Target(
    write=write,
    about="a dataset folder with its card",
    files="data/*.parquet",
    row=CANONICAL_ROW,
    reader="datasets 5.2.0",
    learns="nothing",
    notes=notes,
)
