"""A teacher that replays a JSONL file of earlier answers: a run without a network or a bill."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from balkit import texts
from balkit.errors import TeacherStopped
from balkit.teacher.protocol import Reply, Request
from balkit.teacher.scripted import estimated_reply

_FIELDS = {"rationale": ("prompt", "text"), "synthesis": ("domain", "prompt", "answer")}
_SHOWN = 20


class Recorded:
    """Replays lines of two kinds; both may name their `author`.

    `{"purpose": "rationale", "prompt", "text"}`: sample i of a rationale or a vote is the i-th line with the prompt.
    `{"purpose": "synthesis", "domain", "prompt", "answer"}`: call i of a domain gets the i-th `count` of its lines,
    and no examples when they are used up. What is not recorded fails for good. Usage is estimated from lengths.
    Raises `TeacherStopped` with every bad line.
    """

    is_free = True

    def __init__(self, file: str | Path) -> None:
        self._file = Path(file)
        self._worked: dict[str, list[dict[str, str]]] = {}
        self._written: dict[str, list[dict[str, str]]] = {}
        for line in _read(self._file):
            if line["purpose"] == "rationale":
                self._worked.setdefault(texts.canonical(line["prompt"]), []).append(line)
            else:
                self._written.setdefault(line["domain"], []).append(line)

    def ask(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Answers one after another, each as soon as it is pulled."""
        for request in requests:
            yield self._example(request) if request.purpose == "synthesis" else self._worked_answer(request)

    def _worked_answer(self, request: Request) -> Reply:
        lines = self._worked.get(texts.canonical(request.subject), [])
        if request.sample >= len(lines):
            error = f"not recorded: {self._file} has {len(lines)} answers to this prompt, not sample {request.sample}"
            return Reply(request, "permanent", error=error)
        line = lines[request.sample]
        return estimated_reply(request, line["text"], author=line.get("author", "recorded"))

    def _example(self, request: Request) -> Reply:
        first = request.sample * request.count
        lines = self._written.get(request.domain, [])[first : first + request.count]
        examples = [{"prompt": line["prompt"], "answer": line["answer"]} for line in lines]
        author = lines[0].get("author", "recorded") if lines else "recorded"
        return estimated_reply(request, json.dumps({"examples": examples}, ensure_ascii=False), author=author)


def _read(file: Path) -> Iterator[dict[str, str]]:
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TeacherStopped(f"{file}: recorded replies cannot be read: {error}") from error
    problems = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            body = json.loads(line)
        except ValueError as error:
            problems.append(f"{file}, line {number}: not JSON: {error}")
            continue
        problem = _problem(body)
        if problem:
            problems.append(f"{file}, line {number}: {problem}")
        else:
            yield body
    if problems:
        more = [f"... and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise TeacherStopped("\n".join(["recorded replies are wrong:", *problems[:_SHOWN], *more]))


def _problem(body: Any) -> str:
    if not isinstance(body, dict):
        return f"a line is an object, this one is a {type(body).__name__}"
    fields = _FIELDS.get(str(body.get("purpose")))
    if fields is None:
        return f"purpose is {body.get('purpose')!r}, not one of {', '.join(_FIELDS)}"
    wanted = (*fields, "author") if "author" in body else fields
    wrong = [name for name in wanted if not isinstance(body.get(name), str)]
    return f"{', '.join(wrong)}: missing or not a text" if wrong else ""
