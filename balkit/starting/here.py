"""What lies in a folder, and which command comes next for it; read off names and small files, no pool is opened."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

#: How much of a YAML file is read to see whether it is a recipe.
_HEAD_BYTES = 2**16

#: Written into a recipe by `balkit init`: how the rows were to be added.
_ADD = re.compile(r"^#\s+(balkit add .+)$", re.MULTILINE)
_NAME = re.compile(r"^name:\s*[\"']?([A-Za-z0-9_.-]+)", re.MULTILINE)


@dataclass(frozen=True)
class RecipeHere:
    """A recipe file: its name as runs keep it, and the commands that its comments say bring the rows in."""

    path: Path
    name: str
    adds: tuple[str, ...]


@dataclass(frozen=True)
class Here:
    """Pools and recipes of a folder, each list with the newest first."""

    pools: tuple[Path, ...]
    recipes: tuple[RecipeHere, ...]


def look(folder: Path) -> Here:
    """The pools in the folder, up to two levels down, and the recipes in the folder itself."""
    found = [file for depth in ("", "[!.]*/", "[!.]*/[!.]*/") for file in folder.glob(f"{depth}pool.duckdb")]
    pools = [file.parent.relative_to(folder) for file in sorted(found, key=_changed, reverse=True)]
    files = sorted([*folder.glob("[!.]*.yaml"), *folder.glob("[!.]*.yml")], key=_changed, reverse=True)
    recipes = (_recipe(file) for file in files)
    return Here(tuple(pools), tuple(one for one in recipes if one is not None))


def next_commands(folder: Path, here: Here) -> list[tuple[str, str]]:
    """What to do next about the newest pool and recipe, each a command and what it does; empty where there are none."""
    if not here.pools and not here.recipes:
        return []
    if not here.pools:
        recipe = here.recipes[0]
        columns = "--prompt COLUMN --answer COLUMN --domain COLUMN"
        adds = recipe.adds or (f"balkit add pools/{recipe.name} FILE {columns}",)
        return [(line, "bring the rows into a pool") for line in adds]
    pool = here.pools[0]
    if not here.recipes:
        shown = (_command("coverage", pool, ""), "see its long tail")
        if _last_run(folder / pool) == (None, False):
            return [shown, ("balkit init FILE", "write a recipe for it")]
        return [shown, (_command("export", pool, "latest --to trl --out exports"), "write what was made for a trainer")]
    name, done = _last_run(folder / pool)
    own = next((one for one in here.recipes if one.name == name), None)
    if own is not None and not done:
        return [(_command("run", pool, own.path), "go on where the run stopped")]
    if own is not None:
        return [
            (_command("report", pool, ""), "see the run on one page"),
            (_command("export", pool, "latest --to trl --out exports"), "write what was made for a trainer"),
        ]
    newest = here.recipes[0].path
    return [
        (_command("plan", pool, newest), "rows, calls and money, before anything is spent"),
        (_command("run", pool, newest), "all stages"),
    ]


def _command(name: str, pool: Path, rest: str | Path) -> str:
    last = rest if isinstance(rest, str) else shlex.quote(str(rest))
    return f"balkit {name} {shlex.quote(str(pool))} {last}".rstrip()


def _recipe(file: Path) -> RecipeHere | None:
    try:
        with file.open("rb") as stream:
            text = stream.read(_HEAD_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    name = _NAME.search(text)
    if name is None or not all(re.search(rf"^{key}:", text, re.MULTILINE) for key in ("budget_rows", "teacher")):
        return None
    return RecipeHere(Path(file.name), name[1], tuple(_ADD.findall(text)))


def _last_run(pool: Path) -> tuple[str | None, bool]:
    """The recipe's name of the run that began last, and whether it came to its end."""
    found = sorted(pool.glob("runs/*/run.json"), key=_changed)
    if not found:
        return None, False
    try:
        name = json.loads(found[-1].read_text(encoding="utf-8"))["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return None, False
    return str(name), (found[-1].parent / "report.json").exists()


def _changed(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0
