"""A teacher behind a provider's API or a local server, by way of LiteLLM. The only `import litellm`."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import logging
import os
import queue
import re
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from functools import cache
from typing import Any

from balkit import recipe
from balkit.errors import need
from balkit.teacher.caps import estimated_usage
from balkit.teacher.faults import outcome_of, retry_after_s
from balkit.teacher.keys import Keys
from balkit.teacher.protocol import Outcome, Reply, Request
from balkit.teacher.reading import text_of, usage_of
from balkit.teacher.retry import Tempo

log = logging.getLogger(__name__)

_LAST_WORDS_S = 5.0  # what the end of the process waits for the loop's tasks
_GRACE_S = 5.0  # beyond its deadline, until an attempt that does not end is given up
_SURROGATE = re.compile("[\ud800-\udfff]")


class Remote:
    """Sends each request once, at most `concurrency` at a time, fewer after a 429, and within `rpm` and `tpm`.

    Needs `balkit[teacher]`. `ask` is synchronous over an event loop in a thread, so that it works where a loop runs
    already. Every attempt ends by `timeout_s`, at worst `grace_s` later. Raises `TeacherStopped` where the key's
    variable is not set. A reply's `raw` is what LiteLLM made of the answer, as JSON, since it hands on no bytes.
    """

    def __init__(self, section: recipe.Teacher, *, grace_s: float = _GRACE_S) -> None:
        self._section = section
        self._grace_s = grace_s
        self._window = Window(section.concurrency)
        self._tempo = Tempo(section.rpm, section.tpm)
        self.room = 1 if self._tempo.limited else section.concurrency
        self._litellm: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._keys: Keys | None = None

    def ask(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Replies in completion order. Requests are pulled in the caller's thread, as the window has room."""
        self._open()
        assert self._loop is not None
        done: queue.SimpleQueue[Future[Reply]] = queue.SimpleQueue()
        pending: dict[Future[Reply], tuple[Request, float]] = {}  # each with when it is given up, the earliest first
        source, paused_s = iter(requests), getattr(requests, "wait_s", lambda: 0.0)
        more = True

        def wait_s() -> float:
            return max(self._tempo.wait_s(), paused_s())

        try:
            while more or pending:
                while more and (free := self._window.size - len(pending)) > 0 and not wait_s():
                    self.room = 1 if self._tempo.limited else free
                    request = next(source, None)
                    more = request is not None
                    if request is not None:
                        self._tempo.sent(estimated_usage(request))
                        future = asyncio.run_coroutine_threadsafe(self._attempt(request), self._loop)
                        pending[future] = request, time.monotonic() + self._section.timeout_s + self._grace_s
                        future.add_done_callback(done.put)
                longest_s = wait_s() if more and free > 0 else None
                burst = self._burst(done, pending, longest_s=longest_s) if pending or longest_s else []
                for left, reply in zip(reversed(range(len(burst))), burst, strict=True):
                    self._window.note(reply.outcome)
                    yield replace(reply, more_at_hand=left > 0)
        finally:
            for future in pending:
                future.cancel()

    def _burst(
        self,
        done: queue.SimpleQueue[Future[Reply]],
        pending: dict[Future[Reply], tuple[Request, float]],
        *,
        longest_s: float | None,
    ) -> list[Reply]:
        """The replies that are there, after a wait for the first; a request that outlives its deadline is given up.

        `_attempt` ends by itself, unless something under it blocks the loop or swallows being cancelled.
        """
        waits = [] if longest_s is None else [longest_s]
        waits += [max(0.0, until - time.monotonic()) for _, until in list(pending.values())[:1]]
        burst = [future.result() for future in _all_of(done, wait_s=min(waits)) if pending.pop(future, None)]
        for future, (request, until) in list(pending.items()):
            if time.monotonic() < until:
                break
            if not future.cancel():  # it has just come; the next burst brings it
                continue
            del pending[future]
            error = f"no answer within {self._section.timeout_s:g} s, and the client does not let go of it"
            burst.append(Reply(request, "unknown", error=error))
        return burst

    def _open(self) -> None:
        if self._loop is not None:
            return
        self._litellm = load_litellm()
        self._keys = Keys(self._section)
        self._loop = _loop(os.getpid())

    async def _attempt(self, request: Request) -> Reply:
        if any(_SURROGATE.search(text) for _, text in request.messages):
            return Reply(request, "permanent", error="its text holds half of a surrogate pair, which cannot be sent")
        try:
            answer = self._litellm.acompletion(**self._arguments(request))
            response = await asyncio.wait_for(answer, self._section.timeout_s)
            return self._read(request, response)
        except TimeoutError:
            return Reply(request, "unknown", error=f"no answer within {self._section.timeout_s:g} s")
        except Exception as error:
            return self._failed(request, error)

    def _arguments(self, request: Request) -> dict[str, Any]:
        assert self._keys is not None
        messages, response_format = asked(request, model=self._section.model, litellm=self._litellm)
        arguments: dict[str, Any] = {
            "model": self._section.model,
            "messages": messages,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "timeout": self._section.timeout_s,
            "api_base": self._section.base_url,
            "api_key": self._keys.next(),
            "max_retries": 0,
            "num_retries": 0,
            "drop_params": False,
        }
        if self._keys.headers:
            arguments["extra_headers"] = dict(self._keys.headers)
        return arguments if response_format is None else arguments | {"response_format": response_format}

    def _read(self, request: Request, response: Any) -> Reply:
        assert self._keys is not None
        raw = self._keys.redacted(_json(response))
        if not response.choices:
            return Reply(request, "unknown", raw=raw, error="the answer has no choices")
        choice = response.choices[0]
        text = text_of(choice.message.content)
        input_tokens, output_tokens = usage_of(getattr(response, "usage", None), text=text)
        return Reply(
            request,
            "ok",
            text=self._keys.redacted(text),
            finish_reason=str(choice.finish_reason or ""),
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            raw=raw,
            author=str(response.model or self._section.model),
            provider_id=str(response.id or ""),
        )

    def _failed(self, request: Request, error: Exception) -> Reply:
        assert self._keys is not None
        outcome, text = outcome_of(error), self._keys.said(error)
        if outcome == "stop":
            text = f"{text} ({self._advice(type(error).__name__)})"
        elif self._section.base_url:
            text = f"{text} (at {self._section.base_url})"
        return Reply(request, outcome, error=text, retry_after_s=retry_after_s(error))

    def _advice(self, kind: str) -> str:
        where = self._section.base_url or "the provider's own endpoint"
        if self._section.key_names():
            key = f"the key comes from {' or '.join(self._section.key_names())}"
        else:
            names = self._litellm.validate_environment(self._section.model).get("missing_keys", [])
            missing = f"; not set: {', '.join(names)}" if names and not self._section.base_url else ""
            key = f"no teacher.api_key_env in the recipe{missing}"
        return f"{kind}; model {self._section.model} at {where}; {key}"


