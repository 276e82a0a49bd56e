"""What a written example must look like: whole, of the domain's usual length and language, with a possible answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from balkit import answers, languages
from balkit.recipe import Answers, Synthesis
from balkit.verify.known import Fault
from balkit.verify.marks import CONTROL_TOKENS, REFUSES

_FEW = 5  # real examples of a domain below which those of all domains say what is usual
_LENGTHS = 2  # a new example may be so many times as long as the longest, or as short as the shortest
_WORDS = 5  # of a free text that is compared
_READ = 200  # examples whose language is looked at
_MARKS = {
    "refusal": REFUSES,
    "control_tokens": CONTROL_TOKENS,
    "reply_markup": re.compile(r"```|\"(?:prompt|answer)\"\s*:"),
}


@dataclass(frozen=True)
class Usual:
    """What a domain's real examples look like. Lengths in characters of prompt and answer together; None: any.

    `languages` is empty where no text has a sure one. `marks` are those of refusals, control tokens and markup that
    real examples hold too, so that they say nothing against a new one.
    """

    shortest: int | None = None
    longest: int | None = None
    languages: frozenset[str] = frozenset()
    marks: frozenset[str] = frozenset()


def usual(real: pl.DataFrame, *, domains: Iterable[str], section: Synthesis) -> dict[str, Usual]:
    """What is usual in each of the domains, by EXAMPLES; independent of their order.

    Allowed are half the shortest to twice the longest of the domain's real examples, and the languages of at least
    5 % of them (200 are read). Below 5 examples those of all domains count. `section.min_chars`, `max_chars` and
    `languages` stand instead where they are given. Raises `MissingExtra` without py3langid.
    """
    every = real.sort("example_id")
    return {
        domain: _usual(every if own.height < _FEW else own, section=section)
        for domain in domains
        for own in [every.filter(pl.col("domain") == domain)]
    }


def _usual(rows: pl.DataFrame, *, section: Synthesis) -> Usual:
    chars = pl.col("prompt").str.len_chars() + pl.col("reference").fill_null("").str.len_chars()
    shortest, longest = rows.select(chars.min().alias("least"), chars.max().alias("most")).row(0)
    both = [*rows["prompt"], *rows["reference"].drop_nulls()]
    return Usual(
        shortest=section.min_chars if shortest is None or section.min_chars is not None else shortest // _LENGTHS,
        longest=section.max_chars if longest is None or section.max_chars is not None else longest * _LENGTHS,
        languages=frozenset(section.languages) or languages.spoken(rows["prompt"].head(_READ).to_list()),
        marks=frozenset(name for name, mark in _MARKS.items() if any(map(mark.search, both))),
    )


def form_fault(row: Mapping[str, str | None], *, usual: Usual) -> Fault | None:
    """`empty`, `refusal`, `control_tokens`, `reply_markup`, `too_short`, `too_long` or `other_language`."""
    prompt, reference = (row["prompt"] or "").strip(), (row["reference"] or "").strip()
    if not prompt or not reference:
        return Fault("empty")
    for name, mark in _MARKS.items():
        found = mark.search(prompt) or mark.search(reference)
        if found and name not in usual.marks:
            return Fault(name, note=f"found: {found[0][:80]!r}")
    chars = len(prompt) + len(reference)
    if usual.shortest is not None and chars < usual.shortest:
        return Fault("too_short", note=f"{chars} characters, at least {usual.shortest}")
    if usual.longest is not None and chars > usual.longest:
        return Fault("too_long", note=f"{chars} characters, at most {usual.longest}")
    spoken = languages.language(prompt) if usual.languages else None
    if spoken is not None and spoken not in usual.languages:
        return Fault("other_language", note=f"language {spoken}, not {', '.join(sorted(usual.languages))}")
    return None


def answer_fault(row: Mapping[str, str | None], *, expected: Answers, labels: Sequence[str]) -> Fault | None:
    """`answer_unreadable`, `label_outside_set`, `label_contradicts_domain` or `choice_not_offered`."""
    prompt, reference = (row["prompt"] or "").strip(), (row["reference"] or "").strip()
    if expected.kind == "label":
        if reference not in labels:
            return Fault("label_outside_set", note=reference)
        own = not expected.labels and reference != row["domain"]
        return Fault("label_contradicts_domain", note=reference) if own else None
    if expected.kind == "choice":
        read = answers.letter(reference)
    else:
        read = answers.parse(f"Answer: {reference}", kind=expected.kind)
    if read is None:
        return Fault("answer_unreadable", note=reference)
    if expected.kind == "choice" and read not in answers.offered(prompt):
        offered = ", ".join(answers.offered(prompt))
        return Fault("choice_not_offered", note=f"{reference}; offered: {offered or 'none'}")
    return None


def contradictions(
    rows: Sequence[Mapping[str, str | None]], *, expected: Answers, labels: Sequence[str]
) -> list[Fault | None]:
    """`answer_contradicts_rationale` where a row's own `rationale` declares another answer than its reference.

    A rationale that declares none says nothing, nor does one beside a free text of more than 5 words, which can be
    right in other words. Mathematical answers are compared in one batch.
    """
    declared = [_declared(row, expected=expected, labels=labels) for row in rows]
    told = [at for at, answer in enumerate(declared) if answer is not None]
    pairs = [(rows[at]["reference"] or "", declared[at] or "") for at in told]
    agree = dict(zip(told, answers.same(pairs, kind=expected.kind), strict=True)) if told else {}
    return [
        None
        if agree.get(at, True)
        else Fault("answer_contradicts_rationale", row["rationale"], note=f"declared: {declared[at]}")
        for at, row in enumerate(rows)
    ]


def _declared(row: Mapping[str, str | None], *, expected: Answers, labels: Sequence[str]) -> str | None:
    text, prompt, reference = row.get("rationale"), row["prompt"] or "", row["reference"] or ""
    if not text or (expected.kind == "text" and len(reference.split()) > _WORDS):
        return None
    choices = answers.offered(prompt) if expected.kind == "choice" else ()
    return answers.parse(text, kind=expected.kind, labels=labels, choices=choices)
