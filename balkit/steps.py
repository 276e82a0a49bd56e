"""The steps of a stage that can be done alone: train, evaluate, answer a split's examples, write new ones."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import polars as pl

from balkit import balance, frames, selection, student, synthesize, texts
from balkit import recipe as recipes
from balkit.basis import Basis
from balkit.errors import RunError, StudentError
from balkit.pool import Commit, Pool, answered, training_rows
from balkit.recipe import Recipe
from balkit.reconcile import ledger_of
from balkit.teacher import Ledger, Progress, Teacher, make_teacher
from balkit.vectors import Vectors, make_encoder

log = logging.getLogger(__name__)

OnStep = Callable[[int, int, float], None]
OnRows = Callable[[int, int], None]


def train(
    pool: Pool, snapshot_id: str, *, recipe: Recipe, basis: Basis | None = None, progress: OnStep | None = None
) -> student.Trained:
    """Train the recipe's student on a snapshot, from its base weights; what is there already is not trained again.

    `basis` is what a small student's tokenizer is learned from: the examples of the snapshot's version if not given.
    `progress` is called as (step, steps, loss in nats per token).
    """
    snapshot = pool.snapshot(snapshot_id)
    if said := pool.said_of_refused(snapshot.snapshot_id):
        log.warning("%s: %s", snapshot.snapshot_id, said)
    basis = basis or Basis.of(pool, recipe, at=snapshot.version)
    with student.main_first():
        base = untrained(pool, recipe=recipe, basis=basis)
        file = pool.snapshot_file(snapshot.snapshot_id)
    body = [recipe.student.model_dump(mode="json"), recipe.train.settings(), recipe.seed, base.name]
    return student.train(
        base,
        pl.read_parquet(file),
        student=recipe.student,
        options=recipe.train,
        out=pool.path / "checkpoints" / f"{snapshot.snapshot_id}-{texts.digest(body)[:8]}",
        seed=recipe.seed,
        dev=validation_rows(pool, at=snapshot.version) if recipe.train.early_stopping else None,
        progress=progress,
    )


def untrained(pool: Pool, *, recipe: Recipe, basis: Basis) -> Path:
    """The folder of the recipe's untrained student; runs and seeds that agree on it share it."""
    corpus = [text for row in basis.real.select("prompt", "reference").iter_rows() for text in row if text]
    learned = sorted(set(corpus)) if recipe.student.base == "small" else []
    name = f"base-{texts.digest([recipe.student.model_dump(mode='json'), recipe.seed, learned])[:12]}"
    return student.base(recipe.student, corpus=corpus, seed=recipe.seed, folder=pool.path / "checkpoints" / name)


def refuse_long_prompts(pool: Pool, *, recipe: Recipe, basis: Basis) -> None:
    """Say before any call is paid for that some real examples could never be trained on. Raises `StudentError`."""
    if recipe.train.over_length == "drop":
        return
    limit = recipe.train.max_length
    if recipe.student.base == "small":
        limit = min(limit, recipe.student.context)
    lengths = student.prompt_tokens(untrained(pool, recipe=recipe, basis=basis), basis.real["prompt"].to_list())
    long = [at for at, tokens in enumerate(lengths) if tokens >= limit]
    if long:
        raise StudentError(
            f"{len(long)} of {len(lengths)} real train examples have prompts that leave no room for an answer in "
            f"{limit} tokens (the longest has {max(lengths)}; {basis.real['example_id'][long[0]][:12]} is one): raise "
            "train.max_length (and student.context of a small student), retire them, or set train.over_length: drop"
        )


def evaluate(
    checkpoint: Path,
    *,
    recipe: Recipe,
    basis: Basis,
    split: Literal["eval", "dev"] = "eval",
    sample: student.Sample | None = None,
    progress: OnRows | None = None,
) -> pl.DataFrame:
    """EVALUATIONS of a checkpoint on the eval split, or on dev, as far as it has reference answers."""
    return student.evaluate(
        checkpoint,
        basis.measured if split == "eval" else basis.measured_dev,
        answers=recipe.answers,
        labels=basis.labels,
        section=recipe.evaluate,
        sample=sample,
        progress=progress,
    )


@dataclass(frozen=True)
class Sampling:
    """So many answers drawn to each example, at a temperature, by a seed."""

    samples: int
    temperature: float
    seed: int


