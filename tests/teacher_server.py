"""An OpenAI-compatible provider on loopback, over real HTTP, with faults on demand. It counts what it served."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self

from batch_provider import BatchProvider


@dataclass(frozen=True)
class Say:
    """How one request is answered. Without arguments: a whole reply, at once."""

    text: str | None = None  # default: an echo of the last message
    status: int = 200
    error: str = "fault on demand"
    code: str | None = None  # the provider's error code, such as insufficient_quota
    headers: Mapping[str, str] = field(default_factory=dict)
    latency_s: float = 0.0
    cut: Literal["", "reset", "half"] = ""  # drop the connection before, or in the middle of, the body
    body: str | None = None  # sent as it is
    finish_reason: str = "stop"
    refusal: str | None = None  # said instead of a text
    times: int = 1  # so often is the whole answer sent
    close_after_s: float | None = None  # no length is given, and the connection ends only then
    output_tokens: int = 5


class TeacherServer:
    """`with TeacherServer(...) as server:` answers by a list (then plainly) or by a function of the request's number.

    `answer` makes the text of a whole reply from the request's body; without it the last message is echoed.

    `received` holds the requests' bodies, `served` counts whole successful replies, `most_at_once` the requests open
    at the same time, `authorizations` the headers of that name, `headers` those of every POST. A line of a batch is
    answered by the plan as well; `batches` says how batches end.
    """

    def __init__(
        self, plan: Iterable[Say] | Callable[[int], Say] = (), *, answer: Callable[[dict[str, Any]], str] | None = None
    ) -> None:
        self.answer = answer or _echo
        listed = [] if callable(plan) else list(plan)
        self._plan = plan if callable(plan) else lambda i: listed[i] if i < len(listed) else Say()
        self._lock = threading.Lock()
        self._open = 0
        self.received: list[dict[str, Any]] = []
        self.authorizations: list[str] = []
        self.headers: list[dict[str, str]] = []  # names in lower case
        self.served = 0
        self.cost_microusd = 0  # of what was served, at 1 and 2 micro-dollars a token read and written
        self.most_at_once = 0
        self.batches = BatchProvider(self._line)

    def __enter__(self) -> Self:
        self._http = _Quiet(("127.0.0.1", 0), type("Handler", (_Handler,), {"owner": self}))
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        """The base URL that a recipe names."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def _line(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        say = self.begin(body, "")
        self.finish(served=say.status == 200)
        return say.status, _payload(say, body)

    def begin(self, body: dict[str, Any], authorization: str) -> Say:
        """Note a request; how it is to be answered."""
        with self._lock:
            self.received.append(body)
            self.authorizations.append(authorization)
            self._open += 1
            self.most_at_once = max(self.most_at_once, self._open)
            return self._plan(len(self.received) - 1)

    def finish(self, *, served: bool, cost_microusd: int = 0) -> None:
        """Note that a request has been dealt with."""
        with self._lock:
            self._open -= 1
            self.served += served
            self.cost_microusd += cost_microusd if served else 0


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is no news here."""


class _Handler(BaseHTTPRequestHandler):
    owner: TeacherServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send(*self.owner.batches.get(self.path))

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.owner.headers.append({name.lower(): value for name, value in self.headers.items()})
        if self.path.endswith(("/files", "/batches")):
            boundary = self.headers["Content-Type"].partition("boundary=")[2].encode()
            self._send(*self.owner.batches.post(self.path, content, boundary))
            return
        body = json.loads(content)
        say = self.owner.begin(body, self.headers.get("Authorization", ""))
        served = False
        try:
            time.sleep(say.latency_s)
            served = self._answer(say, body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            self.owner.finish(served=served, cost_microusd=_read(body) + 2 * say.output_tokens)

    def _answer(self, say: Say, body: dict[str, Any]) -> bool:
        if say.cut == "reset":
            self._reset()
            return False
        content = (
            say.body if say.body is not None else json.dumps(_payload(say, body, answer=self.owner.answer))
        ).encode()
        self.send_response(say.status)
        self.send_header("Content-Type", "application/json")
        if say.close_after_s is None:
            self.send_header("Content-Length", str(len(content)))
        else:
            self.send_header("Connection", "close")
        for name, value in say.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if say.cut == "half" else content)
        self.wfile.flush()
        time.sleep(say.close_after_s or 0.0)
        if say.times > 1:
            return self._answer(replace(say, times=say.times - 1), body)
        if say.cut == "half":
            self._reset()
        return say.status == 200 and not say.cut and say.body is None

    def _send(self, status: int, body: dict[str, Any] | bytes) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.shutdown(socket.SHUT_RD)
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


def _echo(body: dict[str, Any]) -> str:
    return f"echo: {body['messages'][-1]['content']}"


def _payload(say: Say, body: dict[str, Any], *, answer: Callable[[dict[str, Any]], str] = _echo) -> dict[str, Any]:
    if say.status != 200:
        return {"error": {"message": say.error, "type": "error", "code": say.code}}
    text = say.text if say.text is not None else answer(body)
    message = {"role": "assistant", "content": text if say.refusal is None else None, "refusal": say.refusal}
    read = _read(body)
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": "served-model-1",
        "choices": [{"index": 0, "message": message, "finish_reason": say.finish_reason}],
        "usage": {
            "prompt_tokens": read,
            "completion_tokens": say.output_tokens,
            "total_tokens": read + say.output_tokens,
        },
    }


def _read(body: dict[str, Any]) -> int:
    """Tokens of the prompt, as this provider counts them."""
    return sum(len(message["content"]) // 4 + 4 for message in body["messages"])