def _all_of(done: queue.SimpleQueue[Future[Reply]], *, wait_s: float | None) -> list[Future[Reply]]:
    """Waits for one that is done, at most so long; with it all the others that are."""
    found = []
    with contextlib.suppress(queue.Empty):
        found.append(done.get(timeout=wait_s))
        while True:
            found.append(done.get_nowait())
    return found


class Window:
    """How many requests may be in flight: one more after every full window of successes, half after a 429."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = float(most)
        self._since_cut = 0

    @property
    def size(self) -> int:
        """At least one."""
        return int(self._size)

    def note(self, outcome: Outcome) -> None:
        """Learn from one reply. The 429s of one volley cut only once."""
        self._since_cut += 1
        if outcome == "ok":
            self._size = min(self._most, self._size + 1 / self._size)
        elif outcome == "rate_limited" and self._since_cut > self._size:
            self._size = max(1.0, self._size / 2)
            self._since_cut = 0


def load_litellm() -> Any:
    """LiteLLM without its price list from the network, its telemetry, retries, cache and chatter."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    litellm: Any = need("litellm", extra="teacher")
    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.drop_params = False
    litellm.num_retries = None
    litellm.cache = None
    _send_once(litellm)
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # they log errors with whatever the provider echoes
    client = logging.getLogger("openai")  # at DEBUG it logs a request's headers
    client.setLevel(max(client.level, logging.INFO))
    warnings.filterwarnings("ignore", r"coroutine '\w+\.a\w*completion\w*' was never awaited")  # cancelled attempts
    return litellm


def _send_once(litellm: Any) -> None:
    """LiteLLM sends a request a second time, unasked, where the connection was reset after it had left.

    It does so on httpx.ConnectError, which it makes of aiohttp's ClientOSError; a ReadError it hands on. Connections
    that never came about are another class, and stay what they are.
    """
    litellm.disable_aiohttp_transport = False  # the other transport resends too
    if os.environ.pop("DISABLE_AIOHTTP_TRANSPORT", None):
        log.warning("DISABLE_AIOHTTP_TRANSPORT is not heeded: that transport may send, and pay for, a request twice")
    transport: Any = need("litellm.llms.custom_httpx.aiohttp_transport", extra="teacher")
    transport.AIOHTTP_EXC_MAP[transport.aiohttp.ClientOSError] = transport.httpx.ReadError


def _json(response: Any) -> str:
    try:
        return str(response.model_dump_json())
    except ValueError:  # half of a surrogate pair, which the ledger stores as a question mark
        return json.dumps(response.model_dump(), ensure_ascii=False, default=str)


def asked(request: Request, *, model: str, litellm: Any) -> tuple[list[dict[str, str]], dict[str, Any] | None]:
    """The messages, and the response format; a model without native schemas is shown the schema instead."""
    messages = [{"role": role, "content": content} for role, content in request.messages]
    if request.schema is None:
        return messages, None
    if litellm.supports_response_schema(model):
        return messages, _response_format(request.schema)
    messages[-1]["content"] += f"\n\nAnswer with one JSON object that fits this JSON Schema:\n{request.schema}"
    return messages, None


def _response_format(schema: str) -> dict[str, Any]:
    body = json.loads(schema)
    strict = body.get("additionalProperties") is False
    return {"type": "json_schema", "json_schema": {"name": "reply", "schema": body, "strict": strict}}


@cache
def _loop(pid: int) -> asyncio.AbstractEventLoop:
    """The event loop of all teachers of this process, in a thread of its own; a fork gets another.

    One for all, because LiteLLM keeps clients and a logging worker per loop and never gives up those of an old one.
    """
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(_note)
    thread = threading.Thread(target=_serve, args=[loop], name="balkit-teacher", daemon=True)
    thread.start()
    atexit.register(_stop, loop, thread)
    return loop


def _note(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What the loop complains of, clients that LiteLLM drops unclosed after an hour: nothing a user can mend."""
    log.debug("the teacher's event loop: %s", context.get("message"))


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.run_until_complete(_end_tasks())
    loop.close()


async def _end_tasks() -> None:
    """Cancel what is left on the loop: LiteLLM's logging worker, attempts that nobody waits for."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(loop.stop)
    thread.join(_LAST_WORDS_S)
