"""Rows that repeat others: duplicates within a split, leaks between splits, one prompt with two answers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from balkit import answers as answers_
from balkit import duplicates
from balkit.auditing.material import SHORT_ANSWER, TIMEOUT_S, Material
from balkit.auditing.rows import HELD_OUT, Finding, Rows, quoted

_GRAM = 13  # words in a row
_SHARED = 0.5  # of a prompt's runs of so many words that stand in one held-out prompt
_MANY = 40  # answers to one prompt, beyond which expressions are compared as texts
_FEW_WORDS = 4  # a prompt of fewer is not compared by words or vectors: too little to tell texts apart
_DIRECT = 400  # rows whose cosines are simply multiplied out


def exact(material: Material) -> Iterator[Finding]:
    """`exact_duplicate`: the same prompt after normalising and the same answer, or one without."""
    pairs = sorted(material.earlier_equal.items())
    given = [tuple(material.rows.answers[index] for index in pair) for pair in pairs]
    differ = [(left, right) for left, right in given if left is not None and right is not None and left != right]
    same = dict(zip(differ, answers_.same(differ, kind=material.kind, timeout_s=TIMEOUT_S), strict=True))
    for (index, other), answers in zip(pairs, given, strict=True):
        if same.get(answers, True):  # type: ignore[arg-type]
            yield Finding(index, "exact_duplicate", f"as {_place(material.rows, other)}", other=other)


def conflicting(material: Material) -> Iterator[Finding]:
    """`conflicting_answers`: of rows with one prompt those whose answer fewer give; all of them in a tie."""
    groups: dict[int, list[int]] = defaultdict(list)
    for index, other in material.earlier_equal.items():
        groups[other].append(index)
    answers = material.rows.answers
    every = [
        [index for index in (first, *sorted(others)) if _comparable_answer(material, index)]
        for first, others in groups.items()
    ]
    torn = [members for members in every if len({answers[index] for index in members}) > 1]
    for members, numbers in zip(torn, _grouped(material, torn), strict=True):
        counted = Counter(numbers)
        most = max(counted.values())
        winners = [number for number, count in counted.items() if count == most]
        for index, number in zip(members, numbers, strict=True):
            if len(counted) > 1 and (len(winners) > 1 or number != winners[0]):
                other = next(one for one, n in zip(members, numbers, strict=True) if n != number)
                said = f"{quoted(answers[index] or '')} here, {quoted(answers[other] or '')}"
                yield Finding(index, "conflicting_answers", f"{said} in {_place(material.rows, other)}")


def _comparable_answer(material: Material, index: int) -> bool:
    """Whether a row has an answer that two rows cannot give in different words: no free text of some length."""
    answer = material.rows.answers[index]
    return answer is not None and (material.kind != "text" or len(answer.split()) <= SHORT_ANSWER)


def _grouped(material: Material, torn: Sequence[Sequence[int]]) -> Iterator[list[int | None]]:
    """Of each group of rows, which of their answers are the same. Very many expressions are compared as texts."""
    given = [[material.rows.answers[index] for index in members] for members in torn]
    few = [len(set(one)) <= _MANY for one in given]
    exact = iter(answers_.grouped([one for one, is_few in zip(given, few, strict=True) if is_few], kind=material.kind))
    rough = "text" if material.kind == "math" else material.kind
    for one, is_few in zip(given, few, strict=True):
        yield next(exact) if is_few else answers_.grouped([one], kind=rough)[0]


def near(material: Material) -> Iterator[Finding]:
    """`near_duplicate`: among rows of one split with the same numbers and answer, nearly the same words."""
    for members in _comparable(material, without=set(material.earlier_equal)):
        prompts = [material.rows.prompts[index] for index in members]
        found = duplicates.near(prompts, threshold=material.limits.near)
        for place in np.flatnonzero(found.other >= 0).tolist():
            other = members[int(found.other[place])]
            said = f"{found.similarity[place]:.2f} like {_place(material.rows, other)}"
            detail = f"{said}: {quoted(material.rows.prompts[other])}"
            yield Finding(members[place], "near_duplicate", detail, other=other)


def semantic(material: Material) -> Iterator[Finding]:
    """`semantic_duplicate`: as `near`, by the cosine of the prompts' vectors; what is a near duplicate is not one."""
    known = {finding.index for finding in near(material)} | set(material.earlier_equal)
    for members in _comparable(material, without=known):
        vectors = material.vectors[members]
        found = _close(vectors, threshold=material.limits.semantic)
        for place in np.flatnonzero(found.other >= 0).tolist():
            other = members[int(found.other[place])]
            cosine = float(vectors[place] @ vectors[int(found.other[place])])
            said = f"cosine {cosine:.2f} to {_place(material.rows, other)}"
            detail = f"{said}: {quoted(material.rows.prompts[other])}"
            yield Finding(members[place], "semantic_duplicate", detail, other=other)


