"""Checks on new examples before they may count: form, duplicates, and texts that stand in the eval split.

Pure: texts and similarities come in, decisions with reasons go out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from balkit import answers, frames, texts
from balkit.errors import FrameError, need
from balkit.recipe import Answers, Synthesis

_GRAM = 13  # words that two long texts must share in a row to be taken for the same source
_SHOWN = 200  # characters of another text that a decision quotes
_CELLS = 4_000_000  # pairs compared at once: 16 MB of float32
_WORKERS = 2


@dataclass(frozen=True)
class Known:
    """Texts that new ones are compared with, prepared once."""

    prompts: Sequence[str]

    @cached_property
    def normalised(self) -> dict[str, int]:
        """Normalised text -> index of the first prompt that has it."""
        return {texts.normalised(prompt): index for index, prompt in reversed(list(enumerate(self.prompts)))}

    @cached_property
    def bags(self) -> list[str]:
        """Each text's words in alphabetical order, for a comparison that word order does not hide from."""
        return [_bag(prompt) for prompt in self.prompts]

    def plus(self, more: Sequence[str]) -> Known:
        """These texts and then `more`, without preparing the old ones again."""
        joined = Known([*self.prompts, *more])
        fresh = {texts.normalised(text): len(self.prompts) + index for index, text in reversed(list(enumerate(more)))}
        joined.__dict__["normalised"] = {**fresh, **self.normalised}
        joined.__dict__["bags"] = [*self.bags, *map(_bag, more)]
        return joined


@dataclass(frozen=True)
class Similar:
    """Cosines of n new texts, in their order."""

    best: NDArray[np.float32]  # (n,) the highest cosine to any known text; -1 where there is none
    which: NDArray[np.int64]  # (n,) the index of that known text
    batch: NDArray[np.float32]  # (n, n) among the new texts


@dataclass(frozen=True)
class Against:
    """What new examples are checked against."""

    known: Known = field(default_factory=lambda: Known(()))
    evaluation: Known = field(default_factory=lambda: Known(()))
    similar: Similar | None = None  # aligned with the rows of `written`
    max_chars: int | None = None  # characters of prompt and answer together


def new_examples(
    written: pl.DataFrame, *, against: Against, section: Synthesis, expected: Answers, labels: Sequence[str]
) -> pl.DataFrame:
    """DECISIONS (step `verify`) on every written row, sorted by example_id. Raises `MissingExtra` without rapidfuzz.

    `written` has example_id, prompt, reference, domain. The first reason that holds: `empty`, `too_long`,
    `answer_unreadable`, `label_outside_set`, `label_contradicts_domain` (where the labels are the domains),
    `choice_not_offered`, `stands_in_eval` (equal after normalising, or 13 words in a row shared),
    `exact_duplicate`, `near_duplicate`, `semantic_duplicate`; else kept, `new`. Duplicates are looked for in the
    known texts and among the rows kept before, in the order of example_id. `detail` quotes the other text.
    """
    _columns(written)
    order = written.with_row_index("row").sort("example_id", "prompt", "domain", maintain_order=True)
    forms = [_form(row, against=against, expected=expected, labels=labels) for row in order.iter_rows(named=True)]
    seen = _overlaps(order["prompt"].to_list(), evaluation=against.evaluation)
    faults: list[_Fault | None] = [form or leak for form, leak in zip(forms, seen, strict=True)]
    duplicates = _duplicates(order, faults=faults, against=against, section=section)
    return frames.DECISIONS.of(
        [_decision(row, fault) for row, fault in zip(order.iter_rows(named=True), duplicates, strict=True)]
    )


def leaks(prompts: Sequence[str], *, evaluation: Sequence[str]) -> list[bool]:
    """Which prompts stand in the eval split, after normalising."""
    known = {texts.normalised(prompt) for prompt in evaluation}
    return [texts.normalised(prompt) in known for prompt in prompts]


@dataclass(frozen=True)
class _Fault:
    reason: str
    other: str | None = None


def _columns(written: pl.DataFrame) -> None:
    missing = {"example_id", "prompt", "reference", "domain"} - set(written.columns)
    if missing:
        raise FrameError(f"written examples lack the columns {', '.join(sorted(missing))}")


def _decision(row: dict[str, object], fault: _Fault | None) -> dict[str, object]:
    return {
        "example_id": row["example_id"],
        "domain": row["domain"],
        "step": "verify",
        "method": "checks",
        "kept": fault is None,
        "reason": fault.reason if fault else "new",
        "detail": _short(fault.other) if fault else None,
    }


