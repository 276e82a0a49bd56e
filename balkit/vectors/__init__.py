"""Vectors: how texts become points, where the points are cached, and which of them are close.

The only room that loads sentence-transformers, model2vec and hnswlib.
"""

from balkit.vectors.cached import Progress, Vectors, drop_damaged
from balkit.vectors.distil import distil
from balkit.vectors.encoders import Encoder, SentenceTransformers, Static, make_encoder
from balkit.vectors.hashing import Hashing
from balkit.vectors.neighbours import Closest, Neighbours, most_similar, neighbours

__all__ = [
    "Closest",
    "Encoder",
    "Hashing",
    "Neighbours",
    "Progress",
    "SentenceTransformers",
    "Static",
    "Vectors",
    "distil",
    "drop_damaged",
    "make_encoder",
    "most_similar",
    "neighbours",
]
