"""What a recipe sees of a pool's version: real examples apart from eval, their counts, and their quotas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property

import polars as pl

from balkit import answers, balance, frames, selection, verify
from balkit.errors import RunError
from balkit.pool import Pool, Reviewed, View
from balkit.recipe import Recipe


@dataclass(frozen=True)
class Basis:
    """What a recipe sees of a pool's version: `examples` is EXAMPLES of all splits, from the source alone.

    `calls` is CALLS of all runs so far, `decisions` are DECISIONS on the rows that were written in them; a plan takes
    nothing but the lengths of replies and the shares of rows that were kept from them. `leaking` holds the
    ids of those outside of eval whose prompt stands in eval; without it they are looked for among the examples.
    `reviewed` is what people said of worked answers.
    """

    examples: pl.DataFrame
    recipe: Recipe
    calls: pl.DataFrame = field(default_factory=frames.CALLS.empty, repr=False)
    leaking: pl.Series | None = field(default=None, repr=False)
    reviewed: Reviewed = field(default_factory=Reviewed, repr=False)
    decisions: pl.DataFrame = field(default_factory=frames.DECISIONS.empty, repr=False)
    clusters: Mapping[str, str] | None = field(default=None, repr=False)  # by example, of the set `balance.within`

    @classmethod
    def of(
        cls,
        pool: Pool,
        recipe: Recipe,
        *,
        at: int | None = None,
        calls: pl.DataFrame | None = None,
        decisions: pl.DataFrame | None = None,
    ) -> Basis:
        """What a recipe sees of a pool at a version, the newest if not given. Without `calls`, `decisions`: none.

        What leaks is read off the digests that are stored with the prompts, those of written eval rows included: a
        snapshot is refused by the same ones, whatever rule they were made by. Raises `RunError` for a recipe's
        `domain_set` that is not there at that version, or that lacks examples, and for a `balance.within` that is not.
        """
        _refuse_scored_first(recipe.select.first)
        known = frames.CALLS.empty() if calls is None else calls
        told = frames.DECISIONS.empty() if decisions is None else decisions
        with pool.held():
            view = pool.at(pool.version if at is None else at)
            if recipe.domain_set is not None:
                _refuse_unknown(view, recipe.domain_set)
            examples = view.examples(origin="source", domain_set=recipe.domain_set)
            clusters = _clusters(view, recipe.balance.within)
            return cls(examples, recipe, known, view.leaking(), view.reviewed(), told, clusters)

    @cached_property
    def evaluation(self) -> pl.DataFrame:
        """EXAMPLES of the eval split."""
        return self.examples.filter(pl.col("split") == "eval").sort("example_id")

    @cached_property
    def measured(self) -> pl.DataFrame:
        """Those of the eval split that have a reference answer; the others only serve to find leaks."""
        return self.evaluation.filter(pl.col("reference").is_not_null())

    @cached_property
    def measured_dev(self) -> pl.DataFrame:
        """Those of the dev split that have a reference answer: what the policy `feedback` goes by."""
        return self.dev.filter(pl.col("reference").is_not_null())

    def refuse_without_dev(self) -> None:
        """Say before any call is paid for that dev, which steers quotas or training, is empty. Raises `RunError`."""
        if self.recipe.train.early_stopping and self.dev.is_empty():
            raise RunError(
                "train.early_stopping goes by the loss on the dev split, and the pool has no dev row: add some "
                "(`balkit add POOL FILE --split dev ...`), or remove it"
            )
        if self.recipe.balance.policy == "feedback" and self.recipe.stages > 1 and self.measured_dev.is_empty():
            raise RunError(
                "balance.policy: feedback goes by the student's accuracy on the dev split, and the pool has no dev row "
                "with a reference answer: add some (`balkit add POOL FILE --split dev ...`), or choose another policy"
            )

    @cached_property
    def unreadable(self) -> pl.DataFrame:
        """Real examples whose reference is no answer of the recipe's kind, so that no worked answer can agree."""
        kind, labels = self.recipe.answers.kind, self.labels

        @cache
        def odd(reference: str, choices: tuple[str, ...] = ()) -> bool:
            said = reference.upper() if kind == "choice" else reference  # `answers.same` folds their case too
            return answers.parse(f"Answer: {said}", kind=kind, labels=labels, choices=choices) is None

        known = self.real.filter(pl.col("reference").is_not_null())
        if kind == "text":
            return known.clear()
        if kind != "choice":
            wrong = pl.Series(list(filter(odd, known["reference"].unique())), dtype=pl.String)
            return known.filter(pl.col("reference").is_in(wrong.implode()))
        pairs = known.select("prompt", "reference").iter_rows()
        return known.filter(pl.Series([odd(said, answers.offered(prompt)) for prompt, said in pairs], dtype=pl.Boolean))

    def refuse_unreadable(self) -> None:
        """Say before any call is paid for that most answers would be refused. Raises `RunError`."""
        known = self.real["reference"].count()
        if 2 * self.unreadable.height > known:
            raise RunError(f"{self.said_of_unreadable()}: every worked answer to these would be paid for and refused")

    def said_of_unreadable(self) -> str:
        """How many references cannot be read, one of them, and what to do."""
        first = self.unreadable.row(0, named=True)
        kind = self.recipe.answers.kind
        shown = ", ".join(self.labels[:5]) + (", ..." if len(self.labels) > 5 else "")
        named = f"; the labels are {shown}" if kind == "label" else ""
        return (
            f"{self.unreadable.height} of {self.real['reference'].count()} reference answers are no {kind}, such as "
            f"{first['reference'][:80]!r} of example {first['example_id'][:12]} (answers.kind in the recipe{named})"
        )

    @cached_property
    def dev(self) -> pl.DataFrame:
        """EXAMPLES of the dev split whose prompt does not stand in eval."""
        return self._apart(self.examples.filter(pl.col("split") == "dev"))

    @cached_property
    def real(self) -> pl.DataFrame:
        """EXAMPLES from the source in the train split whose prompt does not stand in eval."""
        return self._apart(self.examples.filter((pl.col("split") == "train") & (pl.col("origin") == "source")))

    @cached_property
    def counts(self) -> dict[str, int]:
        """Real examples of every domain of the pool, those without any included."""
        counts = dict.fromkeys(sorted(self.examples["domain"].unique()), 0)
        return counts | dict(self.real.group_by("domain").len().iter_rows())

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The label set: the recipe's, or the domains' names; empty where answers are no labels."""
        return self.recipe.answers.labels or (tuple(self.counts) if self.recipe.answers.kind == "label" else ())

    @cached_property
    def schedule(self) -> pl.DataFrame:
        """`stage, domain, quota` of all stages, before any student was measured."""
        return self._scheduled(None)

    @cached_property
    def head(self) -> frozenset[str]:
        """Domains whose real examples could meet their quotas of all stages, as far as these are known beforehand."""
        examples = (pl.col("quota") / self.recipe.rationale.per_example).ceil().sum()
        asked = self.schedule.group_by("domain").agg(examples)
        return frozenset(domain for domain, count in asked.iter_rows() if count <= self.counts[domain])

    @property
    def tail(self) -> frozenset[str]:
        """All other domains."""
        return frozenset(self.counts) - self.head

    def quotas(self, stage: int, *, measured: Mapping[int, balance.Accuracies] | None = None) -> dict[str, int]:
        """Rows per domain in a stage; `measured` is how earlier stages' students did on dev (`balance.schedule`)."""
        scheduled = self._scheduled(measured) if measured else self.schedule
        return dict(scheduled.filter(pl.col("stage") == stage).select("domain", "quota").iter_rows())

    def share(self, stage: int, *, measured: Mapping[int, balance.Accuracies] | None = None) -> balance.Shares:
        """The policy's shares in a stage."""
        recipe, before = self.recipe, (measured or {}).get(stage - 1)
        return balance.shares(self.counts, policy=recipe.balance, stage=stage, stages=recipe.stages, measured=before)

    def _scheduled(self, measured: Mapping[int, balance.Accuracies] | None) -> pl.DataFrame:
        recipe = self.recipe
        return balance.schedule(
            self.counts,
            budget_rows=recipe.budget_rows,
            stages=recipe.stages,
            policy=recipe.balance,
            measured=measured,
        )

    def _apart(self, examples: pl.DataFrame) -> pl.DataFrame:
        if self.leaking is not None:
            leaks = examples["example_id"].is_in(self.leaking.implode())
        else:
            found = verify.leaks(examples["prompt"].to_list(), evaluation=self.evaluation["prompt"].to_list())
            leaks = pl.Series(found, dtype=pl.Boolean)
        return examples.filter(~leaks).sort("example_id")


