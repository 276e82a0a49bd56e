"""Writes train.jsonl, dev.jsonl and eval.jsonl: the same bytes each time.

    python data/quickstart/make.py [FOLDER]

Train and dev tickets are made of phrases_pool.yaml, eval tickets of phrases_eval.yaml; the two have no phrase or
layout in common, and neither has one in common with the offline teacher.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from balkit.teacher import tickets

SEED = 20240607
DEV_ROWS = 5  # per topic
EVAL_ROWS = 40  # per topic
TRAIN_ROWS = {
    "billing": 1300,
    "login": 620,
    "delivery": 340,
    "app error": 190,
    "refund": 110,
    "cancellation": 64,
    "plan change": 40,
    "feature request": 30,
    "damaged item": 22,
    "data export": 18,
    "duplicate charge": 14,
    "hacked account": 12,
}


def main(folder: Path) -> None:
    here = Path(__file__).parent
    pool = tickets.load(here / "phrases_pool.yaml")
    seen: set[str] = set()
    _write(folder / "train.jsonl", _rows(pool, counts=TRAIN_ROWS, split="train", seen=seen))
    _write(folder / "dev.jsonl", _rows(pool, counts=dict.fromkeys(TRAIN_ROWS, DEV_ROWS), split="dev", seen=seen))
    unseen = tickets.load(here / "phrases_eval.yaml")
    _write(folder / "eval.jsonl", _rows(unseen, counts=dict.fromkeys(TRAIN_ROWS, EVAL_ROWS), split="eval", seen=seen))


def _rows(phrases: tickets.Phrases, *, counts: dict[str, int], split: str, seen: set[str]) -> list[dict[str, str]]:
    """Tickets that differ from each other and from all in `seen` (which grows), in a random order."""
    rows = []
    for topic, count in counts.items():
        rng = random.Random(f"{SEED}/{split}/{topic}")
        made = 0
        while made < count:
            ticket = tickets.write(phrases, topic=topic, rng=rng)
            if ticket.lower() not in seen:
                seen.add(ticket.lower())
                rows.append({"ticket": ticket, "topic": topic})
                made += 1
    random.Random(f"{SEED}/{split}").shuffle(rows)
    return rows


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
