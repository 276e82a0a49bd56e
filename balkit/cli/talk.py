"""The talk of `balkit review`: a case is shown, a person says what is right, and it is stored before the next one."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from balkit.errors import BalkitError

if TYPE_CHECKING:
    from balkit.pool import Pool
    from balkit.review import Case, Verdict

_HELP = """\
  a [N ...]    accept worked answer N as it stands: the next run takes it first
  r [N ...]    reject it; without N all that were refused (all, where none was)
  f answer [N] another final answer for worked answer N
  f text [N]   another text: an editor where VISUAL or EDITOR names one, else typed, a line with a dot ends it
  f reference  another reference: that makes another example and retires this one, for good
  s            skip: it comes again next time
  u            undo the last verdict
  q            quit; every verdict is stored already"""

_DOING: dict[str, Literal["accept", "reject"]] = {"a": "accept", "r": "reject"}


class _Again(Exception):
    """What was typed makes no verdict; it says why."""


def line(prompt: str) -> str:
    """A line from the terminal. polars sets SIGINT so that a read goes on after it, and Ctrl-C would be ignored."""
    if threading.current_thread() is threading.main_thread():
        signal.siginterrupt(signal.SIGINT, True)
    return input(prompt)


@dataclass
class Talk:
    """A person going through cases. `ask` reads a line (EOFError ends the talk), `edit` changes a text."""

    pool: Pool
    cases: Sequence[Case]
    say: Callable[[str], None]
    ask: Callable[[str], str] = line
    edit: Callable[[str], str | None] | None = None
    counts: Counter[str] = field(default_factory=Counter)

    def go(self) -> dict[str, object]:
        """All cases; what was said, counted, and how many are left."""
        at, left = 0, list(self.cases)
        while at < len(left):
            self.say(_shown(left[at], f"{at + 1} of {len(left)}"))
            try:
                step = self._asked(left[at])
            except EOFError:
                break
            if step is None:
                break
            at = max(0, at + step)
        return {
            "version": self.pool.version,
            **{name: self.counts[name] for name in ("accept", "reject", "fix", "skip", "undo")},
            "left": len(left) - at,
        }

    def _asked(self, case: Case) -> int | None:
        """How far to go on: 1 after a verdict, -1 after an undo; None ends the talk."""
        while True:
            words = self.ask("a accept, r reject, f fix, s skip, u undo, q quit, ? help > ").split()
            try:
                if not words or words[0] == "?":
                    self.say(_HELP)
                elif words[0] == "q":
                    return None
                elif words[0] == "s":
                    self.counts["skip"] += 1
                    return 1
                elif words[0] == "u":
                    return self._undone(case)
                else:
                    self._judged(case, self._verdicts(case, words))
                    return 1
            except (_Again, BalkitError) as error:
                self.say(f"{error}")

    def _undone(self, case: Case) -> int:
        from balkit.review import undo

        taken = undo(self.pool)
        if taken is None:
            raise _Again("there is no verdict to undo")
        self.counts["undo"] += 1
        self.say(f"version {taken.version} is taken back ({len(taken.example_ids)} examples)")
        at = {one.example_id: number for number, one in enumerate(self.cases)}
        back = [at[one] for one in taken.example_ids if one in at]
        return min(back) - at[case.example_id] if back else 0

    def _judged(self, case: Case, verdicts: Sequence[Verdict]) -> None:
        from balkit.review import judge

        version = judge(self.pool, [(case, verdicts)], message=f"review: {verdicts[0].verdict} {case.example_id[:12]}")
        self.counts[verdicts[0].verdict] += 1
        self.say(f"version {version}")

    def _verdicts(self, case: Case, words: Sequence[str]) -> list[Verdict]:
        from balkit.review import Verdict

        if words[0] in _DOING:
            chosen: list[str | None] = [*_chosen(case, words[1:])]
            return [Verdict(case.example_id, _DOING[words[0]], one) for one in chosen or [None]]
        if words[0] != "f":
            raise _Again(f"{words[0]!r} is none of a, r, f, s, u, q")
        what = words[1] if len(words) > 1 else "none of them"
        if what == "reference":
            return [Verdict(case.example_id, "fix", reference=self._reference(case))]
        if what not in ("answer", "text"):
            raise _Again(f"fix what? answer, text or reference, not {what}")
        one = next(_chosen(case, words[2:3]), None)
        one = case.worked[0].rationale_id if one is None and len(case.worked) == 1 else one
        if what == "answer":
            return [Verdict(case.example_id, "fix", one, answer=self.ask("the right final answer > "))]
        text = next((each.text for each in case.worked if each.rationale_id == one), "")
        return [Verdict(case.example_id, "fix", one, rationale=self._text(text))]

    def _reference(self, case: Case) -> str:
        said = case.said
        hint = f" [{_plain(said)}]" if said else ""
        given = self.ask(f"the right reference{hint} > ").strip() or said
        if not given:
            raise _Again("no reference was given")
        asked = f"this example is retired for good, and one with the reference {_plain(given)!r} added; y or n > "
        if self.ask(asked).strip().lower() not in ("y", "yes"):
            raise _Again("nothing was changed")
        return given

    def _text(self, before: str) -> str:
        if self.edit is not None or os.environ.get("VISUAL") or os.environ.get("EDITOR"):
            changed = (self.edit or _in_editor)(before)
            if changed is None or changed.strip() == before.strip():
                raise _Again("the text was not changed")
            return changed
        self.say("the whole text, its last line `Answer: ...`, then a line with a dot:")
        lines: list[str] = []
        while (line := self.ask("")) != ".":
            lines.append(line)
        return "\n".join(lines)


def _in_editor(text: str) -> str | None:
    import click

    try:
        return click.edit(text, extension=".txt")
    except click.ClickException as error:
        raise _Again(f"the editor failed: {error.message}") from error


def _chosen(case: Case, numbers: Sequence[str]) -> Iterator[str]:
    for number in numbers:
        if not number.isdecimal() or not 1 <= int(number) <= len(case.worked):
            raise _Again(f"there is no worked answer {number}; there are {len(case.worked)}")
        yield case.worked[int(number) - 1].rationale_id


def _shown(case: Case, place: str) -> str:
    about = f"{_plain(case.why)}, {_plain(case.domain)}, {case.split}, example {case.example_id[:12]}"
    lines = ["", f"--- {place}: {about}"]
    reference = "(none)" if case.reference is None else _plain(case.reference)
    lines += [_plain(case.prompt), "", f"reference: {reference}"]
    for number, one in enumerate(case.worked, 1):
        state = "accepted" if one.accepted else f"refused: {one.reason}"
        answer = "(none)" if one.answer is None else _plain(one.answer)
        lines += ["", f"[{number}] answer: {answer} ({state}; {one.times} tries, by {_plain(one.author)})"]
        lines += [f"    {line}" for line in _plain(one.text).splitlines()]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """The text with control characters shown, which a terminal would obey."""
    return "".join(char if char.isprintable() or char in "\n\t" else repr(char)[1:-1] for char in text)
