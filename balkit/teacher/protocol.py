"""What is asked of a teacher and what comes back. A Teacher only transports; `calls` does keys, cache and money."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

from balkit import texts

Purpose = Literal["rationale", "synthesis", "vote"]
Outcome = Literal["ok", "rate_limited", "transient", "unknown", "permanent", "stop"]

#: What the key is made of, in the order of `Request.body`.
PARTS = ("purpose", "endpoint", "model", "messages", "template", "sample", "max_tokens", "temperature", "schema")


@dataclass(frozen=True)
class Request:
    """One question to the teacher.

    The key is made of the first block. The second block is what balkit itself knows about the request: it serves
    caps per stage and domain, SQL joins and the offline teachers, and buys nothing twice when it changes.
    """

    purpose: Purpose
    endpoint: str
    model: str
    messages: tuple[tuple[str, str], ...]  # (role, content)
    template: str  # digest of the prompt template
    sample: int  # index among requests that would otherwise be equal; votes and samples never collapse into one
    max_tokens: int
    temperature: float
    schema: str | None = None  # JSON Schema of the reply, as canonical JSON

    domain: str = field(default="", kw_only=True)
    stage: int = field(default=0, kw_only=True)
    example_id: str | None = field(default=None, kw_only=True)
    subject: str = field(default="", kw_only=True)  # the example's prompt (rationale, vote)
    reference: str | None = field(default=None, kw_only=True)  # the reference answer shown as a hint, if any
    count: int = field(default=0, kw_only=True)  # examples asked for (synthesis)

    @cached_property
    def key(self) -> str:
        """sha256 over what can change the reply."""
        return texts.digest(self.body())

    def body(self) -> list[Any]:
        """What can change the reply, as a JSON value. The endpoint counts by its name, not by its URL."""
        return [
            self.purpose,
            self.endpoint,
            self.model,
            [list(message) for message in self.messages],
            self.template,
            self.sample,
            self.max_tokens,
            self.temperature,
            self.schema,
        ]

    @classmethod
    def of_body(cls, body: Sequence[Any], *, domain: str, stage: int, example_id: str | None) -> Request:
        """The request of a stored body and its labels; what no key holds and no ledger keeps is left empty."""
        purpose, endpoint, model, messages, *rest = body
        pairs = tuple((str(role), str(text)) for role, text in messages)
        return cls(purpose, endpoint, model, pairs, *rest, domain=domain, stage=stage, example_id=example_id)


@dataclass(frozen=True)
class Reply:
    """What one attempt brought back. `text` is empty unless `outcome` is `ok`.

    Outcomes: `ok`; `rate_limited` (429: wait, uses up no try); `transient` (5xx, or refused before anything was
    sent: try again); `unknown` (sent, but no whole answer: may have been paid for); `permanent` (400, 422: this
    request will never work); `stop` (401, 403, no quota: no request will).
    """

    request: Request
    outcome: Outcome
    text: str = ""
    finish_reason: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    raw: str = ""  # as received, for the ledger
    author: str = ""  # the model that answered, as it calls itself
    provider_id: str = ""
    error: str = ""
    retry_after_s: float | None = None
    more_at_hand: bool = False  # the teacher's next reply follows at once: both may be committed together
    cached: bool = False  # set by calls: served from the ledger
    cost_microusd: int = 0  # set by calls


class Teacher(Protocol):
    """Sends each request once. Replies come in completion order, each naming its request."""

    def ask(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """One attempt a request. Pulls a request only when it can be sent at once: what is pulled is in flight.

        A teacher with an attribute `room` says how many requests it would send now, so that they are noted together.
        Requests with a method `wait_s` say how many seconds a rate limit lasts; to pull before is to end the iteration.
        """
        ...
