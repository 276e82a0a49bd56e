"""Run the README's code blocks, in order, word for word, in the folder where this is started.

    python .ci/readme.py [FILE]

Only the line `make test` is left out: the CI runs it by itself. Where the README asks a real teacher, the environment
names an OpenAI-compatible server on loopback instead, so that the commands stay as a reader has them. Needs nothing
but the standard library, since the first block is what installs balkit.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from teacher_server import Say, TeacherServer

_BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LEFT_OUT = {"make test"}
_WORDS = """
account address battery broken button calendar cancel card change charge checkout colour contract courier
credit customer damaged date delivery device discount door email error export file folder form friday garden hinge
invoice keyboard label lamp late letter link login mirror monday month name number office offer order package page
password payment phone plan postcode price printer purchase question receipt refund report return room screen seat
second sender service shelf signal size sofa staff street summer switch table tax team ticket token trial update upload
user version video voucher wallet warranty website week window wrong yesterday zip
"""


def script(text: str) -> str:
    """One bash script of all blocks: they share the folder and the shell, as a reader's terminal does."""
    lines = ["set -euo pipefail"]
    for language, body in _BLOCK.findall(text):
        body = "".join(line for line in body.splitlines(keepends=True) if line.strip() not in _LEFT_OUT)
        if language == "python":
            body = f"python - <<'END_OF_PYTHON'\n{body}END_OF_PYTHON\n"
        lines.append(f'echo "--- block {len(lines)} after $SECONDS s"\n{body}')
    return "\n".join(lines)


class Replies:
    """A teacher that says what it is asked for: the reference answer if shown, else the label of a ticket it wrote."""

    def __init__(self) -> None:
        self.written: dict[str, str] = {}
        self.numbers = itertools.count()

    def reply(self, prompt: str) -> str:
        """The text of one reply."""
        asked = re.search(r'Write (\d+) new examples of the domain "(.*?)"', prompt)
        if asked:
            made = [self._write(domain=asked[2]) for _ in range(int(asked[1]))]
            return json.dumps({"examples": made})
        shown = re.search(r"The reference answer is: (.*)", prompt)
        known = (label for text, label in self.written.items() if text in prompt)
        answer = shown[1].strip() if shown else next(known, "unknown")
        return f"The words of the ticket speak of this topic and of no other.\nAnswer: {answer}"

    def _write(self, *, domain: str) -> dict[str, str]:
        words = random.Random(next(self.numbers)).sample(_WORDS.split(), 14)
        text = f"Hello, about my {domain}: {' '.join(words)}."
        self.written[text] = domain
        return {"prompt": text, "answer": domain}


def main(readme: Path) -> int:
    """Runs the blocks; the exit status of the first that fails, or 0."""
    replies = Replies()
    with TeacherServer(lambda i: Say(text=replies.reply(server.received[i]["messages"][-1]["content"]))) as server:
        loopback = {"OPENAI_API_KEY": "sk-loopback", "OPENAI_BASE_URL": server.url, "OPENAI_API_BASE": server.url}
        started = time.monotonic()
        done = subprocess.run(["bash", "-c", script(readme.read_text(encoding="utf-8"))], env=os.environ | loopback)
        print(f"{readme}: {time.monotonic() - started:.0f} s, {server.served} replies by the teacher on loopback")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "README.md")))
