"""A pool as it was at a version: every read, in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from balkit import frames
from balkit.errors import PoolError
from balkit.pool import conflicts, database, pairs, snapshots
from balkit.pool.reviewed import Reviewed

#: Stands for "now" where a query takes a version.
NEWEST = 2**62


@dataclass(frozen=True)
class View:
    """The reads of a pool at one version. Each opens the file for its own short time."""

    folder: Path
    version: int = NEWEST
    wait_s: float = database.WAIT_S

    def examples(
        self,
        *,
        split: str | None = None,
        domain: str | None = None,
        origin: str | None = None,
        domain_set: str | None = None,
    ) -> pl.DataFrame:
        """EXAMPLES in use, ordered by `example_id`; retired ones are left out.

        `domain` is that of `domain_set`, where one is named (see `domain_sets`); an example that the set does not
        know, such as one that was written, keeps its own. Raises `PoolError` for a set that is not there.
        """
        self._refuse_unknown(domain_set)
        found = self._ask("examples", split=split, domain=domain, origin=origin, domain_set=domain_set)
        return frames.check(found, frames.EXAMPLES)

    def domain_sets(self) -> pl.DataFrame:
        """One row a set of domains beside the labels': domain_set, detail (JSON), version, examples, domains."""
        return self._ask("domain_sets")

    def without_domain(self, domain_set: str) -> list[str]:
        """The ids of examples in use, from the source, that a set has no domain for."""
        return self._ask("without_domain", domain_set=domain_set)["example_id"].to_list()

    def leaking(self) -> pl.Series:
        """Ids of train and dev examples in use whose normalised prompt stands in eval, ordered; written ones too.

        By the digests that were stored with the prompts, which a snapshot's rows are refused by as well.
        """
        return self._ask("leaking")["example_id"]

    def retired_prompts(self) -> list[str]:
        """The prompts of examples that are out of use, ordered: what nobody should write again."""
        return self._ask("retired_prompts")["prompt"].to_list()

    def stored(self, ids: Sequence[str]) -> pl.DataFrame:
        """Those of these examples that the pool has, in use or not: example_id, split, retired."""
        return self._ask("stored", ids=list(ids))

    def refused_now(self, snapshot_id: str) -> pl.DataFrame:
        """Rows of a snapshot that could not enter one any more: position, example_id, problem.

        A snapshot never changes; what was retired, or came into eval, after it was made, is in it all the same.
        """
        return self._ask("refused_now", snapshot_id=snapshot_id)

    def rationales(self, *, of: Sequence[str] | None = None) -> pl.DataFrame:
        """RATIONALES, accepted and rejected, ordered by example, then id; also those of retired examples.

        With `of` those of these examples alone, and memory for no others.
        """
        if of is None:
            return frames.check(self._ask("rationales"), frames.RATIONALES)
        with database.reading(self.folder, wait_s=self.wait_s, memory_mb=snapshots.MEMORY_MB) as con:
            found = database.ask(con, "rationales_of", version=self.version, ids=list(of))
        return frames.check(found, frames.RATIONALES)

    def reviewed(self) -> Reviewed:
        """What people said of worked answers, as it stands; see `balkit review`."""
        with database.reading(self.folder, wait_s=self.wait_s) as con:
            reviews = database.ask(con, "reviews", version=self.version)
            if reviews.is_empty():
                return Reviewed()
            rationales = database.ask(con, "reviewed_rationales", version=self.version)
        return Reviewed.of(reviews, frames.check(rationales, frames.RATIONALES))

    def reviews(self) -> pl.DataFrame:
        """Every verdict of a person in order: example_id, domain, kept, reason, detail (JSON), version."""
        return self._ask("reviews")

    def questioned(self, *, reasons: Sequence[str], differing: bool = False, domain: str | None = None) -> pl.DataFrame:
        """All RATIONALES of doubtful examples, with prompt, reference, domain, split, origin and parents of these.

        Doubtful are those in use of which one was refused for one of the `reasons`; where `differing` also those whose
        accepted ones end in different answers. Ordered by example, then version, then id. Raises `PoolError` for a
        domain that is not there, and for a reason that is neither one of a conflict nor one of this pool.
        """
        if domain is not None:
            _refuse_unknown("domain", [domain], among=self.coverage()["domain"].to_list())
        if not set(reasons) <= set(conflicts.REASONS):
            known = {*conflicts.REASONS, *self._ask("refused_for")["reason"]}
            _refuse_unknown("reason", reasons, among=sorted(known))
        found = self._ask("questioned", reasons=list(reasons), differing=differing, domain=domain)
        return found.cast({name: dtype for name, dtype in frames.EXAMPLES.columns.items() if name in found.columns})

    def conflicts(self, *, domain: str | None = None, settled: bool = False) -> pl.DataFrame:
        """CONFLICTS: examples in use whose worked answers contradict the reference, tied in a vote, or disagree.

        Those with a verdict are left out unless `settled`. See `balkit.pool.conflicts`.
        """
        found = conflicts.conflicts(self.questioned(reasons=list(conflicts.REASONS), differing=True, domain=domain))
        return found if settled else found.filter(~pl.col("example_id").is_in(list(self.reviewed().settled)))

    def pairs(self, *, chosen: pl.DataFrame | None = None, per_example: int = 1) -> pl.DataFrame:
        """PAIRS of accepted and rejected worked answers to examples in use outside of eval; see `balkit.pool.pairs`.

        `chosen` are other accepted ones than those that stand at this version.
        """
        reviewed, rationales = self.reviewed(), self.rationales()
        if chosen is None:
            accepted = reviewed.preferred(rationales).select("example_id", "rationale_id", "text", "answer")
            examples = self.examples().filter(pl.col("split") != "eval")
            chosen = examples.join(accepted, on="example_id")
        return pairs.pairs(chosen, reviewed.standing(rationales), per_example=per_example)

    def pairs_among(
        self, chosen: pl.DataFrame, *, per_example: int = 1, reviewed: Reviewed | None = None
    ) -> pl.DataFrame:
        """PAIRS of the examples of some rows, as `pairs` gives them, with what these examples take in memory.

        `chosen` has example_id, domain, split, prompt, reference, and rationale_id of every worked answer that was
        chosen for these examples. `reviewed` saves reading it again.
        """
        reviewed = self.reviewed() if reviewed is None else reviewed
        rationales = self.rationales(of=chosen["example_id"].unique().sort().to_list())
        texts = rationales.select("rationale_id", "text", pl.col("answer").fill_null(""))
        return pairs.pairs(
            chosen.join(texts, on="rationale_id"), reviewed.standing(rationales), per_example=per_example
        )

    def size(self, split: str) -> int:
        """How many examples of a split are in use."""
        return int(self._ask("size", split=split).item())

    def parents(self) -> pl.DataFrame:
        """Which examples the written ones in use were written after: example_id, parents."""
        return self._ask("parents").cast({"parents": pl.List(pl.String)})

    def rationale_calls(self) -> pl.DataFrame:
        """The call that wrote each rationale and its price: rationale_id, call_key, model, cost_usd (US dollars)."""
        return self._ask("rationale_calls")

    def rejected_of(self, run_id: str) -> pl.DataFrame:
        """What the checks of a run rejected: domain, step, reason, rows, in that order."""
        return self._ask("rejected_of", run_id=run_id)

    def spent_of(self, run_id: str) -> pl.DataFrame:
        """What a run's calls cost: purpose, model, calls (paid), cached, input_tokens, output_tokens, cost_usd."""
        return self._ask("spent_of", run_id=run_id)

    def scores(self, *, checkpoint: str | None = None) -> pl.DataFrame:
        """SCORES, ordered by checkpoint, name, example."""
        return frames.check(self._ask("scores", checkpoint=checkpoint), frames.SCORES)

    def decisions(self, *, run_id: str | None = None, stage: int | None = None) -> pl.DataFrame:
        """DECISIONS with `run_id`, `stage` and `version`, ordered by version, step, domain, rank."""
        frame = self._ask("decisions", run_id=run_id, stage=stage)
        extra = frame.select(pl.col("run_id").cast(pl.String), pl.col("stage", "version").cast(pl.Int64))
        return frames.check(frame, frames.DECISIONS).hstack(extra)

    def evaluations(self, *, checkpoint: str | None = None) -> pl.DataFrame:
        """EVALUATIONS, ordered by checkpoint, example."""
        return frames.check(self._ask("evaluations", checkpoint=checkpoint), frames.EVALUATIONS)

    def calls(self, *, run_id: str | None = None) -> pl.DataFrame:
        """CALLS, one row a key and run, ordered by run, key; status `cached` where another run had paid."""
        return frames.check(self._ask("calls", run_id=run_id), frames.CALLS)

    def snapshots(self) -> pl.DataFrame:
        """One row a snapshot: snapshot_id, run_id, stage, parent, rows, digest, deficits (JSON), version."""
        return self._ask("snapshots")

    def tags(self) -> dict[str, int]:
        """The version that each name stands for."""
        return dict(self._ask("tags").iter_rows())

    def log(self) -> pl.DataFrame:
        """One row a version, the newest first, with its tags; `created_at` is UTC."""
        return self._ask("log")

    def coverage(self, *, domain_set: str | None = None) -> pl.DataFrame:
        """Rows per domain, of the labels or of a named set, the largest train split first.

        Columns: domain; train (rows in use), real (of these, from the source), dev, eval; synthetic (of all splits),
        synthetic_share (0-1, of the rows in use); retired; rationales (accepted);
        leaks (train rows whose normalised prompt stands in eval); mean_prompt_chars;
        prompt_tokens, rationale_tokens (of rows in use, estimated: UTF-8 bytes / 3).
        """
        self._refuse_unknown(domain_set)
        return self._ask("coverage", domain_set=domain_set)

    def _refuse_unknown(self, domain_set: str | None) -> None:
        if domain_set is not None:
            known = self.domain_sets()["domain_set"].to_list()
            if domain_set not in known:
                raise PoolError(
                    f"{self.folder}: no set of domains {domain_set!r}; there are: {', '.join(known) or 'none'}"
                )

    def _ask(self, name: str, **params: object) -> pl.DataFrame:
        with database.reading(self.folder, wait_s=self.wait_s) as con:
            return database.ask(con, name, version=self.version, **params)


def _refuse_unknown(what: str, names: Sequence[str], *, among: Sequence[str]) -> None:
    for name in names:
        if name not in among:
            raise PoolError(f"the pool has no {what} {name!r}; there are: {', '.join(among) or 'none'}")
