"""The file and batch endpoints of the provider on loopback, with faults on demand."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

Answer = tuple[int, dict[str, Any] | bytes]


@dataclass
class BatchProvider:
    """Batches end at their `polls`-th look as `ends` says, with `done` lines (None: all).

    `answer` makes one line's status and body; `served` counts successful lines by custom_id.
    """

    answer: Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]
    polls: int = 1
    ends: Literal["completed", "expired", "failed", "cancelled"] = "completed"
    done: int | None = None
    good_after: int | None = None  # batches after the first so many complete, whatever `ends` says
    create_faults: list[int | Literal["made"]] = field(
        default_factory=list
    )  # statuses; "made": a 500 though it is made
    poll_faults: list[int] = field(default_factory=list)
    file_faults: list[Literal["between lines", "in a line"]] = field(default_factory=list)  # where a file breaks off
    counts: Any = "true"  # else what is said instead
    list_status: int = 200
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    served: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._polled: dict[str, int] = {}

    def post(self, path: str, content: bytes, boundary: bytes) -> Answer:
        """POST /files and POST /batches."""
        with self._lock:
            if path.endswith("/files"):
                part = next(p for p in content.split(b"--" + boundary) if b'name="file"' in p)
                return 200, self._store(part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n"))
            fault = self.create_faults.pop(0) if self.create_faults else None
            if isinstance(fault, int):
                return fault, _error("fault on demand")
            made = self._make(json.loads(content))
            return (500, _error("made, but not said")) if fault == "made" else (200, made)

    def get(self, path: str) -> Answer:
        """GET /batches, /batches/ID and /files/ID/content."""
        parts = path.split("?")[0].strip("/").split("/")
        with self._lock:
            if parts[-1] == "content":
                return 200, _broken_off(self.files[parts[-2]], self.file_faults.pop(0) if self.file_faults else None)
            if parts[-1] == "batches":
                body = {"object": "list", "data": list(self.batches.values()), "has_more": False}
                return self.list_status, body if self.list_status == 200 else _error("no list")
            if self.poll_faults:
                return self.poll_faults.pop(0), _error("fault on demand")
            if parts[-1] not in self.batches:
                return 404, _error("no such batch")
            return 200, self._look(parts[-1])

    def _store(self, content: bytes) -> dict[str, Any]:
        name = f"file-{uuid.uuid4().hex[:12]}"
        self.files[name] = content
        head = {"id": name, "object": "file", "bytes": len(content), "created_at": int(time.time())}
        return head | {"filename": "balkit.jsonl", "purpose": "batch", "status": "processed"}

    def _make(self, asked: dict[str, Any]) -> dict[str, Any]:
        name = f"batch_{uuid.uuid4().hex[:12]}"
        total = self.files[asked["input_file_id"]].count(b"\n")
        self.batches[name] = asked | {
            "id": name,
            "object": "batch",
            "created_at": int(time.time()),
            "status": "in_progress",
            "output_file_id": None,
            "error_file_id": None,
            "errors": None,
            "request_counts": {"total": total, "completed": 0, "failed": 0},
        }
        return self.batches[name]

    def _look(self, name: str) -> dict[str, Any]:
        self._polled[name] = self._polled.get(name, 0) + 1
        batch = self.batches[name]
        if batch["status"] == "in_progress" and self._polled[name] >= self.polls:
            self._finish(batch)
        return batch

    def _finish(self, batch: dict[str, Any]) -> None:
        asked = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        good, bad = [], []
        ends, done = self.ends, self.done
        if self.good_after is not None and list(self.batches).index(batch["id"]) >= self.good_after:
            ends, done = "completed", None
        for line in asked[:done]:
            status, body = self.answer(line["body"])
            response = {"status_code": status, "request_id": "req_1", "body": body}
            whole = {"id": "batch_req_1", "custom_id": line["custom_id"], "response": response, "error": None}
            (good if status == 200 else bad).append(whole)
            if status == 200:
                self.served[line["custom_id"]] = self.served.get(line["custom_id"], 0) + 1
        if ends == "expired" and done is not None:
            expired = {
                "code": "batch_expired",
                "message": "This request could not be executed before the batch expired.",
            }
            bad += [{"custom_id": line["custom_id"], "response": None, "error": expired} for line in asked[done:]]
        batch["status"] = ends
        batch["request_counts"] |= {"completed": len(good), "failed": len(bad)}
        if self.counts != "true":
            batch["request_counts"] = self.counts
        if ends == "failed":
            problem = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached", "line": None}
            batch["errors"] = {"object": "list", "data": [problem]}
        batch["output_file_id"] = self._store(_jsonl(good))["id"] if good else None
        batch["error_file_id"] = self._store(_jsonl(bad))["id"] if bad else None


def _broken_off(content: bytes, where: str | None) -> bytes:
    if where is None:
        return content
    whole = content.index(b"\n") + 1  # of the first line
    return content[:whole] if where == "between lines" else content[: whole + 20]


def _jsonl(lines: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in reversed(lines))  # the order is nobody's promise


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "error", "code": None}}
