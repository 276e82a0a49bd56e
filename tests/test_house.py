"""The rules of the house, read off the source: which room may import what, and how long a function may be.

A new room must be put on a floor here; see docs/design.md.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import balkit

PACKAGE = Path(__file__).resolve().parent.parent / "balkit"

#: From the ground up. A room imports from lower floors only, so rooms on one floor do not know each other.
FLOORS = [
    {"errors"},
    {"texts", "frames", "assets", "tokens", "events", "languages", "figures", "terminal", "own"},
    {"recipe"},
    {"answers", "diversity", "duplicates"},
    {"balance", "selection", "clusters", "verify", "pool", "vectors", "teacher", "student"},
    {"synthesize", "changes", "discovery", "reconcile", "runs", "basis", "within", "measuring", "auditing", "review"},
    {"assemble", "planning", "results", "scoring", "standing", "starting", "health"},
    {"steps", "outlook", "explaining"},
    {"stages", "exports", "report"},
    {"quickstart", "pages"},
    {"comparing"},
    {"cli"},
    {"__main__"},
]

#: Libraries that one room keeps to itself.
KEPT_IN = {
    "duckdb": "pool",
    "sqlite3": "teacher",
    "litellm": "teacher/remote.py",
    "openai": "teacher",
    "sentence_transformers": "vectors",
    "model2vec": "vectors",
    "hnswlib": "vectors",
    "sklearn": "clusters",
    "torch": "student",
    "transformers": "student",
    "peft": "student",
    "accelerate": "student",
    "tokenizers": "student",
    "safetensors": "student",
    "math_verify": "answers",
    "py3langid": "languages.py",
    "matplotlib": "figures",
    "jinja2": "pages",
    "markupsafe": "pages",
}

#: What `import balkit` and `import balkit.cli` must not load.
HEAVY = [
    "torch",
    "transformers",
    "litellm",
    "openai",
    "sentence_transformers",
    "model2vec",
    "hnswlib",
    "sklearn",
    "duckdb",
    "py3langid",
    "matplotlib",
    "jinja2",
]

MODULES = sorted(path for path in PACKAGE.rglob("*.py"))


@dataclass(frozen=True)
class Import:
    """One imported name, and where."""

    file: Path
    line: int
    name: str

    @property
    def place(self) -> str:
        return f"{self.file.relative_to(PACKAGE.parent)}:{self.line}"


def room(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(file: Path) -> Iterator[Import]:
    """Every import of a file, also those inside functions, for type checkers, by `need` and by `import_module`."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [_source(node, alias.name, file=file) for alias in node.names]
        elif isinstance(node, ast.Call) and _called(node) in ("need", "import_module", "__import__") and node.args:
            names = [node.args[0].value] if isinstance(node.args[0], ast.Constant) else []
        else:
            continue
        yield from (Import(file, node.lineno, str(name)) for name in names)


def _source(node: ast.ImportFrom, name: str, *, file: Path) -> str:
    parts = [node.module] if node.module else []
    if node.level:
        package = ["balkit", *file.relative_to(PACKAGE).parts[:-1]]
        parts = package[: len(package) - node.level + 1] + parts
    return ".".join([*parts, name])


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def floor_of(name: str) -> int:
    return next((i for i, rooms in enumerate(FLOORS) if name in rooms), len(FLOORS))


def functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def length(function: ast.AST) -> int:
    return function.end_lineno - function.lineno + 1


def test_every_room_stands_on_one_floor():
    rooms = {room(file) for file in MODULES} - {"__init__"}
    assert rooms == set.union(*FLOORS), "put the new room on a floor, and take one that is gone off it"
    assert len(set.union(*FLOORS)) == sum(map(len, FLOORS))


def test_the_design_page_has_the_same_floors():
    page = (PACKAGE.parent / "docs" / "design.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", page, flags=re.MULTILINE)
    assert {int(floor): set(re.findall(r"`(\w+)`", rooms)) for floor, rooms in rows} == dict(enumerate(FLOORS, 1))


def test_imports_go_down_only():
    wrong = []
    for file in MODULES:
        if room(file) == "__init__":  # the package's own face: names that are looked up when they are used
            continue
        for found in imports(file):
            parts = found.name.split(".")
            if parts[0] != "balkit" or len(parts) < 2 or not _is_room(parts[1]) or parts[1] == room(file):
                continue
            if floor_of(parts[1]) >= floor_of(room(file)):
                wrong.append(f"{found.place}: {room(file)} may not import {parts[1]}")
    assert wrong == []


def _is_room(name: str) -> bool:
    return any(name in rooms for rooms in FLOORS)


def test_each_heavy_library_stays_in_its_room():
    wrong = []
    for file in MODULES:
        place = file.relative_to(PACKAGE).as_posix()
        for found in imports(file):
            home = KEPT_IN.get(found.name.split(".")[0])
            if home and place != home and not place.startswith(f"{home}/") and place != f"{home}.py":
                wrong.append(f"{found.place}: {found.name} belongs to balkit/{home}")
    assert wrong == []


@pytest.mark.parametrize("module", ["balkit", "balkit.cli", "balkit.exports", "balkit.recipe"])
def test_importing_loads_nothing_heavy(module):
    code = f"import sys, {module}; print(*(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == ""


def test_every_public_name_of_the_package_is_there():
    code = "import balkit; [getattr(balkit, name) for name in balkit.__all__]"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_version_is_the_same_in_both_places():
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == balkit.__version__


def test_the_ci_tries_every_extra_of_the_wheel():
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = [sys.executable, str(PACKAGE.parent / ".ci" / "extras.py"), "--list"]
    tried = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()
    assert sorted([*tried, "all", "dev"]) == sorted(project["optional-dependencies"])


def test_make_help_explains_every_target():
    text = (PACKAGE.parent / "Makefile").read_text(encoding="utf-8")
    told = re.findall(r"^([a-z-]+):.*## \S", text, re.MULTILINE)
    (targets,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert sorted(told) == sorted(targets.split())


def test_no_function_passes_80_lines():
    long = [f"{file.name}: {f.name} has {length(f)}" for file in MODULES for f in functions(file) if length(f) > 80]
    assert long == []


def test_nine_in_ten_functions_fit_in_40_lines():
    lengths = [length(function) for file in MODULES for function in functions(file)]
    assert sum(lines <= 40 for lines in lengths) >= 0.9 * len(lengths)


def test_no_module_is_named_after_a_standard_one():
    names = {file.stem for file in MODULES} | {file.parent.name for file in MODULES}
    assert names & set(sys.stdlib_module_names) - {"__main__"} == set()
