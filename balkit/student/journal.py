"""Scores on their way into the pool: a file of lines, one a score, so that a kill loses no batch but the last.

A commit to the pool is a copy of its file, which is too dear for every batch; a line here is not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from balkit import frames


@dataclass(frozen=True)
class Journal:
    """The scores that one scoring has written down and not yet handed over. Always safe to delete."""

    file: Path

    def scores(self) -> pl.DataFrame:
        """SCORES so far, the first of each; a line that a kill cut short is none."""
        found = frames.SCORES.of(list(self._lines()))
        return found.unique(["example_id", "checkpoint", "name", "settings"], keep="first", maintain_order=True)

    def add(self, scores: pl.DataFrame) -> None:
        """Write SCORES down; they are on the disk when this returns."""
        lines = [json.dumps(row, ensure_ascii=False) for row in scores.to_dicts()]
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("ab") as stream:
            stream.write("\n".join(["", *lines, ""]).encode())  # begins a line, whatever a kill left before it
            stream.flush()
            os.fsync(stream.fileno())

    def forget(self) -> None:
        """They are in the pool."""
        self.file.unlink(missing_ok=True)

    def _lines(self) -> Iterator[dict[str, Any]]:
        try:
            lines = self.file.read_bytes().splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and row.keys() == frames.SCORES.columns.keys():
                yield row