@dataclass(frozen=True)
class Measured:
    """A checkpoint's EVALUATIONS of a split, those of the one it is compared with, and the EXAMPLES they are of.

    With answers drawn several times these are of the majority's answer, and `samples` holds each draw's. `counts` has
    the train examples of every domain.
    """

    found: pl.DataFrame
    other: pl.DataFrame | None
    examples: pl.DataFrame
    head: frozenset[str]
    counts: Mapping[str, int]
    kind: str
    samples: tuple[pl.DataFrame, ...] = ()


def measured(
    pool: Pool,
    checkpoint: Path,
    *,
    recipe: Recipe,
    split: Literal["eval", "dev"] = "eval",
    against: str | None = None,
    sampling: Sampling | None = None,
    progress: OnRows | None = None,
) -> Measured:
    """What a checkpoint, and another (a folder, or `base`), answer to a split; answers that are stored are reused.

    Answers are greedy, or drawn as `sampling` says.
    """
    basis = Basis.of(pool, recipe)
    examples = basis.measured if split == "eval" else basis.measured_dev
    if examples.is_empty():
        raise StudentError(
            f"the pool has no {split} row with a reference answer: `balkit add POOL FILE --split {split} ...`"
        )

    def answers_of(folder: Path, sample: student.Sample | None = None) -> pl.DataFrame:
        settings = student.evaluate_settings(
            answers=recipe.answers, labels=basis.labels, section=recipe.evaluate, sample=sample
        )
        asked = student.asked_of(examples, section=recipe.evaluate)
        stored = pool.evaluations(checkpoint=student.digest(folder)).filter(pl.col("settings") == settings)
        stored = stored.join(asked, on=["example_id", "domain"], how="semi")
        if stored.height == asked.height:
            return stored
        found = evaluate(folder, recipe=recipe, basis=basis, split=split, sample=sample, progress=progress)
        new = found.join(stored, on="example_id", how="anti")
        pool.commit(Commit(message=f"{folder.name} evaluated on {split}", evaluations=new))
        return found

    def drawn(folder: Path) -> tuple[pl.DataFrame, tuple[pl.DataFrame, ...]]:
        if sampling is None:
            return answers_of(folder), ()
        each = (student.Sample(sampling.temperature, sampling.seed, n) for n in range(sampling.samples))
        samples = tuple(answers_of(folder, sample) for sample in each)
        return student.majority(samples, kind=recipe.answers.kind), samples

    (found, samples), other = drawn(checkpoint), None
    if against is not None:
        other, _ = drawn(untrained(pool, recipe=recipe, basis=basis) if against == "base" else Path(against))
    return Measured(found, other, examples, basis.head, basis.counts, recipe.answers.kind, samples)


