"""The cascade of checks on new examples, each refusal with the text that the row collides with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from balkit import duplicates, frames, texts
from balkit.duplicates.alike import bag
from balkit.errors import FrameError, need
from balkit.recipe import Answers, Synthesis
from balkit.verify.form import Usual, answer_fault, contradictions, form_fault
from balkit.verify.known import Fault, Known
from balkit.verify.leaking import overlaps

#: The reasons in the order in which they are looked for; a row has the first that holds.
CASCADE = (
    "empty",
    "refusal",
    "control_tokens",
    "reply_markup",
    "too_short",
    "too_long",
    "other_language",
    "exact_duplicate",
    "near_duplicate",
    "semantic_duplicate",
    "stands_in_eval",
    "close_to_eval",
    "answer_unreadable",
    "label_outside_set",
    "label_contradicts_domain",
    "choice_not_offered",
    "answer_contradicts_rationale",
)
#: What is refused though a recipe has written rows kept as they are: no snapshot could hold these.
ALWAYS = ("empty", "exact_duplicate", "stands_in_eval")
_CELLS = 4_000_000  # pairs compared at once: 16 MB of float32
_WORKERS = 2


@dataclass(frozen=True)
class Vectors:
    """Vectors of the texts, (n, d) float32 each, rows L2-normalised, in the order of the rows and of `Known`."""

    new: NDArray[np.float32]
    known: NDArray[np.float32]
    evaluation: NDArray[np.float32]


@dataclass(frozen=True)
class Against:
    """What new examples are checked against; a domain without `usual` may look like anything."""

    known: Known = field(default_factory=lambda: Known(()))
    evaluation: Known = field(default_factory=lambda: Known(()))
    vectors: Vectors | None = None
    usual: Mapping[str, Usual] = field(default_factory=dict)


def new_examples(
    written: pl.DataFrame, *, against: Against, section: Synthesis, expected: Answers, labels: Sequence[str]
) -> pl.DataFrame:
    """DECISIONS (step `verify`) on every written row, sorted by example_id.

    `written` has example_id, prompt, reference, domain, and may have `rationale`. A row's reason is the first of
    `CASCADE` that holds (docs/synthesis.md), or `new`; without `section.verify` only those of `ALWAYS` are looked for.
    Duplicates are looked for in the known texts and among the rows kept before, in the order of example_id; without
    vectors nothing is semantic. `detail` is JSON with the `other` text, its `similarity` and a `note`, as far as there
    are. Raises `MissingExtra` without rapidfuzz or py3langid.
    """
    _columns(written)
    order = written.with_row_index("row").sort("example_id", "prompt", "domain", maintain_order=True)
    rows = order.to_dicts()
    anything = Usual()

    def refused(fault: Fault | None) -> Fault | None:
        return None if fault is None or not (section.verify or fault.reason in ALWAYS) else fault

    form = [refused(form_fault(row, usual=against.usual.get(row["domain"], anything))) for row in rows]
    whole = [at for at, fault in enumerate(form) if fault is None]
    repeats = _Repeats.of([rows[at] for at in whole], against=against, section=section)
    later = _later([rows[at] for at in whole], against=against, section=section, expected=expected, labels=labels)
    faults, place = list(form), {at: index for index, at in enumerate(whole)}
    for at in whole:
        index = place[at]
        faults[at] = refused(repeats.fault(index)) or refused(later[index])
        if faults[at] is None:
            repeats.keep(index)
    return frames.DECISIONS.of([_decision(row, fault) for row, fault in zip(rows, faults, strict=True)])


def _columns(written: pl.DataFrame) -> None:
    missing = {"example_id", "prompt", "reference", "domain"} - set(written.columns)
    if missing:
        raise FrameError(f"written examples lack the columns {', '.join(sorted(missing))}")


def _decision(row: Mapping[str, Any], fault: Fault | None) -> dict[str, object]:
    return {
        "example_id": row["example_id"],
        "domain": row["domain"],
        "step": "verify",
        "method": "checks",
        "kept": fault is None,
        "reason": fault.reason if fault else "new",
        "detail": fault.detail() if fault else None,
    }


def _later(
    rows: Sequence[Mapping[str, Any]], *, against: Against, section: Synthesis, expected: Answers, labels: Sequence[str]
) -> list[Fault | None]:
    """The first fault of each row that comes after duplicates in the cascade."""
    evaluation, vectors = against.evaluation, against.vectors
    shared = overlaps([row["prompt"] for row in rows], evaluation=evaluation)
    close: list[Fault | None] = [None] * len(rows)
    if vectors is not None and rows and evaluation.prompts:
        new = vectors.new[[row["row"] for row in rows]]
        found = duplicates.semantic_among(new, among=vectors.evaluation, threshold=section.semantic_eval)
        close = _named("close_to_eval", found, evaluation.prompts)
    answer = [answer_fault(row, expected=expected, labels=labels) for row in rows]
    sound = [at for at, parts in enumerate(zip(shared, close, answer, strict=True)) if not any(parts)]
    own = dict(
        zip(sound, contradictions([rows[at] for at in sound], expected=expected, labels=labels), strict=True)
    )  # fmt: skip
    return [shared[at] or close[at] or answer[at] or own.get(at) for at in range(len(rows))]


def _named(reason: str, found: duplicates.Duplicates, prompts: Sequence[str]) -> list[Fault | None]:
    pairs = zip(found.other.tolist(), found.similarity.tolist(), strict=True)
    return [None if other < 0 else Fault(reason, prompts[other], similarity) for other, similarity in pairs]


@dataclass
class _Repeats:
    """Rows against the known texts and against those of them that are kept."""

    prompts: list[str]
    known: list[Fault | None]  # the first that a known text brings
    section: Synthesis
    vectors: NDArray[np.float32] | None  # (n, d) of the rows
    bags: list[str]
    kept: list[int] = field(default_factory=list)
    twins: dict[str, int] = field(default_factory=dict)  # normalised text -> the kept row

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], *, against: Against, section: Synthesis) -> _Repeats:
        prompts, texts_known = [row["prompt"] for row in rows], against.known
        bags = [bag(prompt) for prompt in prompts]
        near = _near(bags, known=texts_known, threshold=section.near_duplicate)
        close: list[Fault | None] = [None] * len(rows)
        new = None if against.vectors is None else against.vectors.new[[row["row"] for row in rows]]
        if new is not None and against.vectors is not None and len(new) and texts_known.prompts:
            found = duplicates.semantic_among(new, among=against.vectors.known, threshold=section.semantic_duplicate)
            close = _named("semantic_duplicate", found, texts_known.prompts)
        same = [texts_known.normalised.get(texts.normalised(prompt)) for prompt in prompts]
        exact = [None if at is None else Fault("exact_duplicate", texts_known.prompts[at], 1.0) for at in same]
        firsts = [first or second or third for first, second, third in zip(exact, near, close, strict=True)]
        return cls(prompts, firsts, section, new, bags)

    def fault(self, index: int) -> Fault | None:
        """Why a row repeats a known text or a kept row: exactly, nearly, or in its sense, in this order."""
        twin, known = self.twins.get(texts.normalised(self.prompts[index])), self.known[index]
        if twin is not None:
            return Fault("exact_duplicate", self.prompts[twin], 1.0)
        if known is not None and known.reason != "semantic_duplicate":
            return known
        return self._near_kept(index) or known or self._close_kept(index)

    def keep(self, index: int) -> None:
        """From now on rows are compared with this one."""
        self.kept.append(index)
        self.twins.setdefault(texts.normalised(self.prompts[index]), index)

    def _near_kept(self, index: int) -> Fault | None:
        others = [self.bags[at] for at in self.kept]
        for scores in _similarities([self.bags[index]], others, threshold=self.section.near_duplicate):
            hits = np.flatnonzero(scores[0])
            if len(hits):
                return Fault("near_duplicate", self.prompts[self.kept[hits[0]]], float(scores[0, hits[0]]) / 100)
        return None

    def _close_kept(self, index: int) -> Fault | None:
        if self.vectors is None or not self.kept:
            return None
        cosines = (self.vectors[self.kept].astype(np.float64) @ self.vectors[index]).round(6)
        hits = np.flatnonzero(cosines >= self.section.semantic_duplicate)
        if not len(hits):
            return None
        return Fault("semantic_duplicate", self.prompts[self.kept[hits[0]]], float(cosines[hits[0]]))


def _near(bags: Sequence[str], *, known: Known, threshold: float) -> list[Fault | None]:
    """For each bag of words the most similar known text from the threshold on."""
    if not bags or not known.prompts:
        return [None] * len(bags)
    found: list[Fault | None] = []
    for scores in _similarities(bags, known.bags, threshold=threshold):
        for row in scores:
            best = int(row.argmax())
            found.append(Fault("near_duplicate", known.prompts[best], float(row[best]) / 100) if row[best] else None)
    return found


def _similarities(
    bags: Sequence[str], others: Sequence[str], *, threshold: float, cells: int = _CELLS
) -> Iterator[NDArray[np.float32]]:
    """Blocks of rows of the (len(bags), len(others)) float32 similarities in percent; 0 below the threshold."""
    if not bags or not others:
        return
    need("rapidfuzz", extra="check")
    from rapidfuzz import fuzz, process

    step = max(1, cells // len(others))
    for start in range(0, len(bags), step):
        yield process.cdist(
            bags[start : start + step],
            others,
            scorer=fuzz.ratio,
            score_cutoff=threshold * 100,
            dtype=np.float32,
            workers=_WORKERS,
        )
