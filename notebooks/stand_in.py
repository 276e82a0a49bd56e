"""A stand-in for a provider: a server on this machine that speaks OpenAI's chat protocol over HTTP.

    python stand_in.py PORT_FILE

writes its port into PORT_FILE and serves until it is stopped. It wants the key `stand-in-key` (401 without), is too
busy for every fortieth request (429), and counts what it served (GET /count). What it answers comes from the rules of
the quickstart's offline teacher; the prompts that it reads are those that balkit sends to any teacher.
"""

from __future__ import annotations

import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any

from balkit import Request
from balkit.teacher.offline import answer

KEY = "stand-in-key"


class Provider(BaseHTTPRequestHandler):
    """One connection. The counters are all connections' together."""

    protocol_version = "HTTP/1.1"
    numbers, served, lock = count(1), 0, Lock()

    def do_GET(self) -> None:
        self.send(200, {"served": Provider.served})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        number = next(Provider.numbers)
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            self.send(401, {"error": {"message": "no such key", "type": "auth", "code": "invalid_api_key"}})
        elif number % 40 == 0:
            self.send(429, {"error": {"message": "too busy", "type": "rate", "code": "rate_limit"}}, wait_s=1)
        else:
            reply = completion(body, number)
            with Provider.lock:
                Provider.served += 1
            self.send(200, reply)

    def send(self, status: int, body: dict[str, Any], *, wait_s: int | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if wait_s is not None:
            self.send_header("Retry-After", str(wait_s))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


def completion(body: dict[str, Any], number: int) -> dict[str, Any]:
    """The reply to a chat request."""
    asked = body["messages"][-1]["content"]
    said = answer(request_of(asked, number))
    message = {"role": "assistant", "content": said.text}
    usage = {"prompt_tokens": said.input_tokens, "completion_tokens": said.output_tokens}
    return {
        "id": f"stand-in-{number}", "object": "chat.completion", "created": 0, "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": usage | {"total_tokens": sum(usage.values())},
    }  # fmt: skip


def request_of(asked: str, number: int) -> Request:
    """What balkit's prompt asks for, in the offline teacher's words. Another number is answered in other words."""
    domain = re.search(r'belong to the domain "(.+?)"', asked)
    hint = re.search(r"^The reference answer is: (.+)$", asked, re.MULTILINE)
    wanted = re.search(r"^Write (\d+) new examples", asked, re.MULTILINE)
    task = re.search(r"task below.*?\n\n(.*?)\n\n(?:The reference|Reason step)", asked, re.DOTALL)
    return Request(
        purpose="rationale" if domain is None else "synthesis",
        endpoint="", model="", messages=(("user", asked),), template=str(number), sample=0, max_tokens=0, temperature=0,
        domain=domain[1] if domain else "",
        count=int(wanted[1]) if wanted else 0,
        subject=task[1] if task else asked,
        reference=hint[1] if hint else None,
    )  # fmt: skip


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", 0), Provider) as server:
        Path(sys.argv[1]).write_text(str(server.server_address[1]))
        server.serve_forever()
