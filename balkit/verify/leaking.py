"""Texts that stand in the eval split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from balkit import texts
from balkit.verify.known import Fault, Known

_GRAM = 13  # words that two long texts must share in a row to be taken for the same source
_SHORT = range(8, _GRAM)  # words of a text that must stand whole in the other one
_Gram = tuple[str, ...]


def leaks(prompts: Sequence[str], *, evaluation: Sequence[str]) -> list[bool]:
    """Which prompts stand in the eval split, after normalising."""
    known = {texts.normalised(prompt) for prompt in evaluation}
    return [texts.normalised(prompt) in known for prompt in prompts]


def overlaps(prompts: Sequence[str], *, evaluation: Known) -> list[Fault | None]:
    """Which prompts stand in eval: equal after normalising, or a run of words shared.

    The run is 13 words, or the whole of one of the texts where that has 8 to 12. A run that more than 5 eval texts and
    1 % of them share is an instruction.
    """
    new = [texts.normalised(prompt).split() for prompt in prompts]
    runs = [set(_runs(words)) for words in new]  # of which one must stand in an eval text
    inside = [set(_grams(words, _SHORT)) for words in new]  # of which one must be a whole eval text
    shared, whole = _Places(set().union(*runs)), _Places(set().union(*inside))
    lengths = {len(run) for run in shared.wanted}
    for index, text in enumerate(evaluation.prompts if shared.wanted or whole.wanted else ()):
        words = texts.normalised(text).split()
        shared.note(_grams(words, lengths), index)
        if len(words) in _SHORT:
            whole.note([tuple(words)], index)
    often = max(5, len(evaluation.prompts) // 100)
    found = [evaluation.normalised.get(texts.normalised(prompt)) for prompt in prompts]
    for row, equal in enumerate(found):
        if equal is None:
            places = [*shared.of(runs[row], often=often), *whole.of(inside[row], often=often)]
            found[row] = min(places, default=None)
    return [None if index is None else Fault("stands_in_eval", evaluation.prompts[index]) for index in found]


@dataclass
class _Places:
    """In which eval texts runs of words stand."""

    wanted: set[_Gram]
    first: dict[_Gram, int] = field(default_factory=dict)
    count: Counter[_Gram] = field(default_factory=Counter)

    def note(self, grams: Iterable[_Gram], index: int) -> None:
        for gram in self.wanted.intersection(grams):
            self.first.setdefault(gram, index)
            self.count[gram] += 1

    def of(self, grams: set[_Gram], *, often: int) -> list[int]:
        return [self.first[gram] for gram in grams if 0 < self.count[gram] <= often]


def _runs(words: Sequence[str]) -> Iterator[_Gram]:
    return _grams(words, [len(words) if len(words) in _SHORT else _GRAM])


def _grams(words: Sequence[str], lengths: Iterable[int]) -> Iterator[_Gram]:
    return (tuple(words[at : at + n]) for n in lengths for at in range(len(words) - n + 1))
