"""What a row's neighbours say of it: a label that they do not share, phrases that they all share."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from balkit.auditing.material import Material
from balkit.auditing.rows import Finding, quoted
from balkit.diversity import distinct_n
from balkit.vectors import neighbours

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

_K = 10
_OTHER, _OWN = 0.8, 0.1  # of the neighbours: at least so many agree on one other label, at most so many on the own
_KNOWN = 6  # rows of a label, below which its neighbours say nothing of it

_SMALL = 20  # rows of a domain, below which its phrases say nothing
_WORN = (4, 0.01)  # a phrase of three words is worn from so many rows of a domain, or so large a part of them
_COLLAPSED = 0.6  # of a prompt's phrases
_FEW = (8, 0.03)  # so many such prompts, or so large a part of the domain, are no collapse yet
_NEW = 0.5  # of a collapsed prompt's phrases that no kept one has: it begins a pattern of its own, and is kept
_INSTRUCTION = 0.5  # of a domain's prompts that begin, or end, with the same words
_DIVERSE = 0.6  # distinct-3 of what is left without these words, from which they are an instruction and no pattern


def wrong_labels(material: Material) -> Iterator[Finding]:
    """`likely_wrong_label`: of rows nearer to another label's centre, those whose neighbours agree on that label.

    Vectors are centred, so that what all prompts share counts for nothing. A label of fewer than 6 rows is not judged.
    """
    rows = material.rows
    if material.kind != "label":
        return
    counted = Counter(answer for answer in rows.answers if answer in set(material.labels))
    usable = [index for index, answer in enumerate(rows.answers) if answer and counted[answer] >= _KNOWN]
    names = sorted({rows.answers[index] or "" for index in usable})
    if len(names) < 2:
        return
    vectors = material.vectors[usable]
    vectors = _unit(vectors - vectors.mean(axis=0))
    codes = np.array([names.index(rows.answers[index] or "") for index in usable])
    suspects = np.flatnonzero(_nearest_centre(vectors, codes, len(names)) != codes)
    if not len(suspects):
        return
    found = neighbours(vectors[suspects], among=vectors, k=_K + 1).indices
    for suspect, near in zip(suspects.tolist(), found, strict=True):
        others = codes[near[near != suspect][:_K]]
        label, count = Counter(others.tolist()).most_common(1)[0]
        own = int((others == codes[suspect]).sum())
        if label != codes[suspect] and count >= _OTHER * len(others) and own <= _OWN * len(others):
            said = f"{count} of {len(others)} neighbours are {quoted(names[label])}"
            yield Finding(usable[suspect], "likely_wrong_label", f"stored {quoted(names[codes[suspect]])}; {said}")


def _nearest_centre(vectors: Floats, codes: Indices, labels: int) -> Indices:
    """(n,) the label whose centre, without the row itself, each row is nearest to."""
    sums = np.zeros((labels, vectors.shape[1]), np.float64)
    np.add.at(sums, codes, vectors)
    centres = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    cosines = vectors @ centres.T.astype(np.float32)
    own = sums[codes] - vectors
    norm = np.maximum(np.linalg.norm(own, axis=1), 1e-12)
    cosines[np.arange(len(codes)), codes] = np.einsum("nd,nd->n", own, vectors) / norm
    found: Indices = cosines.argmax(axis=1)
    return found


def _unit(vectors: Floats) -> Floats:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Floats = (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
    return unit


def collapsed(material: Material) -> Iterator[Finding]:
    """`diversity_collapse`: prompts of a domain most of whose phrases (three words) are those of many others there.

    Words with which half of the domain's prompts begin or end are left out where the rest is diverse: an instruction.
    The first prompt of each pattern is kept.
    """
    domains: dict[str, list[int]] = defaultdict(list)
    for index, domain in enumerate(material.rows.domains):
        if index not in material.earlier_equal:
            domains[domain or ""].append(index)
    for domain, members in sorted(domains.items()):
        if len(members) >= _SMALL:
            yield from _collapsed(material, domain, members)


def _collapsed(material: Material, domain: str, members: Sequence[int]) -> Iterator[Finding]:
    texts = _without_instruction([material.rows.prompts[index].split() for index in members])
    grams = [{tuple(words[at : at + 3]) for at in range(len(words) - 2)} for words in texts]
    counted = Counter(gram for own in grams for gram in own)
    often = max(_WORN[0], math.ceil(_WORN[1] * len(members)))
    shares = [sum(counted[gram] >= often for gram in own) / len(own) if own else 0.0 for own in grams]
    patterned = [place for place, share in enumerate(shares) if share >= _COLLAPSED]
    if len(patterned) < max(_FEW[0], _FEW[1] * len(members)):
        return
    distinct = distinct_n([" ".join(texts[place]) for place in patterned])
    known: set[tuple[str, ...]] = set()
    for place in patterned:
        new = sum(gram not in known for gram in grams[place]) / len(grams[place])
        if new >= _NEW:
            known |= grams[place]
            continue
        said = f"{shares[place]:.0%} of its phrases stand in {often} prompts or more of {len(members)}"
        where = f" of {quoted(domain)}" if domain else ""
        yield Finding(members[place], "diversity_collapse", f"{said}{where}; distinct-3 of those is {distinct:.2f}")


def _without_instruction(texts: Sequence[list[str]]) -> list[list[str]]:
    """The words without those that half of the texts begin or end with, where the rest of them is diverse."""
    left = list(texts)
    for _ in range(2):
        left = [words[::-1] for words in left]
        cut = _shared_beginning(left)
        left = [words[len(cut) :] if words[: len(cut)] == cut else words for words in left]
    distinct = distinct_n([" ".join(words) for words in left])
    return left if distinct >= _DIVERSE else list(texts)


def _shared_beginning(texts: Sequence[list[str]]) -> list[str]:
    left, shared = list(texts), list[str]()
    while True:
        at = len(shared)
        word, count = Counter(words[at] for words in left if len(words) > at).most_common(1)[0] if left else ("", 0)
        if not count or count < _INSTRUCTION * len(texts):
            return shared
        left = [words for words in left if len(words) > at and words[at] == word]
        shared.append(word)