def _close(vectors: duplicates.found.Floats, *, threshold: float) -> duplicates.Duplicates:
    """`duplicates.semantic`, for few rows without its preparations."""
    if len(vectors) > _DIRECT:
        return duplicates.semantic(vectors, threshold=threshold)
    found = duplicates.found.none_of(len(vectors))
    cosines = vectors @ vectors.T
    for row in range(1, len(vectors)):
        hits = np.flatnonzero((cosines[row, :row] >= threshold) & (found.other[:row] < 0))
        if len(hits):
            found.other[row], found.similarity[row] = hits[0], cosines[row, hits[0]]
    return found


def leaks(material: Material) -> Iterator[Finding]:
    """`leak_between_splits`: equal after normalising, nearly the same words, or half of its runs of 13 words there."""
    rows = material.rows
    for held_out in HELD_OUT:
        away = [index for index, split in enumerate(rows.splits) if split == held_out and material.normalised[index]]
        kept_from = set(rows.splits) - {held_out} - set(HELD_OUT[: HELD_OUT.index(held_out)])
        own = [index for index, split in enumerate(rows.splits) if split in kept_from and material.normalised[index]]
        if away and own:
            yield from _leaks(material, own=own, away=away, held_out=held_out)


def _leaks(material: Material, *, own: Sequence[int], away: Sequence[int], held_out: str) -> Iterator[Finding]:
    first = {material.normalised[index]: index for index in reversed(away)}
    seen = dict.fromkeys(index for index in own if material.normalised[index] in first)
    for index in seen:
        where = _place(material.rows, first[material.normalised[index]])
        yield Finding(index, "leak_between_splits", f"stands in {held_out}: {where}")
    for mine, theirs in _buckets(material, [index for index in own if index not in seen], away):
        prompts, others = ([material.rows.prompts[index] for index in part] for part in (mine, theirs))
        found = duplicates.near_among(prompts, among=others, threshold=material.limits.near)
        for place in np.flatnonzero(found.other >= 0).tolist():
            seen[mine[place]] = None
            other = theirs[int(found.other[place])]
            said = f"{found.similarity[place]:.2f} like {_place(material.rows, other)} of {held_out}"
            detail = f"{said}: {quoted(material.rows.prompts[other])}"
            yield Finding(mine[place], "leak_between_splits", detail)
    for index, other in _overlaps(material, [index for index in own if index not in seen], away):
        said = f"shares runs of {_GRAM} words with {_place(material.rows, other)} of {held_out}"
        yield Finding(index, "leak_between_splits", f"{said}: {quoted(material.rows.prompts[other])}")


def _buckets(material: Material, own: Sequence[int], away: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Rows of both sides that have the same numbers."""
    theirs: dict[Hashable, list[int]] = defaultdict(list)
    for index in away:
        if _long_enough(material, index):
            theirs[material.quantities[index]].append(index)
    mine: dict[Hashable, list[int]] = defaultdict(list)
    for index in own:
        if material.quantities[index] in theirs and _long_enough(material, index):
            mine[material.quantities[index]].append(index)
    yield from ((mine[key], theirs[key]) for key in mine)


def _overlaps(material: Material, own: Sequence[int], away: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Rows half of whose runs of words stand in one held-out row. Runs that many of these share are instructions."""
    where: dict[int, list[int]] = defaultdict(list)
    for index in away:
        for gram in set(_grams(material.normalised[index])):
            where[gram].append(index)
    often = max(5, len(away) // 100)
    for index in own:
        grams = set(_grams(material.normalised[index]))
        hits = Counter(other for gram in grams if len(where.get(gram, ())) <= often for other in where.get(gram, ()))
        best = max(hits, key=lambda other: (hits[other], -other), default=None)
        if best is not None and hits[best] >= _SHARED * len(grams):
            yield index, best


def _grams(text: str) -> list[int]:
    words = text.split()
    return [hash(tuple(words[at : at + _GRAM])) for at in range(len(words) - _GRAM + 1)]


def _comparable(material: Material, *, without: set[int]) -> Iterator[list[int]]:
    """Groups of rows that may be duplicates: one split, the same numbers and signs, the same answer."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for index in range(len(material.rows)):
        if index not in without and _long_enough(material, index):
            key = (material.rows.splits[index], material.quantities[index], material.answer_keys[index])
            groups[key].append(index)
    yield from (members for members in groups.values() if len(members) > 1)


def _long_enough(material: Material, index: int) -> bool:
    return len(material.normalised[index].split()) >= _FEW_WORDS


def _place(rows: Rows, index: int) -> str:
    source, row = rows.place[index]
    return f"row {row}" if len(rows.sources) == 1 else f"{rows.sources[source]} row {row}"
