"""The multi-stage loop: the only file that knows the order of things.

One stage: quotas -> choose and synthesize -> commit with a snapshot -> train -> score -> evaluate. With the policy
`feedback` the student answers dev after training, and the next stage's quotas follow from that. Every step is
committed under (run, stage, step) and skipped when it is there already, so a run that was killed goes on where it
was; teacher replies come from the ledger, weights from the checkpoint folder.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import polars as pl

from balkit import balance, frames, measuring, scoring, selection, steps, student, synthesize
from balkit import recipe as recipes
from balkit.assemble import Choosing, Encode, Material, StageRows, Tools, assemble, candidates
from balkit.basis import Basis
from balkit.errors import RunError
from balkit.events import Event, Notify
from balkit.outlook import Filling, Outlook
from balkit.planning import Plan, plan_of
from balkit.pool import Commit, Pool, SnapshotDraft
from balkit.recipe import Recipe
from balkit.reconcile import calls_of, ledger_of
from balkit.results import RunResult, StageResult, report_of
from balkit.runs import FORECAST, MEASURES, RunRecord, measures_of, runs_of, write
from balkit.standing import Keeper
from balkit.synthesize import Channel, examples_for
from balkit.teacher import Ledger, Progress, Teacher
from balkit.vectors import Encoder, Vectors, make_encoder
from balkit.within import Within

log = logging.getLogger(__name__)

#: New texts up to which their encoding is not told of.
_FEW_TEXTS = 1024


def run(
    pool: Pool,
    recipe: Recipe,
    *,
    teacher: Teacher | None = None,
    new: bool = False,
    train: bool = True,
    evaluate: Literal["each", "last"] = "each",
    notify: Notify | None = None,
) -> RunResult:
    """Runs all stages of a recipe on a pool, or goes on with a run of the same recipe that has not ended.

    `teacher` stands in for the recipe's own (tests, dry runs). `new` starts another run though one exists. `train`
    False makes the snapshots only; `evaluate` says whose students answer the eval split: each stage's, or the last
    one's. Raises `CapReached`, `TeacherStopped` or `TeacherPaused` with everything that was paid for kept: the same
    call continues. Raises `PoolLocked` while another run pays on this pool.
    """
    if not train and recipe.stages > 1:
        _refuse_untrained(recipe)
    keeper = Keeper(notify or (lambda event: None))
    with pool.lock():
        with pool.held():
            opened = _Run.open(pool, recipe, new=new, notify=keeper.note)
        with keeper.into(opened.folder):
            return opened.go(teacher, train=train, evaluate=evaluate)


def _refuse_untrained(recipe: Recipe) -> None:
    method = recipe.select.then
    if selection.needs_scores(method) and recipe.select.scorer is None:
        raise RunError(f"{recipe.name}: select.then: {method} needs a trained student; train, or choose another method")
    if recipe.balance.policy == "feedback":
        raise RunError(
            f"{recipe.name}: balance.policy: feedback needs a trained student; train, or choose another policy"
        )


@dataclass(frozen=True)
class _Run:
    """A run of one recipe from one version of a pool."""

    pool: Pool
    recipe: Recipe
    record: RunRecord
    notify: Notify = field(repr=False)
    measured: dict[int, balance.Accuracies] = field(default_factory=dict)  # on dev, by stage; grows as stages end
    filling: Filling = field(default_factory=Filling, repr=False)

    @classmethod
    def open(cls, pool: Pool, recipe: Recipe, *, new: bool, notify: Notify) -> _Run:
        """The newest run of this recipe on this pool, or the first one from the version that is newest now."""
        digest = recipe.run_digest()
        earlier = runs_of(pool.path, recipe_digest=digest)
        if earlier and not new:
            log.info("run %s goes on from version %d", earlier[-1].run_id[:12], earlier[-1].base_version)
            found = cls(pool, recipe, earlier[-1], notify)
            found.tell_what_is_newer()
        else:
            record = RunRecord.first(
                name=recipe.name, recipe_digest=digest, base_version=pool.version, number=len(earlier)
            )
            found = cls(pool, recipe, record, notify)
        found.basis.schedule  # noqa: B018  a budget that cannot be met is said before anything is stored or paid
        found.basis.refuse_without_dev()
        if found.record not in earlier:
            found.record.save(pool.path)
        write(found.folder / "recipe.yaml", recipes.dump(recipe))
        if not (found.folder / FORECAST).exists():
            write(found.folder / FORECAST, json.dumps(found.planned.forecast(), indent=1))
        return found

    def tell_what_is_newer(self) -> None:
        """A run keeps to the version that it began from, which is easily forgotten."""
        newer = self.pool.examples(origin="source").filter(pl.col("added_in") > self.record.base_version).height
        if newer:
            log.warning(
                "run %s began at version %d; %d examples were added since and are not in it: `balkit run --new` "
                "starts another, which pays only for what was not asked before",
                *(self.run_id[:12], self.record.base_version, newer),
            )

    @property
    def run_id(self) -> str:
        return self.record.run_id

    def go(self, teacher: Teacher | None, *, train: bool, evaluate: Literal["each", "last"]) -> RunResult:
        """All stages in order; each step only if it is not there yet."""
        results: list[StageResult] = []
        with ledger_of(self.pool) as ledger:
            scorer: Path | None = None
            if self.pool.committed((self.run_id, 1, "data")) is None:
                self.say(0, "prepare", "reading the pool, looking through it for what cannot be trained on")
                self.basis.refuse_unreadable()
                if train:
                    steps.refuse_long_prompts(self.pool, recipe=self.recipe, basis=self.basis)
            self.dev(ledger, teacher)
            so_far: dict[str, int] = {}
            for stage in range(1, self.recipe.stages + 1):
                self.filling.begin(self.quotas(stage), rows=so_far, tail=self.basis.tail)
                snapshot_id = self.data(stage, ledger=ledger, teacher=teacher, scored_by=scorer)
                with self.pool.held():
                    so_far = self.refuse_nothing(snapshot_id)
                    self.keep_measures(stage, snapshot_id)
                self.filling.have(so_far)
                trained = self.train(stage, snapshot_id) if train else None
                if trained is not None:
                    self.measure(stage, trained.path, checkpoint=trained.digest)
                scorer = self.scorer(trained)
                if scorer is not None:
                    self.score(stage, scorer)
                if trained is not None and (evaluate == "each" or stage == self.recipe.stages):
                    self.evaluate(stage, trained.path, checkpoint=trained.digest)
                with self.pool.held():
                    results.append(self.result(stage, snapshot_id, trained))
            done = RunResult(
                self.run_id,
                self.recipe.name,
                self.record.base_version,
                tuple(results),
                self.basis.head,
                ledger.spent(self.run_id),
                frames.MEASURES.of(measures_of(self.pool.path, run_id=self.run_id)),
                synthesize.yields(self.own(self.recipe.stages + 1), self.calls(self.recipe.stages + 1)),
                self.said_of_refusals() if results[-1].rows < self.recipe.budget_rows else "",
            )
            write(self.folder / "report.json", json.dumps(report_of(done), indent=1))
            self.say(self.recipe.stages, "done", results[-1].snapshot_id)
            return done

    @cached_property
    def basis(self) -> Basis:
        """The base version, read once."""
        base = self.record.base_version
        before = self.pool.at(base).decisions()
        return Basis.of(self.pool, self.recipe, at=base, calls=calls_of(self.pool), decisions=before)

    @cached_property
    def planned(self) -> Plan:
        """The plan, with lengths of replies as they were learned until now."""
        return plan_of(self.basis)

    @cached_property
    def within(self) -> Within | None:
        """What shares a domain's quota out inside the domain, where the recipe says so."""
        recipe = self.recipe
        return Within.of(self.basis.clusters, policy=recipe.balance, stages=recipe.stages)

    @cached_property
    def vectors(self) -> Vectors:
        encoder: Encoder = make_encoder(self.recipe.vectors)
        return Vectors(self.pool.path / "vectors", encoder)

    @property
    def folder(self) -> Path:
        return self.record.folder(self.pool.path)

    # -- the steps --------------------------------------------------------------------------------------------------

    def dev(self, ledger: Ledger, teacher: Teacher | None) -> None:
        """Rationales for the dev split, which serves validation files."""
        recipe, key = self.recipe, (self.run_id, 0, "dev")
        dev = self.basis.dev.join(self.basis.reviewed.accepted, on="example_id", how="anti", maintain_order="left")
        if dev.is_empty() or self.pool.committed(key) is not None:
            return
        self.say(0, "dev")
        written = synthesize.rationales(dev.with_columns(wanted=1), channel=self.channel(0, ledger, teacher))
        message = f"{recipe.name}: rationales for {dev.height} dev rows"
        self.pool.commit(Commit(message=message, key=key, rationales=written, calls=ledger.calls(self.run_id)))

    def data(self, stage: int, *, ledger: Ledger, teacher: Teacher | None, scored_by: Path | None) -> str:
        """Chooses, synthesizes, checks and commits the stage's rows with their snapshot; returns its id."""
        snapshot_id = f"{self.run_id[:12]}-s{stage}"
        key = (self.run_id, stage, "data")
        if self.pool.committed(key) is not None:
            return snapshot_id
        self.say(stage, "data")
        previous = f"{self.run_id[:12]}-s{stage - 1}" if stage > 1 else None
        with self.pool.held():
            self.refuse_changes(self.rows(previous))
            material = self.material(stage, previous=previous, scored_by=scored_by)
        done = assemble(self.quotas(stage), material, stage=stage, tools=self.tools(stage, ledger, teacher))
        self.pool.commit(
            Commit(
                message=f"{self.recipe.name}: stage {stage} of {self.recipe.stages}, {done.rows.height} rows",
                key=key,
                examples=done.examples,
                rationales=done.rationales,
                decisions=done.decisions,
                calls=ledger.calls(self.run_id),
                snapshot=self.draft(stage, done, parent=previous),
            )
        )
        return snapshot_id

    def keep_measures(self, stage: int, snapshot_id: str) -> None:
        """What the rows stand for, in the run's folder; without vectors where the run needs none itself."""
        kept = measures_of(self.pool.path, run_id=self.run_id)
        if any(row["stage"] == stage for row in kept):
            return
        found = measuring.measures(
            self.rows(snapshot_id),
            real=self.basis.real,
            quotas=self.quotas(stage),
            stage=stage,
            encode=self.encoded("data", stage) if steps.needs_vectors(self.recipe) else None,
        )
        write(self.folder / MEASURES, json.dumps({"measures": kept + found.to_dicts()}, indent=1))

    def refuse_nothing(self, snapshot_id: str) -> dict[str, int]:
        """Rows by domain; stop where a stage has brought none at all, with why: there is nothing to train on."""
        rows = self.rows(snapshot_id)
        if rows.is_empty():
            raise RunError(
                f"run {self.run_id[:12]}: no row came of it; {self.said_of_refusals()}. Mend the cause, then "
                "`balkit run --new` starts another"
            )
        return dict(rows.group_by("domain").len().iter_rows())

    def said_of_refusals(self) -> str:
        """The commonest reasons for which rows were refused."""
        refused = self.own(self.recipe.stages + 1).filter(
            ~pl.col("kept") & (pl.col("step") != "select") & (pl.col("reason") != "surplus")
        )
        common = refused["reason"].value_counts(sort=True).head(3).iter_rows()
        reasons = ", ".join(f"{count} {reason}" for reason, count in common)
        return f"refused: {reasons or 'nothing, there was no more to draw on'}"

    def refuse_changes(self, rows: pl.DataFrame) -> None:
        """Stop before money is spent on a stage that the pool would refuse.

        Since the run began, an example that it may use was retired or re-labelled, or its prompt came into eval.
        """
        now, leaking = self.pool.examples(domain_set=self.recipe.domain_set), self.pool.leaking()
        used = pl.concat([self.basis.real.select("example_id"), rows.select("example_id")]).unique()
        training = now.filter((pl.col("split") == "train") & ~pl.col("example_id").is_in(leaking.implode()))
        gone = used.join(training, on="example_id", how="anti")
        moved = self.basis.real.join(training, on=["example_id", "domain"], how="anti")
        bad = sorted({*gone["example_id"], *moved["example_id"]})
        if bad:
            raise RunError(
                f"{len(bad)} examples of run {self.run_id[:12]} were retired, re-labelled or put into eval since it "
                f"began at version {self.record.base_version}, {bad[0][:12]} among them; `balkit run --new` starts "
                "another run from the pool as it is now, and pays only for what was not asked before"
            )

    def draft(self, stage: int, done: StageRows, *, parent: str | None) -> SnapshotDraft:
        return SnapshotDraft(
            run_id=self.run_id,
            stage=stage,
            recipe_yaml=recipes.dump(self.recipe),
            parent=parent,
            rows=done.rows,
            deficits=done.deficits,
        )

    def train(self, stage: int, snapshot_id: str) -> student.Trained:
        """The student of this stage, from its base weights on all rows so far."""
        self.say(stage, "train")

        def on_step(step: int, total: int, loss: float) -> None:
            self.say(stage, "train", f"loss {loss:.3f}", done=step, total=total)

        return steps.train(self.pool, snapshot_id, recipe=self.recipe, basis=self.basis, progress=on_step)

    def measure(self, stage: int, checkpoint_folder: Path, *, checkpoint: str) -> None:
        """How this stage's student does on dev, where the policy lets that steer the next one; eval never does."""
        recipe, key = self.recipe, (self.run_id, stage, "dev evaluation")
        if stage == recipe.stages or recipe.balance.policy != "feedback":
            return
        if self.pool.committed(key) is None:
            on_rows = self.on_rows("evaluate dev", stage)
            found = steps.evaluate(checkpoint_folder, recipe=recipe, basis=self.basis, split="dev", progress=on_rows)
            self.pool.commit(
                Commit(message=f"{recipe.name}: stage {stage} evaluated on dev", key=key, evaluations=found)
            )
        found = self.evaluations(checkpoint, of=self.basis.measured_dev)
        if found.is_empty():
            raise self.trained_anew(f"the answers to dev of stage {stage}", checkpoint=checkpoint)
        self.measured[stage] = steps.accuracies(found)

    def scorer(self, trained: student.Trained | None) -> Path | None:
        """Who scores the next stage's candidates: the recipe's scorer, or this stage's student."""
        if self.recipe.select.scorer is not None:
            return scoring.scorer(self.pool, self.recipe.select.scorer)
        return None if trained is None else trained.path

    def score(self, stage: int, checkpoint: Path) -> None:
        """What this stage's student, or the recipe's scorer, gives the candidates of the next one."""
        recipe, key = self.recipe, (self.run_id, stage, "scores")
        score = selection.needs_scores(recipe.select.then)
        if stage == recipe.stages or score is None or self.pool.committed(key) is not None:
            return
        self.say(stage, "score")
        on_rows, asked = self.on_rows("score", stage), self.candidates(stage + 1)
        scores = scoring.score_pool(self.pool, checkpoint, asked, recipe=recipe, key=key, progress=on_rows)
        values = scores.filter(pl.col("name") == score)["value"]
        said = f"{values.count()} of {len(values)} candidates scored"
        self.say(stage, "score", said, done=len(values), total=len(values))
        if values.null_count() * 2 > len(values):
            log.warning("%s: stage %d: only %s; the others are taken last, in no order", recipe.name, stage, said)

    def evaluate(self, stage: int, checkpoint_folder: Path, *, checkpoint: str) -> None:
        """The student's answers to the eval split."""
        recipe, key = self.recipe, (self.run_id, stage, "evaluation")
        if self.basis.measured.is_empty() or self.pool.committed(key) is not None:
            return
        self.say(stage, "evaluate")
        on_rows = self.on_rows("evaluate", stage)
        found = steps.evaluate(checkpoint_folder, recipe=recipe, basis=self.basis, progress=on_rows)
        self.pool.commit(Commit(message=f"{recipe.name}: stage {stage} evaluated", key=key, evaluations=found))

    # -- what the steps need ----------------------------------------------------------------------------------------

    def material(self, stage: int, *, previous: str | None, scored_by: Path | None) -> Material:
        rows, own = self.rows(previous), self.own(stage)
        written = self.pool.examples(origin="synthetic") if own.height else frames.EXAMPLES.empty()
        ours = written.join(own, on="example_id", how="semi")
        tried = own.filter(pl.col("step").is_in(["rationale", "vote"]) & ~pl.col("kept"))
        left = ours.join(own.filter(pl.col("reason") == "surplus"), on="example_id", how="semi")
        train_and_dev = self.basis.examples.filter(pl.col("split") != "eval")
        return Material(
            real=self.unused(stage, rows),
            demonstrations=self.basis.real,
            evaluation=self.basis.evaluation["prompt"].to_list(),
            known=sorted({*train_and_dev["prompt"], *ours["prompt"], *self.pool.retired_prompts()}),
            rows=rows,
            surplus=left.join(tried, on="example_id", how="anti").join(rows, on="example_id", how="anti"),
            scores=self.scores(stage, checkpoint=scored_by),
            calls_made=self.calls_made(stage),
            yields=synthesize.by_domain(synthesize.yields(own, self.calls(stage))),
            pool=pl.concat([part.select("example_id", "prompt") for part in (self.basis.examples, ours)]),
            reviewed=self.basis.reviewed.accepted,
        )

    def channel(self, stage: int, ledger: Ledger, teacher: Teacher | None) -> Channel:
        """The way to the teacher, with progress."""
        outlook = Outlook(self.planned, spent=ledger.spent(self.run_id), cap_usd=self.recipe.caps.usd)

        def on_calls(progress: Progress) -> None:
            calls = outlook.calls(stage, progress)
            step = "data" if stage else "dev"
            self.say(stage, step, done=calls.done, total=calls.done + calls.to_buy, calls=calls)

        way = steps.channel(
            ledger,
            recipe=self.recipe,
            labels=self.basis.labels,
            run_id=self.run_id,
            stage=stage,
            teacher=teacher,
            progress=on_calls,
        )
        return self.filling.listening(replace(way, refused=self.basis.reviewed.refused))

    def tools(self, stage: int, ledger: Ledger, teacher: Teacher | None) -> Tools:
        recipe = self.recipe
        return Tools(
            seed=recipe.seed,
            fill=recipe.fill,
            select=recipe.select,
            synthesis=recipe.synthesis,
            share=self.basis.share(stage, measured=self.measured),
            channel=self.channel(stage, ledger, teacher),
            encode=self.encoded("data", stage),
            within=self.within,
            on_rows=self.filling.count,
        )

    def encoded(self, step: str, stage: int) -> Encode:
        """Vectors of texts, with progress where many are new."""

        def on_texts(done: int, total: int) -> None:
            if total > _FEW_TEXTS:
                self.say(stage, step, "vectors", done=done, total=total)

        return lambda prompts: self.vectors.of(prompts, progress=on_texts)

    def candidates(self, stage: int) -> pl.DataFrame:
        """Examples worth scoring for a stage, with the student of the one before."""
        rows = self.rows(f"{self.run_id[:12]}-s{stage - 1}")
        each = self.recipe.rationale.per_example
        quotas = {domain: examples_for(rows, per_example=each) for domain, rows in self.quotas(stage).items()}
        return candidates(
            quotas,
            self.unused(stage, rows),
            rows=rows,
            stage=stage,
            choosing=Choosing(
                self.recipe.seed, self.recipe.select, each, self.encoded("score", stage - 1), self.within
            ),
        )

    def unused(self, stage: int, rows: pl.DataFrame) -> pl.DataFrame:
        """Real examples that this run neither drew nor had refused before a stage."""
        refused = self.own(stage).filter((pl.col("step") == "rationale") & ~pl.col("kept"))["example_id"]
        gone = pl.concat([rows["example_id"], refused]).unique()
        return self.basis.real.filter(~pl.col("example_id").is_in(gone.implode()))

    def rows(self, snapshot_id: str | None) -> pl.DataFrame:
        return frames.SNAPSHOT_ROWS.empty() if snapshot_id is None else self.pool.snapshot(snapshot_id).rows

    def own(self, stage: int) -> pl.DataFrame:
        """This run's decisions before a stage."""
        return self.pool.decisions(run_id=self.run_id).filter(pl.col("stage") < stage)

    def scores(self, stage: int, *, checkpoint: Path | None) -> pl.DataFrame:
        """The candidates' scores; what else the same checkpoint scored, for other runs or by hand, does not count."""
        score = selection.needs_scores(self.recipe.select.then)
        if checkpoint is None or score is None:
            return frames.SCORES.empty()
        settings = student.score_settings(
            response=self.recipe.select.response, max_new_tokens=self.recipe.evaluate.max_new_tokens
        )
        mine = (pl.col("name") == score) & (pl.col("settings") == settings)
        candidates = self.candidates(stage)
        digest = student.digest(checkpoint)
        found = self.pool.scores(checkpoint=digest).filter(mine).join(candidates, on="example_id", how="semi")
        if found.height < candidates.height:
            what = f"{candidates.height - found.height} of {candidates.height} scores of stage {stage - 1}"
            raise self.trained_anew(what, checkpoint=digest)
        return found

    def trained_anew(self, what: str, *, checkpoint: str) -> RunError:
        return RunError(
            f"run {self.run_id[:12]}: {what} are not of its student as it is now ({checkpoint[:12]}): it was trained "
            "again and came out with other weights. `balkit run --new` starts another run"
        )

    def quotas(self, stage: int) -> dict[str, int]:
        """Rows per domain, by what is known of the students of earlier stages."""
        return self.basis.quotas(stage, measured=self.measured)

    def calls_made(self, stage: int) -> dict[str, int]:
        earlier = self.calls(stage).filter(pl.col("purpose") == "synthesis").unique("key")
        return dict(earlier.group_by("domain").len().iter_rows())

    def calls(self, stage: int) -> pl.DataFrame:
        """This run's CALLS before a stage."""
        return self.pool.calls(run_id=self.run_id).filter(pl.col("stage") < stage)

    def result(self, stage: int, snapshot_id: str, trained: student.Trained | None) -> StageResult:
        snapshot = self.pool.snapshot(snapshot_id)
        found = None if trained is None else self.evaluations(trained.digest, of=self.basis.evaluation)
        summary = None if found is None or found.is_empty() else dict(student.summarise(found, head=self.basis.head))
        return StageResult(
            stage=stage,
            snapshot_id=snapshot_id,
            digest=snapshot.digest,
            rows=snapshot.rows.height,
            quotas=self.quotas(stage),
            deficits=snapshot.deficits,
            checkpoint=None if trained is None else trained.path,
            summary=summary,
        )

    def evaluations(self, checkpoint: str, *, of: pl.DataFrame) -> pl.DataFrame:
        """EVALUATIONS of a checkpoint on EXAMPLES, asked and read as this run does it."""
        settings = student.evaluate_settings(
            answers=self.recipe.answers, labels=self.basis.labels, section=self.recipe.evaluate
        )
        found = self.pool.evaluations(checkpoint=checkpoint).filter(pl.col("settings") == settings)
        return found.join(of, on=["example_id", "domain"], how="semi")

    def on_rows(self, step: str, stage: int) -> steps.OnRows:
        return lambda done, total: self.say(stage, step, done=done, total=total)

    def say(self, stage: int, step: str, text: str = "", **numbers: Any) -> None:
        stages, fill, run_id, name = self.recipe.stages, self.filling.now, self.run_id[:12], self.recipe.name
        self.notify(Event(stage, stages, step, text, fill=fill, run_id=run_id, name=name, **numbers))
