"""Commands that plan, spend and train: plan, run, spend, annotate, synthesize, train, eval, score."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from balkit.cli.pools import PoolPath
from balkit.cli.show import Json, frame_out, json_out, progress, prose, say

if TYPE_CHECKING:
    from collections.abc import Callable

    import polars as pl

    from balkit.events import Notify
    from balkit.results import RunResult
    from balkit.teacher import Progress

RecipePath = Annotated[Path, typer.Argument(help="A recipe file (`balkit recipes list`).", metavar="RECIPE")]


def register(app: typer.Typer) -> None:
    """Adds this module's commands to the app."""
    app.command()(plan)
    app.command()(run)
    app.command()(spend)
    app.command()(annotate)
    app.command()(synthesize)
    app.command()(train)
    app.command()(score)
    app.command(name="eval")(evaluate)


def plan(
    pool: PoolPath,
    recipe: RecipePath,
    by_stage: Annotated[bool, typer.Option("--by-stage", help="One row a stage and domain, with tokens.")] = False,
    as_json: bool = Json,
) -> None:
    """Show quotas, deficits, calls and money per domain, before anything is spent.

    Example: balkit plan pools/math recipe.yaml
    """
    from balkit.planning import plan as make_plan
    from balkit.pool import Pool
    from balkit.recipe import load

    made = make_plan(Pool.open(pool), load(recipe))
    if as_json:
        json_out(made.as_dict())
        return
    few = made.rows.select(*made.rows.columns[:9], "calls", "tokens", "usd_low", "usd", "usd_high")
    shown = few if by_stage else made.by_domain()
    frame_out(shown, as_json=False, title=f"{recipe}: {made.budget_rows} rows in {made.stages} stages")
    for note in made.notes:
        prose(note)