def channel(
    ledger: Ledger,
    *,
    recipe: Recipe,
    labels: Sequence[str],
    run_id: str,
    stage: int,
    teacher: Teacher | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> synthesize.Channel:
    """The one way to the recipe's teachers (or to the one given instead of all), under the run's caps and name.

    Each has a door of its own; the caps are the run's over all of them, and so is `progress`.
    """
    lines: dict[str, synthesize.Line] = {}
    seen: dict[str, Progress] = {}

    def line(section: recipes.Teacher) -> synthesize.Line:
        def note(so_far: Progress) -> None:
            seen[section.name] = so_far
            if progress is not None:
                progress(Progress.sum(list(seen.values())))

        if section.name not in lines:
            door = ledger.door(
                teacher or make_teacher(section),
                run_id=run_id,
                price=section.price,
                model=section.model,
                caps=recipe.caps,
                tries=section.tries,
                progress=note,
            )
            lines[section.name] = synthesize.Line(door.ask, section.name, section.model)
        return lines[section.name]

    usual = line(recipe.teacher)
    return synthesize.Channel(
        ask=usual.ask,
        endpoint=usual.endpoint,
        model=usual.model,
        stage=stage,
        section=recipe.rationale,
        expected=recipe.answers,
        labels=labels,
        lines={purpose: [line(one) for one in recipe.asked(purpose)] for purpose in ("rationale", "synthesis", "vote")},
    )


def annotate(
    pool: Pool,
    recipe: Recipe,
    *,
    split: Literal["train", "dev"],
    teacher: Teacher | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> pl.DataFrame:
    """Has the teacher answer every example of a split that has no accepted rationale, and commits what it wrote.

    Examples whose prompt stands in eval are left out, and eval itself is never shown to a teacher.
    Returns the new RATIONALES. Raises as `stages.run` does when the teacher or a cap stops it.
    """
    basis = Basis.of(pool, recipe)
    basis.refuse_unreadable()
    done = basis.reviewed.standing(pool.rationales()).filter("accepted")
    left = (basis.dev if split == "dev" else basis.real).join(done, on="example_id", how="anti").sort("example_id")
    run_id = texts.digest(["annotate", recipe.run_digest(), split])
    with pool.lock(), ledger_of(pool) as ledger:
        to = channel(
            ledger, recipe=recipe, labels=basis.labels, run_id=run_id, stage=0, teacher=teacher, progress=progress
        )
        wanted = 1 if split == "dev" else recipe.rationale.per_example
        to = replace(to, refused=basis.reviewed.refused)
        written = synthesize.rationales(left.with_columns(wanted=wanted), channel=to)
        message = f"{recipe.name}: rationales for {left.height} {split} rows"
        pool.commit(Commit(message=message, rationales=written, calls=ledger.calls(run_id)))
    return written


def write(
    pool: Pool,
    recipe: Recipe,
    *,
    rows: Mapping[str, int],
    teacher: Teacher | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> synthesize.Written:
    """Has the teacher write new examples, `rows` by domain, and commits them with what was thought of each.

    Checked as a run checks them, against eval and against all that is in the pool. They are there to be looked at
    and queried; a run draws on what it wrote itself. After a committed stage, or asked again, it writes others; a run
    that comes later may find its first calls paid. Raises `RunError` for a domain that is not in the pool, and as
    `stages.run` does when the teacher or a cap stops it.
    """
    basis = Basis.of(pool, recipe)
    basis.refuse_unreadable()
    unknown = sorted(rows.keys() - basis.counts.keys())
    if unknown:
        raise RunError(f"no domain of {pool.path} is called {', '.join(unknown)}; there are: {', '.join(basis.counts)}")
    run_id = texts.digest(["write", recipe.run_digest()])
    before = pool.calls().filter(pl.col("purpose") == "synthesis").unique("key").group_by("domain").len()
    vectors = Vectors(pool.path / "vectors", make_encoder(recipe.vectors))
    apart = basis.evaluation["prompt"].to_list()
    with pool.lock(), ledger_of(pool) as ledger:
        written = synthesize.write_examples(
            rows,
            channel=channel(
                ledger, recipe=recipe, labels=basis.labels, run_id=run_id, stage=0, teacher=teacher, progress=progress
            ),
            section=recipe.synthesis,
            sources=synthesize.Sources(
                demonstrations=basis.real,
                known=sorted({*pool.examples()["prompt"], *pool.retired_prompts()} - set(apart)),
                evaluation=apart,
                encode=vectors.of,
                pool=pool.examples().select("example_id", "prompt"),
            ),
            seed=recipe.seed,
            start_sample=dict(before.iter_rows()),
        )
        kept = written.decisions.filter("kept").select("example_id").unique()
        pool.commit(
            Commit(
                message=f"{recipe.name}: {kept.height} of {sum(rows.values())} examples written",
                examples=written.examples,
                rationales=written.rationales,
                decisions=frames.check(written.decisions, frames.DECISIONS),
                calls=ledger.calls(run_id),
            )
        )
    return written


def needs_vectors(recipe: Recipe) -> bool:
    """Whether a run of the recipe makes vectors of examples, to choose by or to compare written ones with."""
    methods = {recipe.select.first, recipe.select.then} if recipe.stages > 1 else {recipe.select.first}
    return "synthetic" in recipe.fill or any(map(selection.needs_vectors, methods))


def accuracies(evaluations: pl.DataFrame) -> balance.Accuracies:
    """How many rows of each domain EVALUATIONS of one checkpoint hold, and how many right: what `feedback` goes by."""
    counted = evaluations.group_by("domain").agg(pl.col("correct").sum(), rows=pl.len()).sort("domain")
    return {domain: balance.Measured(correct, rows) for domain, correct, rows in counted.iter_rows()}


def validation_rows(pool: Pool, *, at: int) -> pl.DataFrame:
    """SNAPSHOT_ROWS of the dev split with an accepted rationale at a version, one an example: for validation files.

    Examples whose prompt stands in eval are left out; what a person said of the worked answers goes before.
    """
    view = pool.at(at)
    dev, leaking = view.examples(split="dev"), view.leaking()
    apart = dev.filter(~pl.col("example_id").is_in(leaking.implode()))
    worked = view.reviewed().preferred(view.rationales(of=apart["example_id"].to_list()))
    return training_rows(answered(apart, worked), stage=0)
