"""Which examples a synthesis call shows: they decide its key, so they may not hang on the last bit of a cosine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from balkit import texts
from balkit.synthesize.demonstrations import Shelf, listed


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


def clustered(prompts: Sequence[str]) -> NDArray[np.float32]:
    """Texts of one letter lie close together, those of different ones at right angles."""
    rng = np.random.default_rng(0)
    vectors = np.zeros((len(prompts), 16), np.float32)
    for row, text in enumerate(prompts):
        vectors[row, ord(text[0]) - ord("a")] = 1
        vectors[row, 8:] = 0.02 * rng.standard_normal(8)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def shelf_of(letters: str, *, each: int) -> Shelf:
    rows = [
        {
            "example_id": texts.example_id(f"{letter} {n}", "x"),
            "prompt": f"{letter} {n}",
            "reference": "x",
            "domain": "d",
        }
        for letter in letters
        for n in range(each)
    ]
    return Shelf.of(pl.DataFrame(rows), count=5, seed=0, encode=clustered)


def test_what_no_row_covers_yet_is_shown_first() -> None:
    shelf = shelf_of("abcdefgh", each=6)
    shelf.cover("d", [f"{letter} written" for letter in "abc" for _ in range(6)])
    assert {one.prompt[0] for one in shelf.draw("d", sample=0)} == set("defgh")


def test_draws_take_turns_through_the_clusters() -> None:
    shelf = shelf_of("abcdefgh", each=6)
    shown = [one.prompt[0] for sample in range(8) for one in shelf.draw("d", sample=sample)]
    counts = [shown.count(letter) for letter in "abcdefgh"]
    assert sum(counts) == 40
    assert min(counts) >= 3


def test_of_what_was_written_the_nearest_and_the_latest_are_listed() -> None:
    shelf = shelf_of("abcdefgh", each=2)
    written = [f"{letter} written {n}" for n in range(4) for letter in "abcdefgh"]
    to = [one for one in shelf.by_domain["d"] if one.prompt[0] == "c"]
    lines = listed(written, near=lambda older: shelf.near(older, to=to)).split("\n")[1:]
    assert lines[-6:] == [f"- {text}" for text in written[-6:]]
    assert [line for line in lines if line.startswith("- c")][:3] == [f"- c written {n}" for n in range(3)]
    assert len(lines) == 12


def test_with_few_texts_all_are_listed_once() -> None:
    assert listed(["a", "b"], near=lambda older: range(len(older))).count("\n- ") == 2
    assert listed([], near=lambda older: []) == ""
