"""The audit of a data set: every check on all rows, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

from balkit.auditing import consistency, form, neighbours, repeats
from balkit.auditing.fixing import Fixed, fix
from balkit.auditing.kinds import KINDS, kind_of
from balkit.auditing.material import Limits, Material
from balkit.auditing.reading import Named, rows_of_files, rows_of_pool
from balkit.auditing.rows import REASONS, Finding, Rows
from balkit.errors import BalkitError
from balkit.events import Event, Notify
from balkit.pool import Pool
from balkit.recipe import Kind, Vectors
from balkit.tokens import Counter, estimate
from balkit.vectors import Encoder, make_encoder
from balkit.vectors import Vectors as Cache

#: Tokens that a row may have where neither a student nor a limit is named.
MAX_TOKENS = 4096
#: Similarity of bags of words from which prompts are near duplicates: what written examples are refused by.
NEAR = 0.9
#: Cosines from which prompts are semantic duplicates: of the hashing encoder, and of models.
SEMANTIC_HASHING, SEMANTIC_MODEL = 0.8, 0.85

Check = Callable[[Material], Iterator[Finding]]

#: The checks, with the reasons that each may find.
CHECKS: Sequence[tuple[Check, tuple[str, ...]]] = (
    (form.empty, ("empty_prompt", "missing_answer")),
    (form.unreadable, ("unreadable_answer",)),
    (consistency.choices, ("answer_not_among_choices", "repeated_choices")),
    (consistency.labels, ("label_outside_set",)),
    (consistency.prose, ("label_from_prose",)),
    (consistency.contradictions, ("answer_contradicts_rationale",)),
    (form.rationales, ("empty_rationale", "truncated_rationale")),
    (form.refusal, ("refusal",)),
    (form.control_tokens, ("control_tokens",)),
    (form.other_language, ("other_language",)),
    (form.too_long, ("too_long_for_student",)),
    (repeats.exact, ("exact_duplicate",)),
    (repeats.conflicting, ("conflicting_answers",)),
    (repeats.near, ("near_duplicate",)),
    (repeats.semantic, ("semantic_duplicate",)),
    (repeats.leaks, ("leak_between_splits",)),
    (neighbours.collapsed, ("diversity_collapse",)),
    (neighbours.wrong_labels, ("likely_wrong_label",)),
)


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    findings  one row a finding, in the order of the rows: file, row (from 0), example_id, reason, detail
    summary   rows, flagged (rows with a finding), columns (what each file's prompt, answer, ... are read from), kind,
              labels, max_tokens, tokens (how they were counted), encoder, skipped (reasons not looked for), reasons
              (findings by reason)
    rows, found   what was audited, and every finding, of single worked answers too; for `retire`
    """

    findings: pl.DataFrame
    summary: Mapping[str, Any]
    rows: Rows = field(repr=False)
    found: Sequence[Finding] = field(repr=False)

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return self.findings.is_empty()

    def by_reason(self) -> pl.DataFrame:
        """One row a reason that was found: reason, rows, what it says, an example's row and detail."""
        counted = self.summary["reasons"]
        first = {row["reason"]: row for row in reversed(self.findings.to_dicts())}
        several = len(self.summary["files"]) > 1
        body = [
            {
                "reason": reason,
                "rows": count,
                "what": REASONS[reason],
                "such as": f"{first[reason]['file'] + ' ' if several else ''}row {first[reason]['row']}",
                "detail": first[reason]["detail"],
            }
            for reason, count in counted.items()
            if count
        ]
        return pl.DataFrame(body)

    def document(self) -> dict[str, Any]:
        """What `--json` prints: `rows` and `summary`. Rows name their file where there are several."""
        several = len(self.summary["files"]) > 1
        kept = self.findings if several else self.findings.drop("file")
        return {"rows": kept.to_dicts(), "summary": dict(self.summary)}


@dataclass(frozen=True)
class Options:
    """How rows are read and judged; None stands for what is found in the data, or the default.

    kind        number, math, choice, label or text
    labels      the label set; else the domains where answers are domains, else the answers of several rows
    max_tokens  of prompt, rationale and answer; else what the student reads, else 4,096
    tokens      the student's counter; an estimate without one
    encoder     whose vectors tell duplicates and wrong labels; the hashing encoder without one
    semantic    cosine from which prompts are semantic duplicates
    only, skip  reasons to look for alone, or not to look for
    """

    kind: Kind | None = None
    labels: Sequence[str] | None = None
    max_tokens: int | None = None
    tokens: Counter | None = None
    encoder: Encoder | None = None
    semantic: float | None = None
    only: Collection[str] = ()
    skip: Collection[str] = ()


def audit(
    source: Any,
    *,
    prompt: str | None = None,
    answer: str | None = None,
    rationale: str | None = None,
    domain: str | None = None,
    split: str | None = None,
    options: Options | None = None,
    notify: Notify | None = None,
    **given: Any,
) -> Audit:
    """Look for what is wrong with the rows of a pool, of files or of frames; nothing is changed.

    `source` is a `Pool` or its folder, or what `Pool.add` takes: a path or a frame, or a list of them. Columns are
    named as there; those that are not named are found by their names. Splits come from a column, or from the files'
    own names. `given` are fields of `Options` (`kind="math"`, `skip=["other_language"]`).

    Raises `IngestError` for rows that cannot be read, by file and line, `BalkitError` for options that are none, and
    `MissingExtra` where a check needs a package.
    """
    chosen = _options(options, given)
    named = Named(prompt, answer, rationale, domain, split)
    pool = pool_of(source)
    if pool is not None and named != Named():
        raise BalkitError(f"{pool.path}: is a pool, whose columns are known; leave out the names of columns")
    if isinstance(source, list | tuple) and (one := next((one for one in source if _is_pool(one)), None)) is not None:
        raise BalkitError(f"{one.path if isinstance(one, Pool) else one}: is a pool; audit it alone, and files alone")
    rows = rows_of_pool(pool) if pool is not None else rows_of_files(source, named)
    wanted = _wanted(chosen)
    cache = None if pool is None else pool.path / "vectors"
    findings = _findings(rows, chosen, wanted, cache=cache, notify=notify or (lambda event: None))
    return findings


