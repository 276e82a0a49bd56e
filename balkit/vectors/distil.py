"""A static table from a model: each token's vector, as the model sees it alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from balkit.errors import need
from balkit.vectors.encoders import Floats, SentenceTransformers, Static

_SIF = 1e-4


def distil(model: str, *, into: Path, dim: int = 256) -> Static:
    """Write a model2vec folder made from a sentence-transformers model, for `encoder: static`.

    model  a local folder or a hub name; every token of its vocabulary is encoded once (minutes for 30,000)
    dim    dimensions after PCA, at most the model's own

    As model2vec does it: PCA of the tokens' vectors, weighed by a / (a + p) with a = 1e-4 (SIF; Arora et al. 2017)
    and p from Zipf's law, since a vocabulary stands in order of frequency. Special tokens get zeros. Raises
    `MissingExtra` without sentence-transformers or model2vec, `VectorError` when the model cannot be loaded.
    """
    package = need("model2vec", extra="static")
    teacher = SentenceTransformers(model)
    tokenizer = teacher.tokenizer
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    special = set(tokenizer.all_special_tokens)
    rows = teacher.encode([token.removeprefix("##") for token in tokens])
    table = _reduced(rows, dim=min(dim, rows.shape[1])) * _weights(len(tokens))[:, None]
    table[[token in special for token in tokens]] = 0
    static = package.StaticModel(table.astype(np.float32), tokenizer.backend_tokenizer, normalize=True)
    static.save_pretrained(into)
    return Static(str(into))


def _reduced(rows: Floats, *, dim: int) -> Floats:
    """`(n, dim)`: the rows, centred, on their principal axes."""
    centred = rows - rows.mean(axis=0, dtype=np.float64)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :dim]
    return np.asarray(centred @ axes, dtype=np.float32)


def _weights(tokens: int) -> Floats:
    share = 1 / np.arange(2, tokens + 2)
    return np.asarray(_SIF / (_SIF + share / share.sum()), dtype=np.float32)
