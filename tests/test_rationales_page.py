"""docs/rationales.md: its reasons are all there are."""

from __future__ import annotations

import re
from pathlib import Path

from balkit.synthesize import asking

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "rationales.md").read_text(encoding="utf-8")


def test_the_page_names_every_reason() -> None:
    source = Path(asking.__file__).read_text(encoding="utf-8")
    reasons = {*re.findall(r'reason="(\w+)"', source), *re.findall(r'return "(cut_off|empty|refusal)"', source)}
    reasons |= {"no_answer", "outvoted", "vote_tied", "vote_thin"}
    table = PAGE.split("## Why one is refused")[1].split("## Conflicts")[0]
    assert set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE)))) == reasons
