"""What a report shows of a pool: counts, and samples with their texts cut, so that memory does not grow with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from balkit import frames
from balkit.pool import database


@dataclass(frozen=True)
class Overview:
    """Reads for a report; inside of `Pool.held` they share one opening."""

    folder: Path

    def rows_by_stage(self, run_id: str) -> pl.DataFrame:
        """What each stage of a run added: stage, domain, real, synthetic, repeats (rows), examples.

        `examples` are those that the real rows are of. A run draws an example once, so its stages' add up.
        """
        return self._ask("rows_by_stage", run_id=run_id)

    def refused_by_stage(self, run_id: str) -> pl.DataFrame:
        """What a run's checks refused: stage, domain, step, reason, rows. What ranked too low is not in here."""
        return self._ask("refused_by_stage", run_id=run_id)

    def refused_samples(self, run_id: str, *, each: int, chars: int) -> pl.DataFrame:
        """At most `each` refused rows a reason: step, reason, stage, domain, example_id, detail and texts.

        The texts are prompt, reference and text (of the refused worked answer), cut to so many characters, null where
        nothing was kept; `detail` is a sentence, or JSON.
        """
        return self._ask("refused_samples", run_id=run_id, each=each, chars=chars)

    def ifd_by_stage(self, run_id: str) -> pl.DataFrame:
        """IFD of the candidates of each stage, from the second on: stage, ifd (null: unscored), reason, taken."""
        schema = {"stage": pl.Int64, "ifd": pl.Float64, "reason": pl.String, "taken": pl.Boolean}
        scored, ranked = (self._ask(name, run_id=run_id).cast(schema) for name in ("ifd_by_stage", "ifd_ranked"))  # type: ignore[arg-type]
        missing = ranked.filter(~pl.col("stage").is_in(scored["stage"].unique().implode()))
        return pl.concat([scored, missing]).sort("stage", maintain_order=True)

    def evaluated(self) -> pl.DataFrame:
        """Which checkpoints answered eval: checkpoint, settings, run_id and stage of the step that kept it, rows."""
        return self._ask("evaluated").cast({"run_id": pl.String, "stage": pl.Int64})

    def graded(self, *, checkpoint: str, settings: str) -> pl.DataFrame:
        """EVALUATIONS of a checkpoint on eval, without what it said."""
        return frames.check(self._ask("graded", checkpoint=checkpoint, settings=settings), frames.EVALUATIONS)

    def real_sample(self, *, rows: int, version: int) -> pl.DataFrame:
        """A random sample of the real train examples: example_id, prompt, domain."""
        return self._ask("real_sample", rows=rows, version=version)

    def row_sample(self, run_id: str, *, rows: int, chars: int) -> pl.DataFrame:
        """Rows of all stages of a run with their lineage, evenly over domains where there are more.

        In an order of which any beginning is as even. `prompt`, `answer` and `rationale` are cut to so many
        characters, `whole_prompt` is not.
        """
        return self._ask("row_sample", run_id=run_id, rows=rows, chars=chars)

    def shared_examples(self, first: str, second: str) -> dict[str, int]:
        """How many examples two runs took: `first`, `second`, and `both` of them."""
        return self._ask("shared_examples", first=first, second=second).row(0, named=True)

    def _ask(self, name: str, **params: object) -> pl.DataFrame:
        with database.reading(self.folder) as con:
            return database.ask(con, name, **params)
