"""Which examples a synthesis call shows: they decide its key, so they may not hang on the last bit of a cosine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from balkit import texts
from balkit.synthesize.demonstrations import Shelf


def shown(*, noise: float) -> list[list[str]]:
    def encode(prompts: Sequence[str]) -> NDArray[np.float32]:
        angles = np.array([len(prompt) for prompt in prompts])  # few lengths, so that many cosines tie
        vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        vectors += noise * np.random.default_rng(0).standard_normal(vectors.shape)
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    rows = [
        {"example_id": texts.example_id(prompt, "x"), "prompt": prompt, "reference": "x", "domain": "tin"}
        for prompt in (f"Story {n:02} {'word ' * (n % 4)}" for n in range(40))
    ]
    shelf = Shelf.of(pl.DataFrame(rows), count=5, seed=0, encode=encode)
    return [[one.prompt for one in shelf.draw("tin", sample=sample)] for sample in range(20)]


def test_vectors_that_differ_in_their_last_bits_show_the_same_examples() -> None:
    assert shown(noise=1e-6) == shown(noise=0.0)
