"""Encoders: from texts to rows of unit length."""

from __future__ import annotations

import hashlib
import re
import unicodedata
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from balkit import recipe
from balkit.errors import VectorError, need

Floats = npt.NDArray[np.float32]
_Hashes = npt.NDArray[np.uint64]

_TOKEN = re.compile(r"\w+|[^\w\s]")
_TEXTS_AT_ONCE = 1024


class Encoder(Protocol):
    """Whatever turns texts into vectors. `name` tells models and settings apart: the cache is kept by it."""

    @property
    def name(self) -> str: ...

    @property
    def dim(self) -> int: ...

    def encode(self, texts: Sequence[str]) -> Floats:
        """`(n, dim) float32`, rows L2-normalised, in the order of the texts."""
        ...


def make_encoder(section: recipe.Vectors) -> Encoder:
    """The encoder that a recipe names. A model is loaded when it is first needed, not here."""
    if section.encoder == "hashing":
        return Hashing(dim=section.dim)
    return SentenceTransformers(section.model or "")


class Hashing:
    """Words, pairs of neighbouring words and character n-grams, hashed into `dim` signed buckets (no model).

    A feature that occurs c times in a text weighs 1 + ln(c); rows have unit length. A row depends on its text
    alone, never on the process or the other texts. A text without any token gets one fixed vector, so that
    all such texts are duplicates of each other. It sees spelling, not meaning: ~10,000 short texts a second.
    """

    def __init__(self, *, dim: int = 512) -> None:
        self.dim = dim
        self.name = f"hashing-1-{dim}"

    def encode(self, texts: Sequence[str]) -> Floats:
        """`(n, dim) float32`, rows L2-normalised."""
        rows = np.zeros((len(texts), self.dim), dtype=np.float32)
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            rows[start : start + _TEXTS_AT_ONCE] = self._block(texts[start : start + _TEXTS_AT_ONCE])
        return rows

    def _block(self, texts: Sequence[str]) -> Floats:
        row, feature, weight = _features(texts)
        mixed = _mix(feature)
        bucket = (mixed & np.uint64(0x7FFFFFFF)) % np.uint64(self.dim)
        sign = np.where(mixed >> np.uint64(31) & np.uint64(1), 1.0, -1.0)
        cell = row * self.dim + bucket.astype(np.int64)
        sums = np.bincount(cell, weights=sign * weight, minlength=len(texts) * self.dim).reshape(-1, self.dim)
        norms = np.sqrt(np.square(sums).sum(axis=1))
        sums[norms == 0, 0] = 1.0  # no token, or opposite signs met in the same buckets
        norms[norms == 0] = 1.0
        return np.asarray(sums / norms[:, None], dtype=np.float32)


def _features(texts: Sequence[str]) -> tuple[npt.NDArray[np.int64], _Hashes, npt.NDArray[np.float64]]:
    """Every distinct feature of every text: its row, its hash (32 bits) and its weight, sorted by row."""
    vocabulary: dict[str, int] = {}
    words: list[int] = []
    lengths = []
    for text in texts:
        tokens = _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())
        words.extend([vocabulary.setdefault(token, len(vocabulary)) for token in tokens])
        lengths.append(len(tokens))
    word = np.array(words, dtype=np.int64)
    row = np.repeat(np.arange(len(texts), dtype=np.int64), lengths)
    whole = np.array([_hash("w", token) for token in vocabulary], dtype=np.uint64)[word]
    grams = [_character_ngrams(token) for token in vocabulary]
    width = np.array([len(g) for g in grams], dtype=np.int64)
    start = np.concatenate([[0], np.cumsum(width)[:-1]]).astype(np.int64)[: len(width)]
    flat = np.array([h for g in grams for h in g], dtype=np.uint64)
    counts = width[word]
    within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    follows = row[1:] == row[:-1]
    pair = _mix(whole[:-1] * np.uint64(31) + whole[1:])[follows]
    return _counted(
        [
            (row, whole, 1.0),
            (row[1:][follows], pair, 1.0),
            (np.repeat(row, counts), flat[np.repeat(start[word], counts) + within], 0.5),
        ]
    )


