"""What a student, or a small model in its place, gives a pool's examples: scored once, and kept in the pool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from balkit import answers, frames, student, texts
from balkit import recipe as recipes
from balkit.pool import Commit, Pool
from balkit.recipe import Recipe

OnRows = Callable[[int, int], None]


def score(checkpoint: Path, examples: pl.DataFrame, *, recipe: Recipe, progress: OnRows | None = None) -> pl.DataFrame:
    """SCORES (ifd, loss, entropy) of EXAMPLES, by the student's own answers or the references (`select.response`)."""
    return student.score(
        checkpoint,
        _with_references(examples),
        response=recipe.select.response,
        max_new_tokens=recipe.evaluate.max_new_tokens,
        batch_size=recipe.evaluate.batch_size,
        progress=progress,
    )


def score_pool(
    pool: Pool,
    checkpoint: Path,
    examples: pl.DataFrame,
    *,
    recipe: Recipe,
    names: Sequence[str] = student.SCORES,
    key: tuple[str, int, str] | None = None,
    progress: OnRows | None = None,
) -> pl.DataFrame:
    """SCORES of EXAMPLES by a checkpoint, all of them in the pool when this returns.

    What the pool has of the same weights, example and settings is read, not scored again. Every batch is written to a
    file in the pool's folder as it is done, and all are committed at the end; so one that was interrupted or killed
    loses no more than the batch that it was at. `key` marks the commit, which is made even where nothing is new.
    `progress` is called as (examples done, in all).
    """
    response, most, batch_size = recipe.select.response, recipe.evaluate.max_new_tokens, recipe.evaluate.batch_size
    digest, settings = student.digest(checkpoint), student.score_settings(response=response, max_new_tokens=most)
    wanted = examples.select("example_id")
    journal = student.Journal(pool.path / "scoring" / f"{digest[:12]}-{texts.digest(settings)[:12]}.jsonl")
    mine = pl.col("name").is_in(list(names)) & (pl.col("settings") == settings)
    stored = _first(pool.scores(checkpoint=digest).filter(mine), of=wanted)
    found = _first(pl.concat([stored, journal.scores().filter(mine)]), of=wanted)
    whole = found.group_by("example_id").len().filter(pl.col("len") == len(names))
    left, parts, done = examples.join(whole, on="example_id", how="anti"), [found], whole.height
    if left.height:
        given = _with_references(left)
        for part in student.scored(
            checkpoint, given, response=response, max_new_tokens=most, batch_size=batch_size, names=names
        ):
            journal.add(part)
            parts.append(part)
            done += part.height // len(names)
            if progress is not None:
                progress(done, examples.height)
    found = _first(pl.concat(parts), of=wanted)
    if key is not None or found.height > stored.height:
        message = f"{recipe.name}: {examples.height} examples scored by {checkpoint.name}"
        pool.commit(Commit(message=message, key=key, scores=found))
    journal.forget()
    return found


def scorer(pool: Pool, name: str | Path) -> Path:
    """The folder of what scores: a student's as it is; for a model's folder or hub name, one that names it."""
    if (Path(name) / "manifest.json").is_file():
        return Path(name)
    section = recipes.Student(base=str(name))
    folder = pool.path / "checkpoints" / f"scorer-{texts.digest(section.model_dump(mode='json'))[:12]}"
    return student.base(section, corpus=[], seed=0, folder=folder)


def _with_references(examples: pl.DataFrame) -> pl.DataFrame:
    """EXAMPLES with what their references say as an answer, in `response`; empty where there is none."""
    said = [answers.completion("", given) if given else "" for given in examples["reference"]]
    return examples.with_columns(response=pl.Series(said, dtype=pl.String))


def _first(scores: pl.DataFrame, *, of: pl.DataFrame) -> pl.DataFrame:
    """The first of each score of the examples, in their order and in that of `student.SCORES`."""
    each = scores.unique(["example_id", "name"], keep="first", maintain_order=True)
    place = {name: at for at, name in enumerate(student.SCORES)}
    each = each.sort(pl.col("name").replace_strict(place, return_dtype=pl.Int64), maintain_order=True)
    return frames.check(of.join(each, on="example_id", maintain_order="left_right"), frames.SCORES)