def _clusters(view: View, within: str | None) -> dict[str, str] | None:
    """The cluster of every source example; what came after the set was made is by its label."""
    if within is None:
        return None
    known = view.domain_sets()["domain_set"].to_list()
    if within not in known:
        raise RunError(
            f"balance.within: {within!r} is not in the pool; there are: {', '.join(known) or 'none'}. "
            f"`balkit discover POOL --name {within}` makes one"
        )
    return dict(view.examples(origin="source", domain_set=within).select("example_id", "domain").iter_rows())


def _refuse_unknown(view: View, domain_set: str) -> None:
    known = view.domain_sets()["domain_set"].to_list()
    if domain_set not in known:
        raise RunError(f"domain_set {domain_set!r} is not in the pool; there are: {', '.join(known) or 'none'}")
    lacking = view.without_domain(domain_set)
    if lacking:
        raise RunError(
            f"domain_set {domain_set!r} has no domain for {len(lacking)} examples that came later, such as "
            f"{lacking[0][:12]}; `balkit discover --name {domain_set}` gives them one"
        )


def _refuse_scored_first(method: str) -> None:
    """Of a recipe's own methods the recipe itself says so; of one in a file only the file can."""
    if selection.needs_scores(method) is not None:
        raise RunError(
            f"select.first: {method} reads a student's scores, and stage 1 has no student; use it as select.then"
        )