def _counted(
    kinds: list[tuple[npt.NDArray[np.int64], _Hashes, float]],
) -> tuple[npt.NDArray[np.int64], _Hashes, npt.NDArray[np.float64]]:
    rows, hashes, weights = [], [], []
    for row, feature, weight in kinds:
        key, count = np.unique(row.astype(np.uint64) << np.uint64(32) | feature, return_counts=True)
        rows.append((key >> np.uint64(32)).astype(np.int64))
        hashes.append(key & np.uint64(0xFFFFFFFF))
        weights.append(weight * (1.0 + np.log(count)))
    return np.concatenate(rows), np.concatenate(hashes), np.concatenate(weights)


def _character_ngrams(token: str) -> list[int]:
    marked = f"<{token}>"
    return [_hash("c", marked[i : i + n]) for n in (3, 4) for i in range(len(marked) - n + 1)]


def _hash(kind: str, feature: str) -> int:
    """32 bits, the same in every process (`hash` of a str is not)."""
    return zlib.crc32(f"{kind}{feature}".encode("utf-8", "surrogatepass"))


def _mix(value: _Hashes) -> _Hashes:
    """murmur3's finaliser: 32 well-mixed bits of each 32-bit value (crc32 alone is linear)."""
    low = np.uint64(0xFFFFFFFF)
    value = value & low
    value = (value ^ (value >> np.uint64(16))) * np.uint64(0x85EBCA6B) & low
    value = (value ^ (value >> np.uint64(13))) * np.uint64(0xC2B2AE35) & low
    mixed: _Hashes = value ^ (value >> np.uint64(16))
    return mixed


class SentenceTransformers:
    """A sentence-transformers model from a local folder or the hub, in float32.

    `name` holds a digest of the folder's files, or the hub name and its commit, so a changed model never meets
    another's cached vectors. A row may differ by ~1e-7 with the texts that it was batched with.
    Raises `MissingExtra` without the package, `VectorError` when the model cannot be loaded.
    """

    def __init__(self, model: str, *, batch_size: int = 32) -> None:
        self.model = model
        self.batch_size = batch_size

    @cached_property
    def name(self) -> str:
        """Of a folder: known without loading the model. Of a hub name: loads it, for its commit."""
        folder = Path(self.model)
        if folder.is_dir():
            return f"sentence-transformers-{_digest_of(folder)}"
        config = getattr(getattr(self._loaded[0], "auto_model", None), "config", None)
        return f"sentence-transformers-{self.model}-{getattr(config, '_commit_hash', None) or 'unversioned'}"

    @cached_property
    def dim(self) -> int:
        """Loads the model."""
        return int(self._loaded.get_embedding_dimension())

    def encode(self, texts: Sequence[str]) -> Floats:
        """`(n, dim) float32`, rows L2-normalised; ~100 short texts a second on two CPU cores with MiniLM."""
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        rows = self._loaded.encode(
            list(texts), batch_size=self.batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(rows, dtype=np.float32)

    @cached_property
    def _loaded(self) -> Any:
        if _looks_like_a_path(self.model) and not Path(self.model).is_dir():
            raise VectorError(f"vectors.model: no folder {self.model!r}; give an existing folder or a hub name")
        package = need("sentence_transformers", extra="embed")
        try:
            model = package.SentenceTransformer(self.model, model_kwargs={"dtype": "float32"})
        except (OSError, ValueError, KeyError) as error:
            raise VectorError(
                f"vectors.model: {self.model!r} cannot be loaded ({_first_line(error)}). Offline, give the path of a "
                "folder with the model's files; online, check the name on huggingface.co; without a model, set "
                "vectors.encoder: hashing"
            ) from error
        return model.eval()


def _looks_like_a_path(model: str) -> bool:
    return model.startswith(("/", ".", "~")) or model.count("/") > 1 or "\\" in model


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def _digest_of(folder: Path) -> str:
    whole = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        with file.open("rb") as handle:
            content = hashlib.file_digest(handle, "sha256").hexdigest()
        whole.update(f"{file.relative_to(folder).as_posix()}\0{content}\n".encode())
    return whole.hexdigest()[:32]
