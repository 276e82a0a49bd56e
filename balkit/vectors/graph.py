"""The hnswlib index and its file. hnswlib checks nothing when it loads one, so everything is checked here."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from balkit.errors import MissingExtra, need
from balkit.vectors.encoders import Floats
from balkit.vectors.files import drop, replace

_SETTINGS = {"metric": "ip", "links": 16, "build_ef": 200, "seed": 100, "format": 1}
_MIN_EF = 64

log = logging.getLogger(__name__)


def search(queries: Floats, *, among: Floats, k: int, cache: Path | None) -> npt.NDArray[np.int64] | None:
    """`(n, k) int64` rows of `among`, nearly the nearest; None where hnswlib is missing or cannot find k.

    The same vectors give the same index and the same neighbours: one build thread, a fixed seed.
    """
    try:
        hnswlib: Any = need("hnswlib", extra="hnsw")
    except MissingExtra:
        log.info("hnswlib is not installed: %d vectors are searched exactly", len(among))
        return None
    index = None if cache is None else _load(hnswlib, cache, among)
    if index is None:
        index = _build(hnswlib, among)
        if cache is not None:
            _save(index, cache, among)
    index.set_ef(max(2 * k, _MIN_EF))  # not kept in the file
    try:
        labels, _ = index.knn_query(queries, k=k)
    except RuntimeError as error:  # a graph of many equal vectors can fall apart
        log.warning("hnswlib found fewer than %d neighbours (%s): searching exactly", k, error)
        return None
    return np.asarray(labels).astype(np.int64)


def _build(hnswlib: Any, among: Floats) -> Any:
    index = hnswlib.Index(space=_SETTINGS["metric"], dim=among.shape[1])
    index.init_index(
        max_elements=len(among),
        M=_SETTINGS["links"],
        ef_construction=_SETTINGS["build_ef"],
        random_seed=_SETTINGS["seed"],
    )
    index.add_items(among, np.arange(len(among)), num_threads=1)
    return index


def _header(among: Floats) -> dict[str, Any]:
    vectors = hashlib.sha256(np.ascontiguousarray(among, dtype="<f4").data).hexdigest()
    return {**_SETTINGS, "count": len(among), "dim": among.shape[1], "vectors": vectors}


def _save(index: Any, cache: Path, among: Floats) -> None:
    """The index first, its header (with the file's sha256) last."""
    header = _header(among)
    stem = cache / f"index-{header['vectors'][:32]}"
    with replace(stem.with_suffix(".hnsw")) as temporary:
        index.save_index(str(temporary))
        # A failed save raises nothing: an index shorter than its vectors was not saved.
        if not temporary.is_file() or temporary.stat().st_size < among.nbytes:
            raise OSError(f"{stem}.hnsw: the index was not written whole; is the disk full?")
        header["sha256"] = _sha256(temporary)
    with replace(stem.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(header))


def _load(hnswlib: Any, cache: Path, among: Floats) -> Any | None:
    """The index of just these vectors, or None when there is none or it is in doubt."""
    header = _header(among)
    stem = cache / f"index-{header['vectors'][:32]}"
    file, described = stem.with_suffix(".hnsw"), stem.with_suffix(".json")
    try:
        found = json.loads(described.read_text())
        if found != {**header, "sha256": _sha256(file)}:
            raise ValueError("it is not what was written")
        index = hnswlib.Index(space=_SETTINGS["metric"], dim=among.shape[1])
        index.load_index(str(file), max_elements=len(among))
        return index
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RuntimeError) as error:
        log.warning("%s: dropped and built again (%s)", file, error)
        drop(described, file)
        return None


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
