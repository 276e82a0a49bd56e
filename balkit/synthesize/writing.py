"""New examples for domains that lack them: written, checked, answered a second time."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import polars as pl

from balkit import answers as final_answers
from balkit import frames, texts, verify
from balkit.recipe import Synthesis
from balkit.synthesize import replies
from balkit.synthesize.asking import Asked, Channel, Example, answered, form, frame, worked
from balkit.synthesize.attributes import drawn, told
from balkit.synthesize.candidates import Checks, Row, detail
from balkit.synthesize.demonstrations import Encode, Shelf, listed, shown
from balkit.synthesize.effort import Yield
from balkit.synthesize.lacking import Lacking
from balkit.synthesize.templates import template
from balkit.teacher.protocol import Reply, Request

_WITH_RATIONALE = (
    'In the JSON every example has a third key between prompt and answer, "rationale": the worked answer, step by '
    'step, with a last line "Answer: " and the same final answer.'
)


@dataclass(frozen=True)
class Written:
    """What came of it. `examples` holds the kept rows and the surplus ones; the latter have no rationale yet."""

    examples: pl.DataFrame  # EXAMPLES
    rationales: pl.DataFrame  # RATIONALES of the kept rows, accepted; with votes 0 rejected tries too
    decisions: pl.DataFrame  # DECISIONS on every written row, and on every reply that held none
    #: By domain: synthesis calls of this invocation, rows asked for, and rows of these that passed, less the rows that
    #: waited from earlier and did not.
    tally: dict[str, Yield]

    @property
    def calls_made(self) -> dict[str, int]:
        """Synthesis calls of this invocation by domain."""
        return {domain: one.calls for domain, one in self.tally.items() if one.calls}


@dataclass(frozen=True)
class Sources:
    """What is shown to the teacher, and what its examples are held against.

    demonstrations  real EXAMPLES with their domains
    known           prompts that must not be repeated
    evaluation      prompts of the eval split
    encode          texts -> (n, d) float32, rows L2-normalised: diverse demonstrations, semantic duplicates; or None
    pool            example_id, prompt of the texts above, as far as they are examples: refusals name these ids
    waiting         EXAMPLES that passed the checks earlier and were more than was missing: answered before any new call
    chosen          domain -> prompts of the real rows that the run has; what they do not cover is shown first
    written         domain -> prompts written for it earlier in the run, shown so that the next ones differ
    earlier         domain -> what its calls brought earlier in the run, those that wait included
    """

    demonstrations: pl.DataFrame
    known: Sequence[str]
    evaluation: Sequence[str]
    encode: Encode | None = None
    pool: pl.DataFrame = field(default_factory=frames.EXAMPLES.empty)
    waiting: pl.DataFrame = field(default_factory=frames.EXAMPLES.empty)
    chosen: Mapping[str, Sequence[str]] = field(default_factory=dict)
    written: Mapping[str, Sequence[str]] = field(default_factory=dict)
    earlier: Mapping[str, Yield] = field(default_factory=dict)


def write_examples(
    missing: Mapping[str, int],
    *,
    channel: Channel,
    section: Synthesis,
    sources: Sources,
    seed: int,
    start_sample: Mapping[str, int] | None = None,
    on_kept: Callable[[Mapping[str, int]], None] | None = None,
) -> Written:
    """Has up to `missing` new examples (rows by domain) written, in rounds over all domains at once.

    A domain ends when its rows are there, when its sub-budget of synthesis calls (`sub_budget`) is used up, at a
    call that can never work, after two rounds in a row without one reply that could be read, or when none of the rows
    of its first 10 calls of the run has passed; a decision says which. Each round asks for what is lacking over the
    share of rows that passed so far (`Yield.kept_fraction`). `start_sample` counts a domain's earlier synthesis calls
    of this run: ordinals go on there. `on_kept` is told after each round how many examples of every domain are kept.

    Every new row goes through `verify.new_examples`; then `votes` independent answers without a hint must all agree
    with the written one (else `vote_disagrees`), and the first of them, `per_example` at most, become its rationales;
    where they do not and the channel has a cascade for votes, its next teacher's votes count instead. With votes 0 a
    hinted rationale is asked for instead. Rows beyond what is missing are not answered: decision `surplus`, not kept.
    Decisions: step `verify`, `vote` or `synthesis`; a refused row's `detail` is JSON with its prompt, its answer and
    why, with the text that it collides with (`other`, `other_id`) or the `votes`; a reply without rows (`unparsable`,
    `cut_off`, `malformed`, `call_failed`) stands under its call's key.
    Independent of the order of replies. What `channel.ask` raises passes through.
    """
    shown_rows = sources.demonstrations
    writing = _Writing(
        domains={
            name: Lacking.of(name, rows, section=section, before=sources.earlier.get(name, Yield()))
            for name, rows in sorted(missing.items())
        },
        shelf=Shelf.of(shown_rows, count=section.demonstrations, seed=seed, encode=sources.encode),
        channel=channel,
        section=section,
        start=dict(start_sample or {}),
        written=sources.written,
        checks=Checks(
            known=verify.Known(sources.known),
            evaluation=verify.Known(sources.evaluation),
            usual=verify.usual(shown_rows, domains=[name for name, rows in missing.items() if rows], section=section),
            encode=sources.encode,
            pool=sources.pool,
        ),
    )
    for name, domain in writing.domains.items():
        domain.uncounted += [*sources.chosen.get(name, ()), *sources.written.get(name, ())]
    writing.queue_up(sources.waiting)
    writing.answer()
    while requests := writing.requests():
        writing.read(list(channel.cascade("synthesis")[0].ask(requests)))
        writing.answer()
        if on_kept is not None:
            on_kept({name: len(domain.kept) for name, domain in writing.domains.items()})
    return writing.result()


@dataclass(frozen=True)
class _Shown:
    """What a call was given."""

    parents: tuple[str, ...]  # ids of the demonstrations
    attributes: dict[str, str]


@dataclass
class _Writing:
    """The rounds of one invocation."""

    domains: dict[str, Lacking]
    shelf: Shelf
    channel: Channel
    section: Synthesis
    start: dict[str, int]
    written: Mapping[str, Sequence[str]]
    checks: Checks
    given: dict[str, _Shown] = field(default_factory=dict)  # by the call's key
    decisions: list[dict[str, object]] = field(default_factory=list)
    worked: list[Asked] = field(default_factory=list)

    def queue_up(self, waiting: pl.DataFrame) -> None:
        """Rows that were checked in an earlier invocation wait first in their domain's line."""
        for row in waiting.sort("example_id").iter_rows(named=True):
            if row["domain"] in self.domains:
                example = Example(row["example_id"], row["prompt"], row["reference"], row["domain"])
                self.domains[row["domain"]].wait(Row(example, tuple(row["parents"])))

    def requests(self) -> list[Request]:
        """The synthesis calls of the next round, by domain and ordinal; none when every domain has ended."""
        per_call, every = self.section.per_call, Yield.sum(domain.ever for domain in self.domains.values())
        rounds = {name: domain.next_calls(per_call=per_call, every=every) for name, domain in self.domains.items()}
        found = []
        for name, calls in rounds.items():
            domain = self.domains[name]
            if calls:
                self.shelf.cover(name, domain.uncounted)
                domain.uncounted = []
            for _ in range(calls):
                found.append(self._request(domain, sample=self.start.get(name, 0) + domain.calls_made))
                domain.ask(per_call=per_call)
                domain.last_key = found[-1].key
        return found

    def _request(self, domain: Lacking, *, sample: int) -> Request:
        name, section, seed = domain.name, self.section, self.shelf.seed
        given, varied = (
            self.shelf.draw(name, sample=sample),
            drawn(section.attributes, domain=name, sample=sample, seed=seed),
        )
        so_far = [*self.written.get(name, ()), *(row.example.prompt for row in [*domain.kept, *domain.queue])]
        used, line = template("synthesis"), self.channel.cascade("synthesis")[0]
        asked = (section.instructions.strip(), told(varied), _WITH_RATIONALE if section.rationale else "")
        values = {
            "domain": name,
            "count": str(section.per_call),
            "form": self._form(name),
            "instructions": "\n".join(filter(None, asked)),
            "demonstrations": shown(given, domain=name),
            "written": listed(so_far, near=lambda older: self.shelf.near(older, to=given)),
        }
        request = Request(
            purpose="synthesis",
            endpoint=line.endpoint,
            model=line.model,
            messages=(("user", used.fill(values)),),
            template=used.digest,
            sample=sample,
            max_tokens=section.max_tokens,
            temperature=section.temperature,
            schema=replies.schema(rationale=section.rationale),
            domain=name,
            stage=self.channel.stage,
            count=section.per_call,
        )
        self.given[request.key] = _Shown(tuple(one.example_id for one in given), varied)
        return request

    def _form(self, domain: str) -> str:
        expected = self.channel.expected
        if expected.kind == "label" and not expected.labels:
            return (
                f'The answer of every example is its domain, "{domain}", and no other of these labels would fit: '
                f"{', '.join(self.channel.labels)}."
            )
        return form(expected, labels=self.channel.labels)

    def read(self, got: Sequence[Reply]) -> None:
        """Reads a round's replies, has their rows checked, and queues those that pass."""
        rows, readable = list[Row](), set[str]()
        for reply in sorted(got, key=lambda reply: (reply.request.domain, reply.request.sample)):
            rows.extend(self._rows(reply, readable=readable))
        for name in {reply.request.domain for reply in got}:
            self.domains[name].note_round(was_read=name in readable)
        if not rows:
            return
        decisions = self.checks.faults(
            rows, section=self.section, expected=self.channel.expected, labels=self.channel.labels
        )
        waiting: dict[tuple[str, str], list[Row]] = {}
        for row in rows:
            waiting.setdefault((row.example.example_id, row.example.domain), []).append(row)
        for decision in decisions.iter_rows(named=True):
            row = waiting[decision["example_id"], decision["domain"]].pop(0)
            if decision["kept"]:
                self.domains[decision["domain"]].passed(row)
            else:
                self.decisions.append(decision | {"detail": detail(row, **json.loads(decision["detail"]))})

    def _rows(self, reply: Reply, *, readable: set[str]) -> list[Row]:
        """The rows of one reply; what cannot be read is decided on at once, with its text. Notes readable domains."""
        request = reply.request
        if reply.outcome != "ok":
            self.domains[request.domain].give_up()
            self._reply_fault(reply, reason="call_failed", detail=reply.error)
            return []
        parsed = replies.examples(reply.text, rationale=self.section.rationale)
        if parsed.fault:
            self._reply_fault(reply, reason=parsed.fault, detail=reply.text)
        if parsed.malformed:
            self._reply_fault(reply, reason="malformed", detail=reply.text)
        if parsed.examples or not (parsed.fault or parsed.malformed):
            readable.add(request.domain)
        else:  # says nothing of how many rows are good
            self.domains[request.domain].rows_asked -= self.section.per_call
        given, mended = self.given[request.key], ", ".join(parsed.mended) or None
        return [
            Row(self._example(prompt, answer, domain=request.domain), given.parents, mended, given.attributes, worked)
            for (prompt, answer), worked in zip(parsed.examples, parsed.rationales, strict=True)
        ]

    def _example(self, prompt: str, answer: str, *, domain: str) -> Example:
        expected = self.channel.expected
        prompt, reference = texts.canonical(prompt), texts.canonical(answer)
        if expected.kind in ("label", "choice"):
            declared = f"Answer: {reference}"
            reference = final_answers.parse(declared, kind=expected.kind, labels=self.channel.labels) or reference
        elif expected.kind in ("number", "math"):
            bare = reference.strip("$ ")
            reference = reference if "$" in bare else bare  # "$x=1$ and $y=2$" stays whole
        return Example(texts.example_id(prompt, reference), prompt, reference, domain)

    def _reply_fault(self, reply: Reply, *, reason: str, detail: str) -> None:
        request = reply.request
        why = {"method": "reply", "kept": False, "reason": reason, "detail": detail}
        self.decisions.append({"example_id": request.key, "domain": request.domain, "step": "synthesis", **why})

    def answer(self) -> None:
        """Has queued rows answered, as many as are lacking; refused ones are replaced by the next in the queue."""
        while batch := [row for domain in self.domains.values() for row in domain.take()]:
            asked = self._answers([row.example for row in batch])
            for row in batch:
                self._judge(row, asked.get(row.example.example_id, []))

    def _answers(self, examples: Sequence[Example]) -> dict[str, list[Asked]]:
        if not self.section.votes:
            hinted = self.channel.section.model_copy(update={"hint": True})
            return _by_id(worked(examples, channel=replace(self.channel, section=hinted)))
        found: dict[str, list[Asked]] = {}
        left, samples = list(examples), range(self.section.votes)
        for turn in range(len(self.channel.cascade("vote"))):
            if left:
                found |= _by_id(answered(left, channel=self.channel, purpose="vote", samples=samples, turn=turn))
            left = [one for one in left if any(vote.reason for vote in found[one.example_id])]
        return found

    def _judge(self, row: Row, asked: Sequence[Asked]) -> None:
        domain = self.domains[row.example.domain]
        agreeing = [one for one in asked if one.reason is None]
        votes = self.section.votes
        if agreeing and (not votes or len(agreeing) == len(asked)):
            domain.kept.append(row)
            self.worked.extend(asked[: self.channel.section.per_example] if votes else asked)
            return
        domain.good -= 1
        failed = any(one.reason == "call_failed" for one in asked)
        said = [{"answer": one.answer, "reason": one.reason, "text": one.text} for one in asked]
        own = str(asked[-1].reason).replace("answer_contradicts_reference", "answer_contradicts_rationale")
        reason = "call_failed" if failed else "vote_disagrees" if votes else own
        why = {"method": "votes" if votes else "rationale", "kept": False, "reason": reason}
        who = {"example_id": row.example.example_id, "domain": domain.name, "step": "vote"}
        self.decisions.append({**who, **why, "detail": detail(row, votes=said)})

    def result(self) -> Written:
        rows = [row for domain in self.domains.values() for row in [*domain.kept, *domain.queue]]
        settled: list[dict[str, object]] = [
            {
                "example_id": row.example.example_id,
                "domain": domain.name,
                "step": "synthesis",
                "method": "quota",
                "kept": rank < len(domain.kept),
                "reason": "written" if rank < len(domain.kept) else "surplus",
                "rank": rank,
                "detail": row.note(),
            }
            for domain in self.domains.values()
            for rank, row in enumerate([*domain.kept, *domain.queue])
        ]
        ends = [one.ended(section=self.section, stage=self.channel.stage) for one in self.domains.values()]
        settled += [end for end in ends if end is not None]
        return Written(
            examples=frames.EXAMPLES.of([row.stored() for row in rows]).sort("example_id"),
            rationales=frame(sorted(self.worked, key=lambda one: (one.example.example_id, one.sample))),
            decisions=frames.DECISIONS.of([*settled, *self.decisions]).sort("domain", "example_id", "step", "reason"),
            tally={domain.name: domain.tally for domain in self.domains.values()},
        )


def _by_id(asked: Sequence[Asked]) -> dict[str, list[Asked]]:
    found: dict[str, list[Asked]] = {}
    for one in asked:
        found.setdefault(one.example.example_id, []).append(one)
    return found
