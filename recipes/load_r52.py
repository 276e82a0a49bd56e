"""Reuters R52 (BalDistill's release) into a pool, with the recorded teacher's file beside it.

    python recipes/load_r52.py pools/r52 [--data ../shared/data]
    balkit run pools/r52 recipes/r52.yaml

Reads DIR/long_tail_kd/r52: 2,600 natural train rows, all with a recorded answer, and 2,567 eval rows. Writes POOL and
POOL.recorded.jsonl. The eval file came lower-cased and without digits and punctuation, so train, eval and composed
texts all get the same cleaning (`clean`). Rows of the balanced file that stand in neither natural file serve
synthesis: whether ChatGPT wrote one or it comes from the rest of R52 was not recorded, so their author is
`origin_uncertain`. Reuters-21578 is free for research use only.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from balkit import Pool

TEACHER, UNCERTAIN = "chatgpt", "origin_uncertain"
DATA = os.environ.get("BALKIT_REAL_DATA", "../shared/data")
NATURAL = "r52_chatgpt_cot_train_count_50.jsonl"
LARGER = "r52_count_100.jsonl"
BALANCED = "r52_chatgpt_cot_train_composed_downsample_count_50.jsonl"


def load(pool: Path, data: Path) -> Pool:
    """The pool of both splits; the recorded replies beside it."""
    folder = data / "long_tail_kd" / "r52"
    made = Pool.create(pool)
    held_out = examples(line.split("\t") for line in (folder / "test.tsv").read_text("utf-8").splitlines() if line)
    natural = examples((row["label"], row["text"]) for row in read(folder / NATURAL))
    train = natural.join(held_out, on=["label", "text"], how="anti", maintain_order="left")
    print(f"{natural.height - train.height} train rows are the same as an eval row, label included: left out")
    for split, rows in (("train", train), ("eval", held_out)):
        report = made.add(rows, prompt="text", answer="label", domain="label", split=split, message=f"R52 {split}")
        print(f"{split}: {report.rows} rows, {report.new} new, {report.domains} domains, {report.leaks} leaks")
    written = write(pool.with_name(f"{pool.name}.recorded.jsonl"), replies(folder))
    print(f"{written} recorded replies: {pool}.recorded.jsonl")
    return made


def examples(rows: Iterable[Sequence[str]]) -> pl.DataFrame:
    """`label, text` cleaned."""
    return pl.DataFrame([(label, clean(text)) for label, text in rows], schema=["label", "text"], orient="row")


def clean(text: str) -> str:
    """What the source of the eval file did to it: lower-cased letters with one space between words.

    Eval texts end in the agency's name, train texts do not: it goes.
    """
    words = re.findall("[a-z]+", html.unescape(text).lower())
    return " ".join(words[:-1] if words[-1:] == ["reuter"] else words)


def replies(folder: Path) -> Iterator[dict[str, str]]:
    """Lines for balkit's recorded teacher."""
    natural = read(folder / NATURAL)
    for row in natural:
        yield {"purpose": "rationale", "prompt": clean(row["text"]), "text": row["rationale"], "author": TEACHER}
    known = {clean(row["text"]) for row in [*natural, *read(folder / LARGER)]}
    for row in read(folder / BALANCED):
        prompt = clean(row["text"])
        if prompt not in known:  # nor seen before: the file repeats rows to fill up its 50 per label
            known.add(prompt)
            one = {"prompt": prompt, "author": UNCERTAIN}
            yield {"purpose": "synthesis", "domain": row["label"], "answer": row["label"], **one}
            yield {"purpose": "rationale", "text": row["rationale"], **one}


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
