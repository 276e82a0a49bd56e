"""From verdicts to what the pool stores of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal

import polars as pl

from balkit import answers, frames, texts
from balkit.errors import PoolError
from balkit.pool import Commit, Pool
from balkit.pool.reviewed import REJECTED, SOURCE, STEP, UNDONE, standing
from balkit.review.cases import Case, Worked

#: How a person's work is signed.
PERSON = "person"
#: What a person may have typed into a verdict.
_WRITTEN = ("rationale", "answer", "reference", "note")


@dataclass(frozen=True)
class Verdict:
    """A person's word on one worked answer of an example, or on its reference.

    `accept` and `reject` speak of `rationale_id`. `fix` gives another `rationale`, another `answer` at its end, or
    another `reference`. Without a `rationale_id` it is the example's only worked answer, or, for `reject`, all that
    were refused (all, where none was).
    """

    example_id: str
    verdict: Literal["accept", "reject", "fix"]
    rationale_id: str | None = None
    rationale: str | None = None
    answer: str | None = None
    reference: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class Undone:
    """A version whose verdicts were taken back, and the examples that they spoke of."""

    version: int
    example_ids: tuple[str, ...]


@dataclass(frozen=True)
class Known:
    """What verdicts are held against: a pool's `domains`, and `stored`, what it has of the examples that they make.

    `stored` says by `example_id` what became of such an example, such as "in use in split eval".
    """

    domains: Sequence[str]
    stored: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, pool: Pool, judged: Sequence[tuple[Case, Sequence[Verdict]]]) -> Known:
        """Of a pool as it is now."""
        made = [texts.example_id(case.prompt, new) for case, some in judged if (new := _reference(some)) is not None]
        view = pool.at(pool.version)
        rows = view.stored(made).iter_rows() if made else ()
        stored = {example: "retired" if gone else f"in use in split {split}" for example, split, gone in rows}
        return cls(view.coverage()["domain"].to_list(), stored)


def problems_of(case: Case, verdicts: Sequence[Verdict], *, known: Known) -> list[str]:
    """Why these verdicts on one case cannot be stored, each in a sentence; empty when they can."""
    return _Judged(case, verdicts, known).problems()


def judge(pool: Pool, judged: Sequence[tuple[Case, Sequence[Verdict]]], *, message: str | None = None) -> int:
    """Stores the verdicts on each case together, as one version, and returns it. Raises `PoolError` as `problems_of`.

    An accepted worked answer becomes a rationale that the next run takes first and does not pay for; one that was
    refused is not taken again. Another reference is another example: the new one is added with the old one's domain
    (its reference, where the old one's domain was that), split and origin, the old one is retired, and the worked
    answers that end in the new reference are accepted with it.
    """
    known = Known.of(pool, judged)
    parts = [_Judged(case, verdicts, known) for case, verdicts in judged]
    problems = [problem for part in parts for problem in part.problems()]
    if problems:
        raise PoolError("; ".join(problems))
    rationales = frames.RATIONALES.of([row for part in parts for row in part.rationales])
    examples = frames.EXAMPLES.of([row for part in parts for row in part.examples])
    retired = [row for part in parts for row in part.retired]
    said = message or f"review: {len(parts)} examples"
    return pool.commit(
        Commit(
            message=said,
            examples=examples if examples.height else None,
            rationales=rationales if rationales.height else None,
            decisions=frames.DECISIONS.of([row for part in parts for row in part.decisions]),
            retired=pl.DataFrame(retired, schema={"example_id": pl.String, "reason": pl.String}) if retired else None,
        )
    )


def undo(pool: Pool) -> Undone | None:
    """Takes back the newest verdicts that stand, in a new version; None where there are none.

    Raises `PoolError` where they fixed a reference: an example that was retired stays so.
    """
    stands = list(standing(pool.at(pool.version).reviews()))
    if not stands:
        return None
    version = stands[-1]["version"]
    last = [one for one in stands if one["version"] == version]
    fixed = [one for one in last if json.loads(one["detail"]).get("example")]
    if fixed:
        raise PoolError(
            f"version {version} fixed the reference of example {fixed[0]['example_id'][:12]}, which retired it, and "
            "that cannot be taken back: fix the new example's reference, to anything but the old one"
        )
    ids = tuple(dict.fromkeys(one["example_id"] for one in last))
    domains = {one["example_id"]: one["domain"] for one in last}
    rows = [_decision(example, domains[example], kept=False, reason=UNDONE, version=version) for example in ids]
    pool.commit(Commit(message=f"review: undo version {version}", decisions=frames.DECISIONS.of(rows)))
    return Undone(version, ids)


def _reference(verdicts: Sequence[Verdict]) -> str | None:
    """The reference that they fix, as it is stored."""
    given = next((one.reference for one in verdicts if one.reference is not None), None)
    return None if given is None else texts.canonical(given)


def _one_id(case: Case, rationale_id: str | None) -> str | None:
    """The id that a case shows a worked answer under, where it is known."""
    found = None if rationale_id is None else case.one(rationale_id)
    return rationale_id if found is None else found.rationale_id


def _decision(example_id: str, domain: str, *, kept: bool, reason: str, **detail: Any) -> dict[str, object]:
    said = {name: value for name, value in detail.items() if value is not None}
    body = json.dumps(said, ensure_ascii=False, sort_keys=True)
    row = {"example_id": example_id, "domain": domain, "step": STEP, "method": PERSON, "kept": kept, "reason": reason}
    return row | {"gain": None, "rank": None, "detail": body}


@dataclass
class _Judged:
    """What the verdicts on one case come to."""

    case: Case
    verdicts: Sequence[Verdict]
    known: Known
    decisions: list[dict[str, object]] = field(default_factory=list)
    rationales: list[dict[str, object]] = field(default_factory=list)
    examples: list[dict[str, object]] = field(default_factory=list)
    retired: list[dict[str, object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.problems():
            return
        if self.reference is not None:
            self._refer()
        for verdict in self.verdicts:
            {"accept": self._accept, "reject": self._reject, "fix": self._fix}[verdict.verdict](verdict)

    @cached_property
    def reference(self) -> str | None:
        """The fixed reference, as it is stored."""
        return _reference(self.verdicts)

    @cached_property
    def example_id(self) -> str:
        """The example that accepted worked answers belong to."""
        if self.reference is None:
            return self.case.example_id
        return texts.example_id(self.case.prompt, self.reference)

    @cached_property
    def domain(self) -> str:
        """Its domain."""
        case = self.case
        is_label = case.reference == case.domain and self.reference is not None
        return self.reference if is_label and self.reference else case.domain

    def problems(self) -> list[str]:
        """See `problems_of`."""
        found = [f"example {self.case.example_id[:12]}: {said}" for said in self._problems()]
        return list(dict.fromkeys(found))

    def _problems(self) -> Iterator[str]:
        case = self.case
        if case.split == "eval":
            yield "is of the eval split, to which nobody writes answers"
        if len({one.reference for one in self.verdicts if one.reference is not None}) > 1:
            yield "is given two references"
        if self.reference == "":
            yield "the new reference is empty"
        elif self.example_id == case.example_id and self.reference is not None:
            yield f"the new reference is the one that it has, {case.reference!r}"
        elif self.domain not in self.known.domains:
            yield f"its domain is its reference, and the pool has no domain {self.domain!r}"
        elif self.reference is not None and self.example_id in self.known.stored:
            yield (
                f"its prompt with the reference {self.reference!r} is example {self.example_id[:12]} already, which is "
                f"{self.known.stored[self.example_id]}: retire this one instead, or leave it"
            )
        seen = [_one_id(case, one.rationale_id) for one in self.verdicts]
        if len(seen) > len(set(seen)):
            yield "one worked answer is given two verdicts"
        for verdict in self.verdicts:
            yield from self._problems_of(verdict)

    def _problems_of(self, verdict: Verdict) -> Iterator[str]:
        worked = self._worked(verdict)
        halves = [name for name in _WRITTEN if not texts.is_whole(getattr(verdict, name) or "")]
        given = [name for name in ("rationale", "answer", "reference") if getattr(verdict, name) is not None]
        if halves:
            yield f"the {halves[0]} of {verdict.verdict} holds half of a surrogate pair, which is no text"
        elif verdict.rationale_id is not None and not worked:
            yield f"has no worked answer {verdict.rationale_id!r}"
        elif verdict.verdict == "fix" and not given:
            yield "fix says neither another rationale, nor another answer, nor another reference"
        elif verdict.verdict != "fix" and given:
            yield f"{verdict.verdict} goes without another {given[0]}; use fix"
        elif verdict.verdict == "reject" and not worked:
            yield "has no worked answer to reject"
        elif verdict.verdict == "accept" and len(worked) != 1:
            yield f"has {len(self.case.worked)} worked answers: say which one to accept"
        elif verdict.verdict == "accept" and not (worked[0].answer or "").strip():
            yield "that worked answer declares no final answer; fix it, and say which"
        elif verdict.answer is not None and verdict.rationale is None and len(worked) != 1:
            yield "say which worked answer the new answer is for, or write a rationale for it"
        elif verdict.answer is not None or verdict.rationale is not None:
            yield from _problems_of_text(*self._fixed(verdict), given=verdict.answer)

    def _worked(self, verdict: Verdict) -> list[Worked]:
        """The worked answers that a verdict speaks of."""
        if verdict.rationale_id is not None:
            found = self.case.one(verdict.rationale_id)
            return [] if found is None else [found]
        if verdict.verdict == "reject":
            return [one for one in self.case.worked if not one.accepted] or list(self.case.worked)
        return list(self.case.worked) if len(self.case.worked) == 1 else []

    def _fixed(self, verdict: Verdict) -> tuple[str, str | None]:
        """The text of a fixed worked answer, and the answer that it declares."""
        if verdict.rationale is None:
            text = answers.restated(self._worked(verdict)[0].text, verdict.answer or "")
        elif verdict.answer is None or answers.parse(verdict.rationale, kind="text") is not None:
            text = verdict.rationale.strip()
        else:
            text = answers.completion(verdict.rationale, verdict.answer)
        return text, answers.parse(text, kind="text")

    def _refer(self) -> None:
        """The example with the new reference takes the place of the old one."""
        case, note = self.case, next((one.note for one in self.verdicts if one.reference is not None), None)
        new = {name: getattr(case, name) for name in ("prompt", "split", "origin")}
        new |= {"example_id": self.example_id, "reference": self.reference, "domain": self.domain, "added_in": 0}
        self.examples.append(new | {"parents": list(case.parents)})
        reason = f"a person fixed its reference: it is example {self.example_id} now"
        self.retired.append({"example_id": case.example_id, "reason": reason})
        fixed = _decision(case.example_id, case.domain, kept=False, reason="fixed", example=self.example_id, note=note)
        self.decisions.append(fixed)
        others = [one for one in self.verdicts if one.verdict != "fix" or one.rationale or one.answer]
        spoken_of = {one.rationale_id for verdict in others for one in self._worked(verdict)}
        left = [one for one in case.worked if one.answer and one.rationale_id not in spoken_of]
        agree = answers.same([(one.answer or "", self.reference or "") for one in left], kind="number")
        for one in [one for one, agrees in zip(left, agree, strict=True) if agrees]:
            self._keep(one.text, one.answer, author=one.author, of=one.rationale_id, reason="accepted")
        if not any(one["example_id"] == self.example_id for one in self.decisions):
            self._decide(kept=True, reason="fixed", note=note)

    def _accept(self, verdict: Verdict) -> None:
        (one,) = self._worked(verdict)
        if one.accepted and self.reference is None:
            same = {"of": one.rationale_id, "as": one.rationale_id}
            self._decide(kept=True, reason="accepted", note=verdict.note, **same)
            return
        keep = partial(self._keep, one.text, one.answer, author=one.author, reason="accepted")
        keep(of=one.rationale_id, note=verdict.note)

    def _reject(self, verdict: Verdict) -> None:
        for one in self._worked(verdict):
            as_ = one.rationale_id
            if one.accepted:
                why = {"accepted": False, "reason": REJECTED, "detail": verdict.note}
                as_ = self._rationale(self.case.example_id, one.text, one.answer, one.author, how="rejected", **why)
            detail = {"of": one.rationale_id, "as": as_, "note": verdict.note}
            case = self.case
            self.decisions.append(_decision(case.example_id, case.domain, kept=False, reason="rejected", **detail))

    def _fix(self, verdict: Verdict) -> None:
        if verdict.rationale is None and verdict.answer is None:
            return
        text, answer = self._fixed(verdict)
        self._keep(text, answer, author=PERSON, reason="fixed", of=verdict.rationale_id, note=verdict.note)

    def _keep(
        self, text: str, answer: str | None, *, author: str, reason: str, of: str | None = None, note: str | None = None
    ) -> None:
        how = {"accepted": True, "reason": None, "detail": note}
        as_ = self._rationale(self.example_id, text, answer, author, how=reason, **how)
        self._decide(kept=True, reason=reason, note=note, **{"of": of, "as": as_})

    def _rationale(
        self, example_id: str, text: str, answer: str | None, author: str, *, how: str, **row: object
    ) -> str:
        source = f"{SOURCE}:{how}"
        rationale_id = texts.rationale_id(example_id, text, answer, source)
        own = {"rationale_id": rationale_id, "example_id": example_id, "text": text, "answer": answer}
        self.rationales.append(own | {"source": source, "author": author} | row)
        return rationale_id

    def _decide(self, *, kept: bool, reason: str, **detail: Any) -> None:
        self.decisions.append(_decision(self.example_id, self.domain, kept=kept, reason=reason, **detail))


def _problems_of_text(text: str, declared: str | None, *, given: str | None) -> Iterator[str]:
    if not text.strip():
        yield "the new rationale is empty"
    elif declared is None:
        yield "the new rationale declares no final answer: end it with a line `Answer: ...`, or say the answer too"
    elif given is not None and not answers.same([(declared, given)], kind="number")[0]:
        yield f"the new rationale declares {declared!r}, and the new answer is {given!r}"
