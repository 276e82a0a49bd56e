"""A provider on loopback, lean enough to measure clients with: `python tests/benchmarks/loopback.py LATENCY_S`.

Prints its port, answers every POST after the latency with the same chat completion, ends when its stdin closes.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TEXT = "Four apples and three apples make seven apples, so the answer is 7. " * 6
_CHOICE = {"index": 0, "message": {"role": "assistant", "content": _TEXT}, "finish_reason": "stop"}
_USAGE = {"prompt_tokens": 40, "completion_tokens": 100, "total_tokens": 140}
_BODY = {"id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": "served-1", "choices": [_CHOICE]}


@contextmanager
def serving(latency_s: float) -> Iterator[str]:
    """The base URL of a server in a process of its own."""
    command = [sys.executable, str(Path(__file__)), str(latency_s)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.stdin.close()
        process.wait()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, latency_s: float) -> None:
    body = json.dumps(_BODY | {"usage": _USAGE}).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    try:
        while True:
            asked = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = asked.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]
            await reader.readexactly(int(length))
            await asyncio.sleep(latency_s)
            writer.write(head + body)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _serve(latency_s: float) -> None:
    server = await asyncio.start_server(lambda r, w: _answer(r, w, latency_s=latency_s), "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        os._exit(0)  # connections that are still open are nobody's any more


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1])))
