"""MATH, made long-tailed (BalDistill's release), into a pool, with the recorded teacher's file beside it.

    python recipes/load_math.py pools/math [--data ../shared/data]
    balkit run pools/math recipes/math.yaml

Reads DIR/long_tail_kd/math: 4,125 train and 5,000 eval problems in 7 domains. Writes POOL and POOL.recorded.jsonl:
for every train problem the answer that ChatGPT gave, or, where none was recorded, the data set's human solution
(author `human`); and the problems that ChatGPT composed for rare domains, each with its worked answer.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from balkit import Pool

TEACHER, HUMAN = "chatgpt", "human"
DATA = os.environ.get("BALKIT_REAL_DATA", "../shared/data")


def load(pool: Path, data: Path) -> Pool:
    """The pool of both splits; the recorded replies beside it."""
    folder = data / "long_tail_kd" / "math"
    made = Pool.create(pool)
    for split, file in (("train", "corpus.jsonl"), ("eval", "test_corpus.jsonl")):
        report = made.add(
            pl.DataFrame(read(folder / file)).select("text", "label", "source"),
            prompt="text", answer="label", domain="source", split=split, message=f"MATH {split}",
        )  # fmt: skip
        print(f"{split}: {report.rows} rows, {report.new} new, {report.domains} domains, {report.leaks} leaks")
    written = write(pool.with_name(f"{pool.name}.recorded.jsonl"), replies(folder))
    print(f"{written} recorded replies: {pool}.recorded.jsonl")
    return made


def replies(folder: Path) -> Iterator[dict[str, str]]:
    """Lines for balkit's recorded teacher."""
    recorded = {row["text"]: row["rationale"] for row in read(folder / "math_chatgpt_cot_train_count_300.jsonl")}
    for row in read(folder / "corpus.jsonl"):
        said = recorded.get(row["text"])
        author = HUMAN if said is None else TEACHER
        yield {"purpose": "rationale", "prompt": row["text"], "text": said or row["org"], "author": author}
    for row in read(folder / "math_chatgpt_cot_train_composed.jsonl"):
        yield {
            "purpose": "synthesis", "domain": row["source"], "prompt": row["text"], "answer": row["gt_choice"],
            "author": TEACHER,
        }  # fmt: skip
        yield {"purpose": "rationale", "prompt": row["text"], "text": row["rationale"], "author": TEACHER}


def read(file: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]


def write(file: Path, lines: Iterator[dict[str, str]]) -> int:
    """Writes a JSONL file; returns its number of lines."""
    body = [json.dumps(line, ensure_ascii=False) for line in lines]
    file.write_text("\n".join(body) + "\n", encoding="utf-8")
    return len(body)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("pool", type=Path, help="the folder of the new pool")
    arguments.add_argument("--data", type=Path, default=Path(DATA), help=f"the folder of long_tail_kd ({DATA})")
    given = arguments.parse_args()
    load(given.pool, given.data)
