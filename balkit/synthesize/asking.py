"""Worked answers for examples: asked for, read and checked against the reference."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import polars as pl

from balkit import answers as final_answers
from balkit import frames, texts
from balkit.errors import FrameError
from balkit.recipe import Answers, Kind, Rationale
from balkit.synthesize.templates import template
from balkit.teacher.protocol import Purpose, Reply, Request

_REFUSAL = re.compile(
    r"^\W*(?:i['’]?m (?:very )?(?:sorry|unable|not able)|sorry\b"
    r"|i (?:can(?:not|['’]t)|won['’]t|am unable|am not able)\b|as an ai\b|i apologi[sz]e\b|unfortunately,? i\b)",
    re.IGNORECASE,
)
#: Words up to which a free-text reference is compared; a longer one can be right in other words.
_SHORT_TEXT = 5

#: What a further try is told that the last answer lacked. That a final answer was wrong is not said: it would give
#: the reference away where it is not shown, and a teacher that insists on another answer is a finding.
_NOTES = {
    "cut_off": "Be brief: an earlier answer was cut off before its end.",
    "empty": "An earlier answer was empty. Write the steps out.",
    "refusal": "An earlier reply did not work on the task. If it can be answered, answer it.",
    "no_answer": "An earlier answer lacked the last line that declares the final answer. Write it as shown below.",
    "answer_contradicts_reference": "Check each step before the next one, and the answer before you give it.",
    "rejected_by_person": "Check each step before the next one, and the answer before you give it.",
    "duplicate": "Get to the answer in another way than the one that comes to mind first.",
}


Ask = Callable[[Iterable[Request]], Iterator[Reply]]


@dataclass(frozen=True)
class Line:
    """The way to one teacher: its door, and the names that stand in the keys of what it is asked."""

    ask: Ask
    endpoint: str
    model: str


@dataclass(frozen=True)
class Channel:
    """The way to the teacher, and what a worked answer must be.

    `ask` gives exactly one final reply (ok or permanent) to every request, in any order. `section` says how worked
    answers are asked for, `expected` and `labels` what a final answer is. `lines` lead elsewhere by purpose; several
    are a cascade: what the first fails at is asked of the next. `refused` are texts that a person refused, as
    (example_id, normalised text): they are not accepted again.
    """

    ask: Ask
    endpoint: str
    model: str
    stage: int
    section: Rationale
    expected: Answers
    labels: Sequence[str]
    lines: Mapping[str, Sequence[Line]] = field(default_factory=dict)
    refused: frozenset[tuple[str, str]] = frozenset()

    def cascade(self, purpose: Purpose) -> Sequence[Line]:
        """Who is asked, one after another."""
        return self.lines.get(purpose) or (Line(self.ask, self.endpoint, self.model),)


@dataclass(frozen=True)
class Example:
    """What is asked about. `reference` None: an open text without a known answer.

    `wanted` is how many different worked answers it should get; None: as the recipe says.
    """

    example_id: str
    prompt: str
    reference: str | None
    domain: str
    wanted: int | None = None


@dataclass(frozen=True)
class Asked:
    """One worked answer and what was thought of it. `reason` is None where it is accepted."""

    example: Example
    sample: int
    text: str
    answer: str | None
    reason: str | None
    detail: str | None
    source: str
    author: str


@dataclass(frozen=True)
class _Ask:
    """One request to be made: the how manieth sample of an example, with a note on what an earlier one lacked."""

    example: Example
    sample: int
    note: str = ""


@dataclass
class _Tries:
    """How far one example is."""

    example: Example
    wanted: int
    left: int  # samples
    used: int = 0
    note: str = ""
    accepted: set[str] = field(default_factory=set)  # normalised texts

    def next(self) -> list[_Ask]:
        """The samples of the next round: as many as are lacking."""
        count = min(self.wanted - len(self.accepted), self.left)
        asks = [_Ask(self.example, self.used + n, self.note) for n in range(count)]
        self.used, self.left = self.used + count, self.left - count
        return asks

    def judge(self, asked: Sequence[Asked], *, is_last: bool) -> list[Asked]:
        """Takes up a round's answers, the same text once; at the last teacher a failed call ends the tries."""
        judged = []
        for one in asked:
            text = texts.normalised(one.text)
            if one.reason is None and text in self.accepted:
                one = replace(one, reason="duplicate", detail="the same text as an accepted one")
            if one.reason is None:
                self.accepted.add(text)
            else:
                self.note = _NOTES.get(one.reason, "")
                self.left = 0 if is_last and one.reason == "call_failed" else self.left
            judged.append(one)
        return judged


