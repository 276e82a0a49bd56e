"""Equality of mathematical expressions by math-verify, in a child process that can be killed.

Some expressions keep sympy busy for minutes, and its own timeouts work only in a main thread. So one child process
takes the pairs of a batch, one line each; when it does not answer in time it is killed and a new one goes on.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from balkit.errors import MissingExtra

_START_S = 120.0  # until the child has imported sympy
#: A pair's limit is CPU time, so that a busy machine judges as an idle one does; on the wall it may take so many times
#: as long.
_PATIENCE = 20
_CHILD = "from balkit.answers.mathematics import _serve; _serve()"


def equal_expressions(pairs: Sequence[tuple[str, str]], *, timeout_s: float) -> list[bool]:
    """Whether math-verify finds the pairs equal; a pair over `timeout_s` CPU seconds, or that ends the child, is False.

    The first of a pair is the reference. Nothing is started for no pairs. Raises `MissingExtra`.
    """
    if not pairs:
        return []
    if find_spec("math_verify") is None:  # not imported here: sympy takes a second and much memory
        raise MissingExtra("math_verify", "check")
    verdicts: list[bool] = []
    child: _Child | None = None
    try:
        for pair in pairs:
            child = child or _Child()
            verdict = child.ask(pair, timeout_s=timeout_s)
            verdicts.append(verdict is True)
            if verdict is None:
                child.end()
                child = None
    finally:
        if child:
            child.end()
    return verdicts


class _Child:
    """One process that answers pairs in order. A thread reads its lines, so that waiting can have an end."""

    def __init__(self) -> None:
        package = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"},
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if self._next(_START_S) != "ready":
            self.end()
            raise RuntimeError("the child process for math-verify did not start")

    def ask(self, pair: tuple[str, str], *, timeout_s: float) -> bool | None:
        """The verdict, or None when the child was too slow or ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps([*pair, timeout_s]) + "\n")
            self._process.stdin.flush()
        except OSError:
            return None
        answer = self._next(timeout_s * (_PATIENCE if hasattr(signal, "setitimer") else 1))
        return None if answer is None else answer == "true"

    def end(self) -> None:
        """Kill the process and take it off the books."""
        self._process.kill()
        self._process.wait()
        self._reader.join(timeout=5)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                try:
                    pipe.close()
                except OSError:  # what was still to be flushed has no reader any more
                    continue

    def _next(self, timeout_s: float) -> str | None:
        try:
            return self._lines.get(timeout=timeout_s) or None
        except queue.Empty:
            return None

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.strip())
        self._lines.put("")


def _serve() -> None:
    """The child's loop: a JSON pair and its limit in, `true` or `false` out. A pair over its limit ends the child."""
    import logging

    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    out, sys.stdout = sys.stdout, sys.stderr
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        left, right, timeout_s = json.loads(line)
        if hasattr(signal, "setitimer"):  # not on Windows, where only the wall limits
            signal.setitimer(signal.ITIMER_PROF, timeout_s)
        try:
            sides = [parse(_as_latex(side), parsing_timeout=None) for side in (left, right)]
            equal = bool(all(sides) and verify(*sides, timeout_seconds=None))
        except Exception:  # whatever sympy raises on a strange expression, the answers do not agree
            equal = False
        print("true" if equal else "false", file=out, flush=True)


def _as_latex(expression: str) -> str:
    bare = expression.strip().strip("$")
    return f"${bare}$"
