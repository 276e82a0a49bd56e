"""A teacher behind a provider's batch API, by way of the openai package: half the price, and answers within a day.

A batch is found again by its intent in the ledger, in whichever process, and is never made twice. Ctrl-C or a kill
while it runs costs nothing: the same command goes on waiting for it.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NoReturn

from balkit import recipe
from balkit.errors import TeacherPaused, TeacherStopped, need
from balkit.teacher.batches import Journal, OpenBatch
from balkit.teacher.faults import outcome_of, outcome_of_answer, retry_after_s
from balkit.teacher.keys import Keys
from balkit.teacher.protocol import Outcome, Reply, Request
from balkit.teacher.reading import text_of, usage_of
from balkit.teacher.remote import asked, load_litellm

log = logging.getLogger(__name__)

_URL = "/v1/chat/completions"
_ENDED = ("completed", "failed", "expired", "cancelled")
_MOST_BYTES = 100_000_000  # of one input file; OpenAI takes 200 MB
_MOST_IN_FLIGHT = 50_000  # requests that one `ask` holds in memory
_SHORT_READS = 3  # of files with fewer lines than the provider counts, until they are taken as they are
_POLLS_FAILED = 20  # in a row, until the run pauses


@dataclass(frozen=True)
class Patience:
    """Seconds between two looks at a batch, which grow, and until a batch that is not listed was never made."""

    first_poll_s: float = 5.0
    longest_poll_s: float = 60.0
    listed_after_s: float = 60.0


class Batch:
    """Gathers requests into batches of up to `most_lines`, waits for them, and brings every line's reply.

    Lines that a batch finished before it expired or failed are kept; the others may be sent again. Needs
    `balkit[teacher]`, and a `journal` (the door sets it). Raises `TeacherStopped` where the provider refuses the key
    or does not know a batch, `TeacherPaused` where it cannot be reached; neither ends what is in a batch.
    """

    room = 500  # requests and replies that are committed to the ledger together

    def __init__(self, section: recipe.Teacher, *, patience: Patience | None = None, most_lines: int = 10_000) -> None:
        self.journal: Journal | None = None
        self._section = section
        self._patience = patience or Patience()
        self._most_lines = most_lines
        self._found: dict[str, str] = {}  # token -> the provider's name
        self._short = Counter[str]()  # token -> reads that were too short
        self._client: Any = None
        self._litellm: Any = None
        self._keys: Keys | None = None

    def ask(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Replies batch by batch, as these end. Nothing is sent for a request that is in an open batch already."""
        self._open()
        assert self.journal is not None, "a batch teacher is asked through a door"
        batches: list[OpenBatch] = self.journal.open(self._section.name)
        known = {key for batch in batches for key in batch.requests}
        wanted: set[str] = set()
        refused: list[Reply] = []  # handed out when all is gathered, so that no retry joins this round
        for group in self._groups(islice(requests, _MOST_IN_FLIGHT), known=known, wanted=wanted):
            made = self._submit(group)
            if isinstance(made, OpenBatch):
                batches.append(made)
            else:
                refused += made
        yield from refused
        waiting = [batch for batch in batches if wanted & batch.requests.keys()]
        self._collect([batch for batch in batches if batch not in waiting])
        yield from self._wait_for(waiting, wanted=wanted)

    # Sending

    def _groups(
        self, requests: Iterable[Request], *, known: set[str], wanted: set[str]
    ) -> Iterator[dict[str, tuple[Request, bytes]]]:
        """New requests with their lines, as many as one batch takes."""
        group: dict[str, tuple[Request, bytes]] = {}
        size = 0
        for request in requests:
            wanted.add(request.key)
            if request.key in known:
                continue
            line = self._line(request)
            if group and (len(group) >= self._most_lines or size + len(line) > _MOST_BYTES):
                yield group
                group, size = {}, 0
            group[request.key] = (request, line)
            size += len(line)
        if group:
            yield group

    def _line(self, request: Request) -> bytes:
        model = self._section.model.removeprefix("openai/")
        messages, response_format = asked(request, model=self._section.model, litellm=self._litellm)
        given = {"max_tokens": request.max_tokens, "temperature": request.temperature}
        if response_format is not None:
            given["response_format"] = response_format  # type: ignore[assignment]
        options = self._litellm.get_optional_params(model=model, custom_llm_provider="openai", **given)
        body = {"model": model, "messages": messages}
        body |= {name: value for name, value in options.items() if name not in ("stream", "extra_body", "max_retries")}
        line = {"custom_id": request.key, "method": "POST", "url": _URL, "body": body}
        return json.dumps(line).encode() + b"\n"

    def _submit(self, group: Mapping[str, tuple[Request, bytes]]) -> OpenBatch | list[Reply]:
        """Upload, intent, batch, in this order. Replies where it was refused as a whole."""
        assert self.journal is not None
        requests = {key: request for key, (request, _) in group.items()}
        content = b"".join(line for _, line in group.values())
        try:
            file = self._client.files.create(file=("balkit.jsonl", content), purpose="batch")
        except Exception as error:
            return self._refused(requests.values(), error)
        token = self.journal.intend(requests.values(), file_id=file.id)
        batch = OpenBatch(token, file.id, None, time.time(), requests)
        try:
            made = self._client.batches.create(
                input_file_id=file.id, endpoint=_URL, completion_window="24h", metadata={"balkit": token}
            )
        except Exception as error:
            if outcome_of(error) in ("unknown", "transient"):
                log.warning("whether batch %s was made is unknown; it will be looked for", token)
                return batch
            return self._refused(requests.values(), error)
        self.journal.submitted(token, made.id)
        log.warning(  # the one word before hours of silence
            "batch %s with %d requests is on its way; Ctrl-C is safe, the same command goes on waiting for it",
            *(made.id, len(requests)),
        )
        return replace(batch, provider_id=made.id)

    def _refused(self, requests: Iterable[Request], error: Exception) -> list[Reply]:
        """A batch that is refused whole says nothing about one row, so a 400 stops the run instead."""
        assert self._keys is not None
        outcome = outcome_of(error)
        outcome = {"permanent": "stop", "unknown": "transient"}.get(outcome, outcome)  # type: ignore[assignment]
        text, wait = f"batch refused: {self._keys.said(error)}", retry_after_s(error)
        return [Reply(request, outcome, error=text, retry_after_s=wait) for request in requests]

    # Waiting

    def _wait_for(self, waiting: list[OpenBatch], *, wanted: set[str]) -> Iterator[Reply]:
        assert self.journal is not None
        pause, failures = self._patience.first_poll_s, Counter[str]()
        while waiting:
            for batch in list(waiting):
                try:
                    replies = self._poll(batch)
                except Exception as error:
                    failures[batch.token] += 1
                    self._cannot_poll(batch, error, failures=failures[batch.token])
                    continue
                del failures[batch.token]
                if replies is not None:
                    waiting.remove(batch)
                    pause = self._patience.first_poll_s
                    yield from self._handed_out(replies, wanted=wanted)
            if waiting:
                time.sleep(pause)
                pause = min(pause * 1.5, self._patience.longest_poll_s)

    def _handed_out(self, replies: Iterable[Reply], *, wanted: set[str]) -> Iterator[Reply]:
        """Good ones first; what nobody waits for is kept. Groups of `room` are committed together."""
        assert self.journal is not None
        mine = []
        for reply in sorted(replies, key=lambda reply: reply.outcome != "ok"):
            if reply.request.key in wanted:
                mine.append(reply)
            else:
                self.journal.keep(reply)
        for number, reply in enumerate(mine, start=1):
            yield replace(reply, more_at_hand=number % self.room != 0 and number < len(mine))

    def _collect(self, batches: Iterable[OpenBatch]) -> None:
        """One look at batches that nobody waits for now: what they brought was paid for."""
        assert self.journal is not None
        assert self._keys is not None
        for batch in batches:
            try:
                replies = self._poll(batch)
            except Exception as error:
                log.warning("batch %s cannot be read: %s", batch.provider_id or batch.token, self._keys.said(error))
                continue
            for reply in replies or ():
                self.journal.keep(reply)

    def _cannot_poll(self, batch: OpenBatch, error: Exception, *, failures: int) -> None:
        assert self._keys is not None
        name = f"batch {batch.provider_id or batch.token} of the teacher {self._section.name!r}"
        said = f"{name} cannot be read: {self._keys.said(error)}"
        log.warning("%s", said)
        if outcome_of(error) == "stop":
            raise TeacherStopped(
                f"{said}. It stays open, with its requests' money reserved; mend the access and run again, or give "
                "its requests up with `balkit calls retry POOL --open`"
            ) from None
        if failures >= _POLLS_FAILED:
            raise TeacherPaused(f"{said}. It stays open; the same command goes on waiting for it") from None

    def _poll(self, batch: OpenBatch) -> list[Reply] | None:
        """The replies of a batch that has ended; None while it goes on."""
        provider_id = batch.provider_id or self._find(batch)
        if provider_id is None:
            if time.time() - batch.intended_at < self._patience.listed_after_s:
                return None
            return [Reply(one, "transient", error="the batch was never made") for one in batch.requests.values()]
        found = self._client.batches.retrieve(provider_id)
        counts = found.request_counts
        log.info("batch %s: %s, %s", found.id, found.status, counts and f"{counts.completed} of {counts.total}")
        if found.status not in _ENDED:
            return None
        lines: dict[str, dict[str, Any]] = {}
        for file_id in (found.output_file_id, found.error_file_id):
            if file_id:
                for line in _lines(self._client.files.content(file_id).read()):
                    lines.setdefault(str(line.get("custom_id")), line)
        told = (counts.completed or 0) + (counts.failed or 0) if counts else 0
        self._refuse_short(batch, lines=len(lines), told=told)
        return [self._sure_reply(request, lines.get(key), batch=found) for key, request in batch.requests.items()]

    def _refuse_short(self, batch: OpenBatch, *, lines: int, told: int) -> None:
        """Fewer lines than the provider counts are fetched again, and in the end taken as they are."""
        if lines < told and self._short[batch.token] < _SHORT_READS:
            self._short[batch.token] += 1
            raise ValueError(f"its files hold {lines} of {told} lines")

    def _find(self, batch: OpenBatch) -> str | None:
        """The provider's name of a batch whose making was not answered: by its input file, which no other has."""
        assert self.journal is not None
        if batch.token in self._found:
            return self._found[batch.token]
        for found in self._client.batches.list(limit=100):
            if found.input_file_id == batch.file_id or (found.metadata or {}).get("balkit") == batch.token:
                self.journal.submitted(batch.token, found.id)
                self._found[batch.token] = str(found.id)
                return self._found[batch.token]
        return None

    # Reading

    def _sure_reply(self, request: Request, line: Mapping[str, Any] | None, *, batch: Any) -> Reply:
        """One line that nobody can make sense of must not stand between the others and the ledger."""
        try:
            return self._reply(request, line, batch=batch)
        except (AttributeError, TypeError, ValueError, LookupError) as error:
            assert self._keys is not None
            raw = self._keys.redacted(json.dumps(line, ensure_ascii=False))
            return Reply(request, "unknown", raw=raw, error=f"a line that cannot be read: {self._keys.said(error)}")

    def _reply(self, request: Request, line: Mapping[str, Any] | None, *, batch: Any) -> Reply:
        assert self._keys is not None
        if line is None:
            return self._unfinished(request, batch=batch)
        raw = self._keys.redacted(json.dumps(line, ensure_ascii=False))
        response, error = line.get("response") or {}, line.get("error") or {}
        status, body = response.get("status_code"), response.get("body") or {}
        if status == 200:
            return self._whole(request, body, raw=raw)
        if error.get("code") in ("batch_expired", "batch_cancelled"):
            return replace(self._unfinished(request, batch=batch), raw=raw)
        text = self._keys.redacted(str(error.get("message") or body.get("error") or line))[:600]
        outcome = outcome_of_answer(status, text) if isinstance(status, int) else "unknown"
        return Reply(request, outcome, raw=raw, error=text)

    def _whole(self, request: Request, body: Mapping[str, Any], *, raw: str) -> Reply:
        assert self._keys is not None
        choices: Sequence[Mapping[str, Any]] = body.get("choices") or []
        if not choices:
            return Reply(request, "unknown", raw=raw, error="the answer has no choices")
        text = text_of((choices[0].get("message") or {}).get("content"))
        input_tokens, output_tokens = usage_of(body.get("usage") or {}, text=text)
        return Reply(
            request,
            "ok",
            text=self._keys.redacted(text),
            finish_reason=str(choices[0].get("finish_reason") or ""),
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            raw=raw,
            author=str(body.get("model") or self._section.model),
            provider_id=str(body.get("id") or ""),
        )

    def _unfinished(self, request: Request, *, batch: Any) -> Reply:
        """A line that an ended batch did not come to. It was not served, unless the batch says that it is complete."""
        assert self._keys is not None
        problems = getattr(batch.errors, "data", None) or []
        said = "; ".join(f"{one.code}: {one.message}" for one in problems)
        text = self._keys.redacted(f"batch {batch.id} is {batch.status}, without this line. {said}".strip())[:600]
        outcomes: dict[str, Outcome] = {"completed": "unknown", "expired": "rate_limited"}
        outcome = outcomes.get(batch.status, "rate_limited" if "limit" in said else "stop")
        return Reply(request, outcome, error=text)

    def _open(self) -> None:
        if self._client is not None:
            return
        openai: Any = need("openai", extra="teacher")
        self._litellm = load_litellm()
        self._keys = Keys(self._section)
        try:
            self._client = openai.OpenAI(
                api_key=self._keys.first(),
                base_url=self._section.base_url,
                max_retries=0,
                timeout=self._section.timeout_s,
                default_headers=self._keys.headers,
            )
        except openai.OpenAIError as error:
            _stop(self._keys.said(error))


def _stop(said: str) -> NoReturn:
    raise TeacherStopped(f"{said}; name the key's variable in teacher.api_key_env")


def _lines(content: bytes) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file; what is no object is left out, and its request then has no line."""
    for line in content.decode("utf-8", "replace").split("\n"):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value
