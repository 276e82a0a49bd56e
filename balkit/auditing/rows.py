"""What an audit looks at and what it says: rows, findings, and the reasons there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

#: Every reason, in the order of the table, and what it says of a row.
REASONS: Mapping[str, str] = MappingProxyType(
    {
        "empty_prompt": "the prompt is empty",
        "missing_answer": "most rows have an answer, this one has none",
        "unreadable_answer": "the answer is none of its kind",
        "answer_not_among_choices": "the answer is none of the choices that the prompt offers",
        "repeated_choices": "two choices of the prompt say the same",
        "label_outside_set": "the answer is none of the labels",
        "label_from_prose": "the label was found inside of words of the rationale, which declares another or none",
        "answer_contradicts_rationale": "the rationale declares another answer",
        "empty_rationale": "the rationale says nothing beyond the answer",
        "truncated_rationale": "the rationale breaks off",
        "refusal": "the teacher declined, or speaks of itself",
        "control_tokens": "a text holds a chat template's control tokens, or characters that are no text",
        "other_language": "the text is in a language that hardly any row is in",
        "too_long_for_student": "the row is longer than what the student reads",
        "exact_duplicate": "the prompt stands earlier, with the same answer",
        "conflicting_answers": "the prompt stands elsewhere with another answer",
        "near_duplicate": "an earlier prompt has nearly the same words, and the same numbers and answer",
        "semantic_duplicate": "an earlier prompt means the same by its vector, and has the same numbers and answer",
        "leak_between_splits": "the prompt stands in a split that is held out from this one",
        "diversity_collapse": "most phrases of the prompt are those of many others of its domain",
        "likely_wrong_label": "the nearest prompts agree on another label",
    }
)

#: Splits that are held out, those first that the others must keep away from.
HELD_OUT = ("eval", "dev")


@dataclass(frozen=True)
class Rows:
    """The rows of an audit, column by column; all are equally long.

    place        (source, row): the index of the file, and the row in it from 0
    rationales   the worked answers of the row; of a file's row one at most
    columns      of each file, what its prompt, answer, rationale, domain and split are read from
    """

    sources: Sequence[str]
    place: Sequence[tuple[int, int]]
    example_ids: Sequence[str]
    prompts: Sequence[str]
    answers: Sequence[str | None]
    rationales: Sequence[tuple[str, ...]]
    domains: Sequence[str | None]
    splits: Sequence[str]
    has_rationales: bool
    columns: Sequence[Mapping[str, str]] = ()

    def __len__(self) -> int:
        return len(self.prompts)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with one row, by its index among the `Rows`.

    worked  the place of the worked answer that it is about, where it is about one of the row's alone
    other   the index of the row that it repeats
    """

    index: int
    reason: str
    detail: str
    worked: int | None = None
    other: int | None = None


def quoted(text: str, *, longest: int = 100) -> str:
    """A text in one line, in quotes, cut where it is long."""
    line = " ".join(text.split())
    return f'"{line}"' if len(line) <= longest else f'"{line[: longest - 1]}…"'