def run(
    pool: PoolPath,
    recipe: RecipePath,
    new: Annotated[bool, typer.Option("--new", help="Start another run though one of this recipe exists.")] = False,
    no_train: Annotated[bool, typer.Option("--no-train", help="Make the snapshots only.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: bool = Json,
) -> None:
    """Run all stages of a recipe, or go on where the last run of it stopped.

    Example: balkit run pools/math recipe.yaml
    """
    from balkit.cli.after import summary
    from balkit.pool import Pool
    from balkit.recipe import load
    from balkit.stages import run as run_stages

    loaded, opened, start = load(recipe), Pool.open(pool), time.monotonic()
    with progress(quiet=quiet) as notify:
        result = run_stages(opened, loaded, new=new, train=not no_train, notify=notify)
    if result.stages[-1].rows < loaded.budget_rows:
        lacking = loaded.budget_rows - result.stages[-1].rows
        prose(f"{lacking} of {loaded.budget_rows} rows could not be had; {result.refused}", err=True)
    if as_json:
        from balkit.results import report_of

        json_out(report_of(result))
        return
    _show_stages(result)
    from balkit.measuring import overall

    frame_out(measured(overall(result.measures)), as_json=False, title="\nwhat the rows stand for, over all domains")
    if result.yields.height:
        from polars import col

        passed = (100 * col("kept_fraction")).round(0).alias("passed %")
        shown = result.yields.with_columns(passed).drop("kept_fraction")
        frame_out(shown, as_json=False, title="\nwhat became of written rows (docs/synthesis.md)")
    summary(opened, result, budget_rows=loaded.budget_rows, seconds=time.monotonic() - start)


def _show_stages(result: RunResult) -> None:
    import polars as pl

    rows = []
    for stage in result.stages:
        summary: dict[str, Any] = stage.summary or {}
        accuracies = {
            f"{name} %": _percent(summary.get(f"{name}_accuracy")) for name in ("macro", "micro", "head", "tail")
        }
        short = sum(d["rows"] - sum(d["given_to"].values()) for d in stage.deficits)
        rows.append(
            {"stage": stage.stage, "snapshot": stage.snapshot_id, "rows": stage.rows, "short": short} | accuracies
        )
    frame_out(pl.DataFrame(rows), as_json=False, title=f"run {result.run_id[:12]} ({result.name})")


def measured(measures: pl.DataFrame) -> pl.DataFrame:
    """MEASURES with short names and without columns that say nothing."""
    import polars as pl

    short = {"mean_similarity": "similarity", "length_ratio": "length"}
    for origin, name in (("real", "real"), ("synthetic", "synth")):
        short |= {f"distinct_3_{origin}": f"distinct-3 {name}", f"neighbour_distance_{origin}": f"distance {name}"}
        short |= {f"vendi_{origin}": f"vendi {name}"}
    shown = measures.with_columns((pl.col("share_of_pool") * 100).round(1).alias("pool %"))
    shown = shown.drop("quota", "pool", "share_of_pool", "length_shift")
    shown = shown.select(column for column in shown if column.null_count() < len(column))
    return shown.with_columns(pl.col(pl.Float64).round(3)).rename(short, strict=False)


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def spend(pool: PoolPath, as_json: bool = Json) -> None:
    """Show what teacher calls cost: per run against its forecast and per kept row, then by endpoint and domain.

    What cascades saved comes last.

    Example: balkit spend pools/math
    """
    from balkit import frames
    from balkit.cli.after import compared
    from balkit.errors import RecipeError
    from balkit.pool import Pool
    from balkit.recipe import load
    from balkit.report import by_endpoint, cascades
    from balkit.teacher import Ledger

    opened, calls = Pool.open(pool), frames.CALLS.empty()
    if (opened.path / "calls.sqlite").exists():  # a Ledger would make it
        with Ledger(opened.path / "calls.sqlite") as ledger:
            calls = ledger.calls()
    saved, runs = [], []
    for run_id in sorted(set(calls["run_id"])):
        mine = calls.filter(calls["run_id"] == run_id)
        recipe = opened.path / "runs" / run_id[:12] / "recipe.yaml"
        runs.append({"run_id": run_id[:12]} | compared(opened, mine, run_id=run_id))
        try:
            saved += [{"run_id": run_id[:12]} | row for row in cascades(mine, recipe=load(recipe))]
        except RecipeError as error:  # by another balkit, or harmed: what was spent is known all the same
            if recipe.exists():
                say(f"what cascades saved is unknown: {error}", err=True)
    if as_json:
        json_out({"rows": by_endpoint(calls).to_dicts(), "cascades": saved, "runs": runs})
        return
    for run in runs:
        _show_spending(run)
    frame_out(by_endpoint(calls), as_json=False, title="\nAll calls")
    for row in saved:
        say(_saved(row))


def _show_spending(run: dict[str, Any]) -> None:
    """One table a run: in all, then by stage, domain, purpose and teacher."""
    import polars as pl

    parts = [{"part": "total"} | run["total"]]
    for name in ("stage", "domain", "purpose", "teacher"):
        parts += [
            {"part": f"{name} {row[name]}"} | {key: value for key, value in row.items() if key != name}
            for row in run[f"by_{name}"]
        ]
    each = "" if run["usd_per_row"] is None else f", ${run['usd_per_row']:,.6f} a kept row ({run['kept_rows']:,})"
    shown = pl.DataFrame(parts, infer_schema_length=None)
    frame_out(shown, as_json=False, title=f"\nrun {run['run_id']}: ${run['total']['usd']:,.4f}{each}")


def _saved(row: dict[str, Any]) -> str:
    start = f"run {row['run_id']}: {row['cascade']} ({row['purpose']}): the last was asked about {row['asked_last']:,} "
    start += f"of {row['examples']:,} examples; ${row['usd']:,.4f} in all"
    if row["saved_usd"] is None:
        return f"{start}; what it saved is unknown, for no price of the last is known"
    return f"{start}, about ${row['saved_usd']:,.4f} less than the last alone"


def annotate(
    pool: PoolPath,
    recipe: RecipePath,
    split: Annotated[Literal["train", "dev"], typer.Option(help="Whose examples.")] = "dev",
    as_json: bool = Json,
) -> None:
    """Have the teacher answer every example of a split that has no accepted rationale yet.

    Example: balkit annotate pools/math recipe.yaml --split dev
    """
    from balkit.pool import Pool
    from balkit.recipe import load
    from balkit.steps import annotate as answer_split

    with progress(quiet=as_json) as notify:
        written = answer_split(Pool.open(pool), load(recipe), split=split, progress=_told(notify, "annotate"))
    reasons = dict(written.filter(~written["accepted"]).group_by("reason").len().sort("reason").iter_rows())
    accepted = int(written["accepted"].sum())
    if as_json:
        json_out({"accepted": accepted, "rejected": reasons})
        return
    say(f"{accepted} accepted" + "".join(f", {rows} {reason}" for reason, rows in reasons.items()))


def synthesize(
    pool: PoolPath,
    recipe: RecipePath,
    domain: Annotated[list[str], typer.Option(help="A domain to write for; may stand several times.")],
    rows: Annotated[int, typer.Option(min=1, help="Examples for each domain.")] = 4,
    as_json: bool = Json,
) -> None:
    """Have the teacher write new examples, checked as in a run: to see what it writes before a run pays for more.

    They stay in the pool with what was thought of them; runs draw on what they write themselves.

    Example: balkit synthesize pools/math recipe.yaml --domain Precalculus --rows 4
    """
    import polars as pl

    from balkit.pool import Pool
    from balkit.recipe import load
    from balkit.steps import write

    wanted = dict.fromkeys(domain, rows)
    with progress(quiet=as_json) as notify:
        written = write(Pool.open(pool), load(recipe), rows=wanted, progress=_told(notify, "synthesize"))
    found = written.decisions.filter("kept").select("example_id").unique()
    kept = written.examples.join(found, on="example_id", how="semi").sort("domain", "example_id")
    worked = written.rationales.filter("accepted").select("example_id", rationale="text")
    worked = worked.unique("example_id", keep="first", maintain_order=True)
    shown = kept.select("example_id", "domain", "prompt", "reference")
    shown = shown.join(worked, on="example_id", how="left", maintain_order="left")
    refused = dict(written.decisions.filter(~pl.col("kept")).group_by("reason").len().sort("reason").iter_rows())
    if as_json:
        json_out({"kept": shown.to_dicts(), "refused": refused})
        return
    frame_out(shown.drop("example_id"), as_json=False)
    say(f"{kept.height} kept" + "".join(f", {count} {reason}" for reason, count in refused.items()))


def _told(notify: Notify, step: str) -> Callable[[Progress], None]:
    """Progress of calls that no plan foresaw."""
    from balkit.events import Event
    from balkit.outlook import calls_of

    return lambda progress: notify(Event(0, 0, step, done=progress.done, calls=calls_of(progress)))


def train(
    pool: PoolPath,
    snapshot: Annotated[str, typer.Argument(help="A snapshot's id, or latest.", metavar="SNAPSHOT")],
    recipe: Annotated[Path, typer.Option(help="The recipe that holds `student` and `train`.")],
    as_json: bool = Json,
) -> None:
    """Train the recipe's student on a snapshot, from its base weights. One that was stopped goes on where it was.

    Example: balkit train pools/math 3f2a9c1b7d10-s3 --recipe recipe.yaml

    On several GPUs: accelerate launch --multi_gpu --num_processes 4 -m balkit train ...
    """
    from balkit.events import Event
    from balkit.pool import Pool
    from balkit.recipe import load
    from balkit.steps import train as train_student
    from balkit.student import is_main

    with progress(quiet=as_json or not is_main()) as notify:

        def on_step(step: int, steps: int, loss: float) -> None:
            notify(Event(0, 0, "train", f"loss {loss:.3f}", done=step, total=steps))

        done = train_student(Pool.open(pool), snapshot, recipe=load(recipe), progress=on_step)
    if not is_main():
        return
    if as_json:
        json_out({"checkpoint": str(done.path), "digest": done.digest, "steps": done.steps, "loss": done.losses[-1]})
    else:
        say(f"{done.path}\n{done.steps} steps, last loss {done.losses[-1]:.4f}, digest {done.digest[:12]}")


CheckpointPath = Annotated[Path, typer.Argument(help="A checkpoint's folder.", metavar="CHECKPOINT")]
ScorerPath = Annotated[
    Path, typer.Argument(help="A checkpoint's folder, base, or a model's folder or hub name.", metavar="CHECKPOINT")
]


def evaluate(
    pool: PoolPath,
    checkpoint: CheckpointPath,
    recipe: Annotated[Path, typer.Option(help="The recipe that holds `answers` and `evaluate`.")],
    split: Annotated[Literal["eval", "dev"], typer.Option(help="Whose examples.")] = "eval",
    against: Annotated[str | None, typer.Option(help="Another checkpoint's folder, or base.", metavar="OTHER")] = None,
    confusion: Annotated[bool, typer.Option("--confusion", help="What was taken for what.")] = False,
    errors: Annotated[int, typer.Option(help="Show so many wrong answers.", min=0)] = 0,
    samples: Annotated[int, typer.Option(help="Draw so many answers to each row; 0 is the greedy one.", min=0)] = 0,
    temperature: Annotated[float, typer.Option(help="With --samples: of the draws.", min=0.01)] = 0.7,
    seed: Annotated[int | None, typer.Option(help="With --samples: of the draws; the recipe's if not given.")] = None,
    as_json: bool = Json,
) -> None:
    """Measure a checkpoint by domain, with 95 % intervals, and keep its answers in the pool; those there are reused.

    With --samples also the mean accuracy of the drawn answers and pass@k; all else is then of the majority's answer.
    --against compares it with another one on the same rows; base is the recipe's student before any training.

    Example: balkit eval pools/math pools/math/checkpoints/3f2a9c1b7d10-s3-0a1b2c3d --recipe recipe.yaml --against base
    """
    from balkit.cli.measured import shown, told
    from balkit.events import Event
    from balkit.pool import Pool
    from balkit.recipe import load
    from balkit.steps import Sampling, measured

    opened, loaded = Pool.open(pool), load(recipe)
    drawn = Sampling(samples, temperature, loaded.seed if seed is None else seed) if samples else None
    with progress(quiet=as_json) as notify:

        def on_rows(done: int, total: int) -> None:
            notify(Event(0, 0, "evaluate", done=done, total=total))

        found = measured(
            opened, checkpoint, recipe=loaded, split=split, against=against, sampling=drawn, progress=on_rows
        )
    if as_json:
        json_out(told(found, confusion=confusion, errors=errors))
    else:
        shown(found, confusion=confusion, errors=errors)


def score(
    pool: PoolPath,
    checkpoint: ScorerPath,
    recipe: Annotated[Path, typer.Option(help="The recipe that holds `select.response`.")],
    name: Annotated[
        Literal["ifd", "loss", "entropy"] | None, typer.Option("--score", help="What to give; all three if not said.")
    ] = None,
    answers: Annotated[
        Literal["own", "reference"] | None, typer.Option(help="Whose answer, instead of the recipe's select.response.")
    ] = None,
    split: Annotated[Literal["train", "dev", "eval"], typer.Option(help="Whose examples.")] = "train",
    domain: Annotated[str | None, typer.Option(help="Only this domain.")] = None,
    written: Annotated[bool, typer.Option("--written", help="Also what the teacher wrote, a row of its own.")] = False,
    as_json: bool = Json,
) -> None:
    """Give every real example of a split its IFD, loss and entropy, and keep them in the pool; those there are reused.

    CHECKPOINT is a checkpoint's folder, base (the recipe's student before any training), or a model's folder or hub
    name: a small one may score in the student's place. One that was stopped goes on where it was.

    Example: balkit score pools/math pools/math/checkpoints/3f2a9c1b7d10-s1-0a1b2c3d --recipe recipe.yaml
    """
    import polars as pl

    from balkit.basis import Basis
    from balkit.events import Event
    from balkit.pool import Pool
    from balkit.recipe import load
    from balkit.scoring import score_pool, scorer
    from balkit.steps import untrained
    from balkit.student import SCORES

    opened, loaded = Pool.open(pool), load(recipe)
    if answers is not None:
        response = "student" if answers == "own" else "reference"
        loaded = loaded.model_copy(update={"select": loaded.select.model_copy(update={"response": response})})
    basis = Basis.of(opened, loaded)
    every = {"train": basis.real, "dev": basis.dev, "eval": basis.evaluation}[split]
    if written:
        every = pl.concat([every, opened.examples(split=split, origin="synthetic", domain_set=loaded.domain_set)])
    chosen = every if domain is None else every.filter(pl.col("domain") == domain)
    base = str(checkpoint) == "base"
    folder = untrained(opened, recipe=loaded, basis=basis) if base else scorer(opened, str(checkpoint))
    with progress(quiet=as_json) as notify:

        def on_rows(done: int, total: int) -> None:
            notify(Event(0, 0, "score", done=done, total=total))

        scores = score_pool(opened, folder, chosen, recipe=loaded, names=(name,) if name else SCORES, progress=on_rows)
    groups = ["name", "domain", "origin"] if written else ["name", "domain"]
    joined = scores.join(chosen.select("example_id", "domain", "origin"), on="example_id")
    frame_out(
        joined.group_by(groups)
        .agg(
            rows=pl.len(),
            unscored=pl.col("value").null_count(),
            median=pl.col("value").median(),
            p90=pl.col("value").quantile(0.9),
        )
        .sort(groups),
        as_json=as_json,
    )
