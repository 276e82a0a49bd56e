"""What several checks need of the same rows, made once and only when it is asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from balkit import answers as answers_
from balkit.auditing.kinds import label_set
from balkit.auditing.rows import Rows
from balkit.recipe import Kind
from balkit.texts import normalised
from balkit.tokens import Counter
from balkit.vectors import Encoder

_DIGITS = re.compile(r"\d+(?:[.,]\d+)*")
#: Without `one`, which is most often no number: where it is one, another number's word stands in the other prompt.
_NUMBER_WORDS = re.compile(
    r"\b(?:zero|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|"
    r"seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|"
    r"half|halves|third|quarter|twice|thrice|double|triple|first|second|fourth|fifth|not|no(?!\s+one\b)|never|except)\b",
    re.IGNORECASE,
)
_SIGNS = re.compile(r"[-+*/^=<>≤≥√∫]|\\[A-Za-z]+")
#: Signs that say something though normalising takes them out of a text without digits: "a+b" is not "a-b", C++ not C.
_MEANT = re.compile(r"(?<!\w)\w\s*([-+*/^=<>]+)(?=\s*\w(?!\w))|(?<=\w)([+#]+)(?!\w)")
#: CPU seconds for one pair of expressions, beyond which they count as different.
TIMEOUT_S = 1.0

#: Words of a free answer that is compared with another one; a longer one may say the same in other words.
SHORT_ANSWER = 5
_LONG_ANSWER = 20  # words of the median answer, from which answers are worked ones


@dataclass(frozen=True)
class Limits:
    """What the checks go by; each is told of in docs/audit.md.

    max_tokens  of prompt, rationale and answer together
    near        similarity of bags of words, 0-1, from which prompts are near duplicates
    semantic    cosine from which prompts are semantic duplicates
    """

    max_tokens: int
    near: float
    semantic: float


@dataclass(frozen=True)
class Material:
    """The rows, how they are read, and what was made of them."""

    rows: Rows
    kind: Kind
    given_labels: Sequence[str] | None
    limits: Limits
    counter: Counter
    encoder: Encoder
    encode: Callable[[Sequence[str]], npt.NDArray[np.float32]]

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The label set; empty for other kinds."""
        return label_set(self.rows, self.given_labels) if self.kind == "label" else ()

    @cached_property
    def normalised(self) -> list[str]:
        """The prompts in the form in which equal ones are found."""
        return [normalised(prompt) for prompt in self.rows.prompts]

    @cached_property
    def worked(self) -> list[tuple[str, ...]]:
        """The worked answers: the rationales or, where there are none and answers are long texts, the answers."""
        rows = self.rows
        if rows.has_rationales or self.kind != "text":
            return list(rows.rationales)
        words = sorted(len(answer.split()) for answer in rows.answers if answer)
        long = bool(words) and words[len(words) // 2] >= _LONG_ANSWER
        return [(answer,) if long and answer else () for answer in rows.answers]

    @cached_property
    def options(self) -> list[dict[str, str]]:
        """The choices that each prompt offers; empty ones for other kinds."""
        return [answers_.options(prompt) if self.kind == "choice" else {} for prompt in self.rows.prompts]

    @cached_property
    def answer_keys(self) -> list[str]:
        """Of each row what tells answers apart; free texts, and none, are told apart from nothing."""
        if self.kind == "text":
            return [""] * len(self.rows)
        return [normalised(answer or "") for answer in self.rows.answers]

    @cached_property
    def earlier_equal(self) -> dict[int, int]:
        """Of each row whose normalised prompt stands earlier in the same split, the first such row."""
        first: dict[tuple[object, ...], int] = {}
        found = {}
        for index, (split, text) in enumerate(zip(self.rows.splits, self.normalised, strict=True)):
            signs = tuple(_MEANT.findall(self.rows.prompts[index]))
            if text and (other := first.setdefault((split, text, signs), index)) != index:
                found[index] = other
        return found

    @cached_property
    def quantities(self) -> list[tuple[str, ...]]:
        """The numbers, number words and signs of each prompt, in order: two problems that differ in one are two."""
        return [
            tuple(sorted(_DIGITS.findall(text)))
            + tuple(sorted(word.lower() for word in _NUMBER_WORDS.findall(text)))
            + tuple(sorted(_SIGNS.findall(text)))
            for text in self.rows.prompts
        ]

    @cached_property
    def vectors(self) -> npt.NDArray[np.float32]:
        """(n, d) the prompts' vectors, rows of length 1."""
        return self.encode(self.rows.prompts)