def rationales(examples: pl.DataFrame, *, channel: Channel) -> pl.DataFrame:
    """RATIONALES of the examples, accepted and rejected, sorted by example, then sample.

    `examples` has example_id, prompt, reference, domain, and may have `wanted`: how many accepted ones of different
    texts (`texts.normalised`) each should get, `per_example` without it. A round asks for as many samples as an
    example lacks, until it has them or `tries` x wanted are used up; so an example may end with fewer. A further round
    says what the last answer lacked, but never that its final answer was wrong: samples stay independent.
    Accepted: whole, not empty, no refusal, and the declared answer agrees with the reference (a hint does not excuse
    another answer). Reasons: `empty`, `cut_off`, `refusal`, `no_answer`, `answer_contradicts_reference`, `duplicate`,
    `rejected_by_person`, `call_failed` (not tried again). Free text: an answer must be declared, and is compared where
    the reference has at most 5 words.

    Without a reference any whole text is accepted; with `votes` k the answer that more than half of k samples give is
    taken for right (self-consistency, Wang et al. 2023): these are accepted, others are `outvoted`. Where no answer has
    so many, all are refused: `vote_tied` where two lead, else `vote_thin`. More may be accepted than wanted.

    Costs at most `tries` x wanted calls an example, or `votes`. What `ask` raises passes through.
    """
    return frame(worked(_examples(examples), channel=channel))


def worked(examples: Sequence[Example], *, channel: Channel) -> list[Asked]:
    """All tries of all examples, sorted by example_id, then sample; see `rationales`.

    Round t goes to the cascade's t-th teacher, then to the last.
    """
    votes = channel.section.votes
    voted = [one for one in examples if votes and one.reference is None]
    tried = [one for one in examples if not votes or one.reference is not None]
    done = [*_tried(tried, channel=channel), *_voted(voted, channel=channel)]
    return sorted(done, key=lambda one: (one.example.example_id, one.sample))


def answered(
    examples: Sequence[Example], *, channel: Channel, purpose: Purpose, samples: Sequence[int], turn: int = 0
) -> list[Asked]:
    """One round: each sample of each example, asked of one of the cascade and judged; sorted by example_id, sample.

    A vote gets no hint.
    """
    asks = [_Ask(one, sample) for one in sorted(examples, key=lambda one: one.example_id) for sample in samples]
    return _round(asks, channel=channel, purpose=purpose, turn=turn)


def _round(asks: Sequence[_Ask], *, channel: Channel, purpose: Purpose, turn: int) -> list[Asked]:
    line = channel.cascade(purpose)[turn]
    requests = [_request(one, channel=channel, line=line, purpose=purpose) for one in asks]
    replies = {(one.request.example_id, one.request.sample): replace(one, raw="") for one in line.ask(requests)}
    read = [_read(one.example, reply=replies[one.example.example_id, one.sample], channel=channel) for one in asks]
    return _compared(read, expected=channel.expected)


def _tried(examples: Sequence[Example], *, channel: Channel) -> Iterator[Asked]:
    section, last = channel.section, len(channel.cascade("rationale")) - 1
    order = sorted(examples, key=lambda one: one.example_id)
    wanted = [one.wanted or section.per_example for one in order]
    open_ = {
        one.example_id: _Tries(one, rows, left=rows * section.tries) for one, rows in zip(order, wanted, strict=True)
    }
    for turn in itertools.count():
        asks = [ask for tries in open_.values() for ask in tries.next()]
        if not asks:
            return
        asked = _round(asks, channel=channel, purpose="rationale", turn=min(turn, last))
        for example_id, some in _by_example(asked):
            yield from open_[example_id].judge(some, is_last=turn >= last)


def _voted(examples: Sequence[Example], *, channel: Channel) -> Iterator[Asked]:
    """The votes of the next of a cascade count where the last ones did not decide."""
    left, votes = list(examples), range(channel.section.votes)
    for turn in range(len(channel.cascade("vote"))):
        asked = answered(left, channel=channel, purpose="vote", samples=votes, turn=turn) if left else []
        judged = [_elected(some, numbers) for some, numbers in _ballots(asked, kind=channel.expected.kind)]
        yield from itertools.chain.from_iterable(judged)
        left = [some[0].example for some in judged if all(one.reason for one in some)]


def _ballots(asked: Sequence[Asked], *, kind: Kind) -> Iterator[tuple[list[Asked], list[int | None]]]:
    """Each example's votes, and which of them name the same answer; None: a vote that does not count."""
    parts = [some for _, some in _by_example(asked)]
    said = [[one.answer if one.reason is None else None for one in some] for some in parts]
    return zip(parts, final_answers.grouped(said, kind=kind), strict=True)


def _elected(asked: Sequence[Asked], numbers: Sequence[int | None]) -> list[Asked]:
    """The votes of one example with what came of them."""
    counts = Counter(number for number in numbers if number is not None).most_common(2)
    winner = counts[0][0] if counts and 2 * counts[0][1] > len(asked) else None
    is_tie = winner is None and len(counts) > 1 and counts[0][1] == counts[1][1]
    lost = "outvoted" if winner is not None else "vote_tied" if is_tie else "vote_thin"
    told = f"{counts[0][1] if counts else 0} of {len(asked)} votes for the first answer"
    judged, seen = [], set[str]()
    for one, number in zip(asked, numbers, strict=True):
        text = texts.normalised(one.text)
        if one.reason is None and (number is None or number != winner):
            one = replace(one, reason="no_answer" if number is None else lost, detail=told)
        elif one.reason is None and text in seen:
            one = replace(one, reason="duplicate", detail="the same text as an accepted one")
        elif one.reason is None:
            seen.add(text)
        judged.append(one)
    return judged