def _form(row: dict[str, str], *, against: Against, expected: Answers, labels: Sequence[str]) -> _Fault | None:
    prompt, reference = row["prompt"].strip(), (row["reference"] or "").strip()
    if not prompt or not reference:
        return _Fault("empty")
    if against.max_chars is not None and len(prompt) + len(reference) > against.max_chars:
        return _Fault("too_long", f"{len(prompt) + len(reference)} characters, at most {against.max_chars}")
    if expected.kind == "label":
        if reference not in labels:
            return _Fault("label_outside_set", reference)
        return (
            _Fault("label_contradicts_domain", reference)
            if not expected.labels and reference != row["domain"]
            else None
        )
    if answers.parse(f"Answer: {reference}", kind=expected.kind) is None:
        return _Fault("answer_unreadable", reference)
    if expected.kind == "choice" and answers.parse(f"Answer: {reference}", kind="choice") not in answers.offered(
        prompt
    ):
        return _Fault("choice_not_offered", reference)
    return None


def _overlaps(prompts: Sequence[str], *, evaluation: Known) -> list[_Fault | None]:
    """Which prompts stand in eval. A run of words that over 5 eval texts and 1 % of them share is an instruction."""
    found = [evaluation.normalised.get(texts.normalised(prompt)) for prompt in prompts]
    grams = [set(_grams(prompt)) for prompt in prompts]
    wanted: set[tuple[str, ...]] = set().union(*grams) if grams else set()
    where: dict[tuple[str, ...], int] = {}
    count: Counter[tuple[str, ...]] = Counter()
    if wanted:
        for index, text in enumerate(evaluation.prompts):
            for gram in wanted.intersection(_grams(text)):
                where.setdefault(gram, index)
                count[gram] += 1
    often = max(5, len(evaluation.prompts) // 100)
    for row, own in enumerate(grams):
        if found[row] is None:
            found[row] = min((where[gram] for gram in own if 0 < count[gram] <= often), default=None)
    return [None if index is None else _Fault("stands_in_eval", evaluation.prompts[index]) for index in found]


def _grams(text: str) -> Iterator[tuple[str, ...]]:
    words = texts.normalised(text).split()
    return (tuple(words[at : at + _GRAM]) for at in range(len(words) - _GRAM + 1))


def _duplicates(
    order: pl.DataFrame, *, faults: Sequence[_Fault | None], against: Against, section: Synthesis
) -> list[_Fault | None]:
    """The faults, and those that a known text or an earlier kept row brings."""
    prompts, rows = order["prompt"].to_list(), order["row"].to_list()
    sound = [index for index, fault in enumerate(faults) if fault is None]
    near = _near_known([prompts[index] for index in sound], known=against.known, threshold=section.near_duplicate)
    among = _near_pairs([prompts[index] for index in sound], threshold=section.near_duplicate)
    similar, result = against.similar, list(faults)
    kept: dict[str, int] = {}
    for place, index in enumerate(sound):
        norm = texts.normalised(prompts[index])
        twin = kept.get(norm)
        earlier = [sound[other] for other in among[place] if other < place and result[sound[other]] is None]
        if norm in against.known.normalised or twin is not None:
            other = prompts[twin] if twin is not None else against.known.prompts[against.known.normalised[norm]]
            result[index] = _Fault("exact_duplicate", other)
        elif near[place] is not None or earlier:
            known = near[place]
            result[index] = _Fault(
                "near_duplicate", prompts[earlier[0]] if known is None else against.known.prompts[known]
            )
        elif similar is not None:
            result[index] = _semantic(
                index, kept=list(kept.values()), order=(prompts, rows), against=against, section=section
            )
        if result[index] is None:
            kept[norm] = index
    return result


def _semantic(
    index: int, *, kept: Sequence[int], order: tuple[list[str], list[int]], against: Against, section: Synthesis
) -> _Fault | None:
    prompts, rows = order
    similar = against.similar
    assert similar is not None
    if similar.best[rows[index]] >= section.semantic_duplicate:
        return _Fault("semantic_duplicate", against.known.prompts[int(similar.which[rows[index]])])
    for other in kept:
        if similar.batch[rows[index], rows[other]] >= section.semantic_duplicate:
            return _Fault("semantic_duplicate", prompts[other])
    return None


def _near_known(prompts: Sequence[str], *, known: Known, threshold: float) -> list[int | None]:
    """For each prompt the index of the most similar known text from the threshold on, or None."""
    if not prompts or not known.prompts:
        return [None] * len(prompts)
    found: list[int | None] = []
    for scores in _similarities([_bag(prompt) for prompt in prompts], known.bags, threshold=threshold):
        found.extend(int(row.argmax()) if row.max() > 0 else None for row in scores)
    return found


def _near_pairs(prompts: Sequence[str], *, threshold: float) -> list[list[int]]:
    bags = [_bag(prompt) for prompt in prompts]
    return [
        np.flatnonzero(row).tolist()
        for scores in _similarities(bags, bags, threshold=threshold)
        for row in scores
    ]  # fmt: skip


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


def _bag(text: str) -> str:
    return " ".join(sorted(texts.normalised(text).split()))


def _short(text: str | None) -> str | None:
    return text if text is None or len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
