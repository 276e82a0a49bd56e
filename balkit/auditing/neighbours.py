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
_OTHER, _OWN = 0.3, 0.3  # of the neighbours: at least so many have the one other label, at most so many the own
_MARGIN = 0.3  # by which the other label's score is above the own one's; scores of a row's labels are about 0 or 1
_RIDGE = 1.0  # weight of the penalty, of the mean squared length of a row
_TELLING = 0.7  # of the labels that are predicted from the other rows, below which texts do not tell labels
_KNOWN = 6  # rows of a label, below which its neighbours say nothing of it

_SMALL = 12  # rows of a domain, below which its phrases say nothing
_WORN = (4, 0.01)  # a phrase of three words is worn from so many rows of a domain, or so large a part of them
_COLLAPSED = 0.6  # of a prompt's phrases
_FEW = (8, 0.03)  # so many such prompts, or so large a part of the domain, are no collapse yet
_NEW = 0.5  # of a collapsed prompt's phrases that no kept one has: it begins a pattern of its own, and is kept
_INSTRUCTION = 0.5  # of a domain's prompts that begin, or end, with the same words
_DIVERSE = 0.6  # distinct-3 of what is left without these words, from which they are an instruction and no pattern


def wrong_labels(material: Material) -> Iterator[Finding]:
    """`likely_wrong_label`: another label is predicted from all other rows, and the nearest of them have it.

    Vectors are centred, so that what all prompts share counts for nothing. A label of fewer than 6 rows is not judged;
    no label is where fewer than 70 % are the predicted ones, since there the texts do not tell the label.
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
    scores = _left_out(vectors, codes, len(names))
    predicted = scores.argmax(axis=1)
    if (predicted == codes).mean() < _TELLING:
        return
    every = np.arange(len(codes))
    suspects = np.flatnonzero(scores[every, predicted] - scores[every, codes] >= _MARGIN)
    if not len(suspects):
        return
    found = neighbours(vectors[suspects], among=vectors, k=_K + 1).indices
    for suspect, near in zip(suspects.tolist(), found, strict=True):
        others = codes[near[near != suspect][:_K]]
        label = int(predicted[suspect])
        count, own = int((others == label).sum()), int((others == codes[suspect]).sum())
        if count >= _OTHER * len(others) and own <= _OWN * len(others):
            said = f"{count} of {len(others)} neighbours are {quoted(names[label])}"
            yield Finding(usable[suspect], "likely_wrong_label", f"stored {quoted(names[codes[suspect]])}; {said}")


def _left_out(vectors: Floats, codes: Indices, labels: int) -> npt.NDArray[np.float64]:
    """(n, labels) how much each row has of each label, by ridge regression on all other rows.

    A row's own label has no part in it: its residual, divided by 1 - its leverage, is that of the fit without the row
    (Allen 1974, PRESS). Cost n * d * (d + labels).
    """
    rows = vectors.astype(np.float64)
    gram = rows.T @ rows + _RIDGE * len(rows) / rows.shape[1] * np.eye(rows.shape[1])
    solved = np.linalg.solve(gram, rows.T).T
    leverage = np.einsum("nd,nd->n", rows, solved)[:, None]
    truth = np.zeros((len(rows), labels))
    truth[np.arange(len(rows)), codes] = 1.0
    truth -= (shares := truth.mean(axis=0))
    fitted = rows @ (solved.T @ truth)
    found: npt.NDArray[np.float64] = (fitted - leverage * truth) / np.maximum(1 - leverage, 1e-9) + shares
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
    domains: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, (domain, split) in enumerate(zip(material.rows.domains, material.rows.splits, strict=True)):
        if index not in material.earlier_equal and material.rows.prompts[index].strip():
            domains[domain or "", split].append(index)
    for (domain, _), members in sorted(domains.items()):
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
        most = Counter(words[at] for words in left if len(words) > at).most_common(1)
        if not most or most[0][1] < _INSTRUCTION * len(texts):
            return shared
        word = most[0][0]
        left = [words for words in left if len(words) > at and words[at] == word]
        shared.append(word)
