"""Reuters with its 90 topics (Reuters-21578, ApteMod) into a pool, from the copy that NLTK distributes.

    python -m nltk.downloader reuters          # or any copy of it: training/, test/ and cats.txt in a folder or a zip
    python recipes/load_reuters.py pools/reuters ~/nltk_data/corpora/reuters.zip
    balkit run pools/reuters recipes/reuters.yaml

7,769 train and 3,019 test stories, with one topic or several. A story becomes one row for each of its topics, as in
the labels that BalDistill released; `--one-topic` leaves out stories with several, and with them the topics that
never stand alone. Reuters-21578 is free for research use only.
"""

from __future__ import annotations

import argparse
import html
import zipfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from balkit import Pool

#: The folders of the corpus, and the split that each becomes.
SPLITS = {"training": "train", "test": "eval"}


def load(pool: Path, corpus: Path, *, one_topic: bool = False) -> Pool:
    """The pool of both splits."""
    made = Pool.create(pool)
    rows = pl.DataFrame(stories(corpus, one_topic=one_topic), schema=["split", "text", "topic"], orient="row")
    for split in SPLITS.values():
        report = made.add(
            rows.filter(split=split), prompt="text", answer="topic", domain="topic", split=split,
            message=f"Reuters {split}",
        )  # fmt: skip
        print(f"{split}: {report.rows} rows, {report.new} new, {report.domains} domains, {report.leaks} leaks")
    return made


def stories(corpus: Path, *, one_topic: bool) -> Iterator[tuple[str, str, str]]:
    """(split, text, topic) of every story and topic."""
    folder = zipfile.Path(corpus, "reuters/") if corpus.is_file() else corpus
    for line in (folder / "cats.txt").read_text(encoding="utf-8").splitlines():
        name, *topics = line.split()
        if one_topic and len(topics) > 1:
            continue
        part, number = name.split("/")
        text = " ".join(html.unescape((folder / part / number).read_bytes().decode("iso-8859-2")).split())
        yield from ((SPLITS[part], text, topic) for topic in topics)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("pool", type=Path, help="the folder of the new pool")
    arguments.add_argument("corpus", type=Path, help="the folder with cats.txt, or NLTK's reuters.zip")
    arguments.add_argument("--one-topic", action="store_true", help="leave out stories with several topics")
    given = arguments.parse_args()
    load(given.pool, given.corpus, one_topic=given.one_topic)