def _by_example(asked: Sequence[Asked]) -> Iterator[tuple[str, list[Asked]]]:
    for example_id, some in itertools.groupby(asked, key=lambda one: one.example.example_id):
        yield example_id, list(some)


def frame(asked: Iterable[Asked]) -> pl.DataFrame:
    """RATIONALES, in the given order."""
    return frames.RATIONALES.of(
        [
            {
                "rationale_id": texts.rationale_id(one.example.example_id, one.text, one.answer, one.source),
                "example_id": one.example.example_id,
                "text": one.text,
                "answer": one.answer,
                "accepted": one.reason is None,
                "reason": one.reason,
                "detail": one.detail,
                "source": one.source,
                "author": one.author,
            }
            for one in asked
        ]
    )


def form(expected: Answers, *, labels: Sequence[str], prompt: str | None = None) -> str:
    """What the final answer looks like, said to the teacher; "" where there is nothing to say."""
    if expected.kind == "label":
        return f"The answer is exactly one of these labels, spelled as here: {', '.join(labels)}."
    if expected.kind == "choice":
        offered = final_answers.offered(prompt) if prompt is not None else ()
        which = f" ({', '.join(offered)})" if offered else ""
        return f"The answer is the letter of one choice{which}, alone; the prompt lists its choices as (A), (B), ..."
    return {
        "number": "The answer is one number, without units and without words.",
        "math": "The answer is one number or expression in LaTeX, simplified, without dollar signs and without words.",
    }.get(expected.kind, "")


def _examples(examples: pl.DataFrame) -> list[Example]:
    missing = {"example_id", "prompt", "reference", "domain"} - set(examples.columns)
    if missing:
        raise FrameError(f"examples lack the columns {', '.join(sorted(missing))}")
    rows = examples.unique("example_id", keep="first", maintain_order=True).sort("example_id")
    columns = ["example_id", "prompt", "reference", "domain", *(["wanted"] if "wanted" in rows.columns else [])]
    return [Example(**row) for row in rows.select(columns).iter_rows(named=True)]


def _request(ask: _Ask, *, channel: Channel, line: Line, purpose: Purpose) -> Request:
    section, example = channel.section, ask.example
    hint = section.hint and purpose == "rationale" and example.reference is not None
    used = template("rationale_hint" if hint else "rationale")
    values = {
        "task": example.prompt,
        "form": form(channel.expected, labels=channel.labels, prompt=example.prompt),
        "instructions": "\n".join(filter(None, (section.instructions.strip(), ask.note))),
        "reference": example.reference or "",
    }
    return Request(
        purpose=purpose,
        endpoint=line.endpoint,
        model=line.model,
        messages=(("user", used.fill(values)),),
        template=used.digest,
        sample=ask.sample,
        max_tokens=section.max_tokens,
        temperature=section.temperature,
        domain=example.domain,
        stage=channel.stage,
        example_id=example.example_id,
        subject=example.prompt,
        reference=example.reference if hint else None,
    )


def _read(example: Example, *, reply: Reply, channel: Channel) -> Asked:
    text, kind = reply.text.strip(), channel.expected.kind
    choices = final_answers.offered(example.prompt) if kind == "choice" else ()
    asked = Asked(
        example=example,
        sample=reply.request.sample,
        text=text,
        answer=final_answers.parse(text, kind=kind, labels=channel.labels, choices=choices),
        reason=None,
        detail=None,
        source=reply.request.key,
        author=reply.author,
    )
    if reply.outcome != "ok":
        return replace(asked, reason="call_failed", detail=reply.error or None)
    if channel.refused and (example.example_id, texts.normalised(text)) in channel.refused:
        return replace(asked, reason="rejected_by_person")
    return replace(asked, reason=_fault(asked, finish_reason=reply.finish_reason))


def _fault(asked: Asked, *, finish_reason: str) -> str | None:
    if finish_reason == "length":
        return "cut_off"
    if not asked.text:
        return "empty"
    if finish_reason == "content_filter" or (asked.answer is None and _REFUSAL.match(asked.text)):
        return "refusal"
    return "no_answer" if asked.answer is None and asked.example.reference is not None else None


def _compared(asked: Sequence[Asked], *, expected: Answers) -> list[Asked]:
    """The sound ones compared with their references, in one batch."""
    result = list(asked)
    sound = [index for index, one in enumerate(asked) if one.reason is None and _comparable(one, expected=expected)]
    pairs = [(asked[index].example.reference or "", asked[index].answer or "") for index in sound]
    for index, agrees in zip(sound, final_answers.same(pairs, kind=expected.kind), strict=True):
        if not agrees:
            one = asked[index]
            detail = f"reference: {one.example.reference}; declared: {one.answer}"
            result[index] = replace(one, reason="answer_contradicts_reference", detail=detail)
    return result


def _comparable(asked: Asked, *, expected: Answers) -> bool:
    reference = asked.example.reference
    return reference is not None and (expected.kind != "text" or len(reference.split()) <= _SHORT_TEXT)