def retire(pool: Pool, found: Audit, *, held_out: bool = False) -> Fixed:
    """Take what was found in a pool out of use, with its reasons, in one version; nothing is deleted.

    Where only worked answers are at fault and another one of the example is not, these alone are rejected. Rows of dev
    and eval stay unless `held_out`.
    """
    return fix(pool, found.rows, found.found, held_out=held_out)


def pool_of(source: Any) -> Pool | None:
    """The pool that a source is, or the folder of."""
    if isinstance(source, Pool):
        return source
    return Pool.open(source) if _is_pool(source) else None


def _is_pool(source: Any) -> bool:
    is_folder = isinstance(source, str | Path) and (Path(source) / "pool.duckdb").exists()
    return is_folder or isinstance(source, Pool)


def _options(options: Options | None, given: Mapping[str, Any]) -> Options:
    unknown = sorted(set(given) - set(Options.__dataclass_fields__))
    if unknown:
        raise BalkitError(f"audit: no option {unknown[0]!r}; there are: {', '.join(Options.__dataclass_fields__)}")
    chosen = replace(options or Options(), **given)
    if chosen.kind is not None and chosen.kind not in KINDS:
        raise BalkitError(f"audit: kind {chosen.kind!r} is not one of {', '.join(KINDS)}")
    if chosen.max_tokens is not None and chosen.max_tokens < 1:
        raise BalkitError(f"audit: max_tokens is {chosen.max_tokens}; a row has 1 token or more")
    if chosen.semantic is not None and not 0 < chosen.semantic <= 1:
        raise BalkitError(f"audit: semantic is {chosen.semantic}; a cosine is above 0 and at most 1")
    return chosen


def _wanted(options: Options) -> list[str]:
    for reason in (*options.only, *options.skip):
        if reason not in REASONS:
            close = get_close_matches(reason, REASONS, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(REASONS)}"
            raise BalkitError(f"audit: no reason {reason!r}: {hint}")
    wanted = [reason for reason in REASONS if (not options.only or reason in options.only)]
    return [reason for reason in wanted if reason not in options.skip]


def _findings(rows: Rows, options: Options, wanted: Sequence[str], *, cache: Path | None, notify: Notify) -> Audit:
    encoder = options.encoder or make_encoder(Vectors())
    counter = options.tokens or estimate()
    hashing = options.encoder is None or encoder.name.startswith("hashing")
    limits = Limits(
        max_tokens=options.max_tokens or counter.context or MAX_TOKENS,
        near=NEAR,
        semantic=options.semantic or (SEMANTIC_HASHING if hashing else SEMANTIC_MODEL),
    )
    kind = options.kind or kind_of(rows)
    with TemporaryDirectory(prefix="balkit-audit-") as scratch:
        store = Cache(cache or Path(scratch), encoder)
        material = Material(
            rows, kind, options.labels, limits, counter, encoder, lambda texts: np.asarray(store.of(texts))
        )
        found: list[Finding] = []
        due = [(check, reasons) for check, reasons in CHECKS if set(reasons) & set(wanted)]
        for number, (check, reasons) in enumerate(due):
            notify(Event(0, 0, "audit", ", ".join(reasons), done=number, total=len(due)))
            found += [finding for finding in check(material) if finding.reason in wanted]
    return Audit(_frame(rows, found), _summary(material, found, wanted), rows, tuple(found))


def _frame(rows: Rows, found: Sequence[Finding]) -> pl.DataFrame:
    order = {reason: place for place, reason in enumerate(REASONS)}
    once = {(finding.index, finding.reason): finding for finding in reversed(found)}
    ordered = sorted(once.values(), key=lambda finding: (finding.index, order[finding.reason]))
    schema = {"file": pl.String, "row": pl.Int64, "example_id": pl.String, "reason": pl.String, "detail": pl.String}
    body = [
        (rows.sources[rows.place[f.index][0]], rows.place[f.index][1], rows.example_ids[f.index], f.reason, f.detail)
        for f in ordered
    ]
    return pl.DataFrame(body, schema=schema, orient="row")


def _summary(material: Material, found: Sequence[Finding], wanted: Sequence[str]) -> dict[str, Any]:
    rows = material.rows
    once = {(finding.index, finding.reason) for finding in found}
    return {
        "files": list(rows.sources),
        "rows": len(rows),
        "flagged": len({index for index, _ in once}),
        "columns": [dict(one) for one in rows.columns],
        "kind": material.kind,
        "labels": len(material.labels),
        "max_tokens": material.limits.max_tokens,
        "tokens": material.counter.name,
        "encoder": material.encoder.name,
        "skipped": [reason for reason in REASONS if reason not in wanted],
        "reasons": {reason: sum(own == reason for _, own in once) for reason in wanted},
    }
