"""Worked answers for examples: asked for, read and checked against the reference."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import polars as pl

from balkit import answers as final_answers
from balkit import frames, texts
from balkit.errors import FrameError
from balkit.recipe import Answers, Rationale
from balkit.synthesize.templates import template
from balkit.teacher.protocol import Purpose, Reply, Request

_REFUSAL = re.compile(
    r"^\W*(?:i['’]?m (?:very )?(?:sorry|unable|not able)|sorry\b"
    r"|i (?:can(?:not|['’]t)|won['’]t|am unable|am not able)\b|as an ai\b|i apologi[sz]e\b|unfortunately,? i\b)",
    re.IGNORECASE,
)
#: Words up to which a free-text reference is compared; a longer one can be right in other words.
_SHORT_TEXT = 5


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
    are a cascade: what the first fails at is asked of the next.
    """

    ask: Ask
    endpoint: str
    model: str
    stage: int
    section: Rationale
    expected: Answers
    labels: Sequence[str]
    lines: Mapping[str, Sequence[Line]] = field(default_factory=dict)

    def cascade(self, purpose: Purpose) -> Sequence[Line]:
        """Who is asked, one after another."""
        return self.lines.get(purpose) or (Line(self.ask, self.endpoint, self.model),)


@dataclass(frozen=True)
class Example:
    """What is asked about. `reference` None: an open text without a known answer."""

    example_id: str
    prompt: str
    reference: str | None
    domain: str


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


def rationales(examples: pl.DataFrame, *, channel: Channel) -> pl.DataFrame:
    """RATIONALES of the examples, accepted and rejected: at most one accepted for each, rejected ones from every try.

    `examples` has example_id, prompt, reference, domain. Round t asks with sample t for every example that has no
    accepted rationale yet. Accepted: whole, not empty, no refusal, and the declared answer agrees with the reference
    (a hint does not excuse another answer). Reasons: `empty`, `cut_off`, `refusal`, `no_answer`,
    `answer_contradicts_reference`, `call_failed` (not tried again). Free text: an answer must be declared, and is
    compared where the reference has at most 5 words; without a reference any whole text is accepted.

    Costs at most `tries` calls an example. What `ask` raises passes through.
    """
    return frame(worked(_examples(examples), channel=channel))


def worked(examples: Sequence[Example], *, channel: Channel) -> list[Asked]:
    """All tries of all examples, sorted by example_id, then sample. Try t goes to the cascade's t-th, then the last."""
    open_, done = list(examples), list[Asked]()
    last = len(channel.cascade("rationale")) - 1
    for sample in range(channel.section.tries):
        if not open_:
            break
        asked = answered(open_, channel=channel, purpose="rationale", samples=(sample,), turn=min(sample, last))
        done.extend(asked)
        over = (None,) if sample < last else (None, "call_failed")
        open_ = [one.example for one in asked if one.reason not in over]
    return sorted(done, key=lambda one: (one.example.example_id, one.sample))


def answered(
    examples: Sequence[Example], *, channel: Channel, purpose: Purpose, samples: Sequence[int], turn: int = 0
) -> list[Asked]:
    """One round: each sample of each example, asked of one of the cascade and judged; sorted by example_id, sample.

    A vote gets no hint.
    """
    line = channel.cascade(purpose)[turn]
    wanted = [(one, sample) for one in sorted(examples, key=lambda one: one.example_id) for sample in samples]
    requests = [_request(one, channel=channel, line=line, purpose=purpose, sample=sample) for one, sample in wanted]
    replies = {(one.request.example_id, one.request.sample): replace(one, raw="") for one in line.ask(requests)}
    read = [_read(one, reply=replies[one.example_id, sample], channel=channel) for one, sample in wanted]
    return _compared(read, expected=channel.expected)


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
    return [Example(**row) for row in rows.select("example_id", "prompt", "reference", "domain").iter_rows(named=True)]


def _request(example: Example, *, channel: Channel, line: Line, purpose: Purpose, sample: int) -> Request:
    section = channel.section
    hint = section.hint and purpose == "rationale" and example.reference is not None
    used = template("rationale_hint" if hint else "rationale")
    values = {
        "task": example.prompt,
        "form": form(channel.expected, labels=channel.labels, prompt=example.prompt),
        "instructions": section.instructions.strip(),
        "reference": example.reference or "",
    }
    return Request(
        purpose=purpose,
        endpoint=line.endpoint,
        model=line.model,
        messages=(("user", used.fill(values)),),
        template=used.digest,
        sample=sample,
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
