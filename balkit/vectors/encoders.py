"""Encoders: from texts to rows of unit length."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from balkit import recipe
from balkit.errors import VectorError, need
from balkit.vectors.hashing import Hashing

Floats = npt.NDArray[np.float32]

#: The modules that sentence-transformers needs for each other backend than torch.
_RUNTIMES = {"onnx": ("onnxruntime", "optimum.onnxruntime"), "openvino": ("openvino", "optimum.intel")}


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
    if section.encoder == "static":
        return Static(section.model or "")
    return SentenceTransformers(section.model or "", backend=section.backend, half=section.precision == "half")


class SentenceTransformers:
    """A sentence-transformers model from a local folder or the hub.

    backend  torch; onnx or openvino, where sentence-transformers' extra of that name is installed. A folder without
             the backend's file is converted on loading, each time
    half     float16, on a GPU only

    `name` holds a digest of the folder's files, or the hub name and its commit, and what differs from torch in float32,
    so a changed model never meets another's cached vectors. A row may differ by ~1e-7 (half: ~1e-3) with the texts that
    it was batched with. Raises `MissingExtra` without a package, `VectorError` when the model cannot be loaded.
    """

    def __init__(self, model: str, *, backend: str = "torch", half: bool = False, batch_size: int = 32) -> None:
        self.model = model
        self.backend = backend
        self.half = half
        self.batch_size = batch_size

    @cached_property
    def name(self) -> str:
        """Of a folder: known without loading the model. Of a hub name: loads it, for its commit."""
        kind = "" if self.backend == "torch" else f"-{self.backend}"
        kind += "-half" if self.half else ""
        folder = Path(self.model)
        if folder.is_dir():
            return f"sentence-transformers-{_digest_of(folder)}{kind}"
        config = getattr(getattr(self._loaded[0], "auto_model", None), "config", None)
        commit = getattr(config, "_commit_hash", None) or "unversioned"
        return f"sentence-transformers-{self.model}-{commit}{kind}"

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
        return unit(np.asarray(rows, dtype=np.float32)) if self.half else np.asarray(rows, dtype=np.float32)

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer, of transformers."""
        return self._loaded.tokenizer

    @cached_property
    def _loaded(self) -> Any:
        _refuse_lost_folder(self.model)
        package = need("sentence_transformers", extra="embed")
        settings: dict[str, Any] = {"model_kwargs": {"dtype": "float16" if self.half else "float32"}}
        if self.backend in _RUNTIMES:
            _refuse_missing_runtime(self.backend)
            settings = {"backend": self.backend}
        try:
            model = package.SentenceTransformer(self.model, **settings).eval()
        except (OSError, ValueError, KeyError) as error:
            raise _cannot_load(self.model, error) from error
        if self.half and model.device.type == "cpu":
            raise VectorError(
                "vectors.precision: half needs a GPU, and there is none here: on a CPU half precision is a hundred "
                "times slower. Set precision: full"
            )
        return model


class Static:
    """A table of token vectors whose mean is a text's (model2vec), from a local folder or the hub.

    Tens of thousands of texts a second on one CPU core. It sees which words there are, not their order. A text without
    any known token gets one fixed vector. Raises as `SentenceTransformers` does.
    """

    def __init__(self, model: str) -> None:
        self.model = model

    @cached_property
    def name(self) -> str:
        """Of a folder: known without loading the table. Of a hub name: loads it, for its digest."""
        folder = Path(self.model)
        if folder.is_dir():
            return f"static-{_digest_of(folder)}"
        content = hashlib.sha256(np.ascontiguousarray(self._loaded.embedding).data)
        content.update(self._loaded.tokenizer.to_str().encode())
        return f"static-{self.model}-{content.hexdigest()[:32]}"

    @cached_property
    def dim(self) -> int:
        """Loads the table."""
        return int(self._loaded.dim)

    def encode(self, texts: Sequence[str]) -> Floats:
        """`(n, dim) float32`, rows L2-normalised."""
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        return unit(np.asarray(self._loaded.encode(list(texts), use_multiprocessing=False), dtype=np.float32))

    @cached_property
    def _loaded(self) -> Any:
        _refuse_lost_folder(self.model)
        package = need("model2vec", extra="static")
        try:
            return package.StaticModel.from_pretrained(self.model)
        except (OSError, ValueError, KeyError) as error:
            raise _cannot_load(self.model, error) from error


def unit(rows: Floats) -> Floats:
    """The rows by their lengths; a row of zeros becomes the first axis, so that all such are alike."""
    rows[~rows.any(axis=1), 0] = 1.0
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def _refuse_lost_folder(model: str) -> None:
    if (model.startswith(("/", ".", "~")) or model.count("/") > 1 or "\\" in model) and not Path(model).is_dir():
        raise VectorError(f"vectors.model: no folder {model!r}; give an existing folder or a hub name")


def _refuse_missing_runtime(backend: str) -> None:
    try:
        for module in _RUNTIMES[backend]:
            importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise VectorError(
            f"vectors.backend: {backend} needs {error.name}, which is not installed here: pip install "
            f"'sentence-transformers[{backend}]', in an environment without balkit[train], whose transformers is newer "
            "than it allows. Or set backend: torch"
        ) from error


def _cannot_load(model: str, error: Exception) -> VectorError:
    said = next(iter(str(error).splitlines()), type(error).__name__)[:200]
    return VectorError(
        f"vectors.model: {model!r} cannot be loaded ({said}). Offline, give the path of a folder with the model's "
        "files; online, check the name on huggingface.co; without a model, set vectors.encoder: hashing"
    )


def _digest_of(folder: Path) -> str:
    whole = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        with file.open("rb") as handle:
            content = hashlib.file_digest(handle, "sha256").hexdigest()
        whole.update(f"{file.relative_to(folder).as_posix()}\0{content}\n".encode())
    return whole.hexdigest()[:32]
