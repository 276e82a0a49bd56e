"""One forward pass over padded rows: the loss and the entropy of response tokens, and nothing else.

The only place where a model's logits are read, so training and scoring mean the same by a token's loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from balkit.errors import need

_SMALL = 5_000_000
_TOKENS_AT_ONCE = 512  # whose probabilities are held twice


@dataclass(frozen=True)
class Row:
    """Tokens of one row: `given` is read, `response` is predicted. Neither is empty."""

    given: list[int]
    response: list[int]

    @property
    def length(self) -> int:
        """Tokens in all."""
        return len(self.given) + len(self.response)


def response_nll(model: Any, rows: Sequence[Row], *, pad_id: int) -> Any:
    """The loss of every response token, in nats: (tokens,) float32, row after row."""
    return _nll(*_response_logits(model, rows, pad_id=pad_id))


def response_nll_and_entropy(model: Any, rows: Sequence[Row], *, pad_id: int) -> tuple[Any, Any]:
    """The loss of every response token, and the entropy of the model's prediction there, both in nats.

    Each (tokens,) float32, row after row, of one forward pass.
    """
    torch = need("torch", extra="train")
    logits, targets = _response_logits(model, rows, pad_id=pad_id)
    parts = [part.log_softmax(-1) for part in logits.split(_TOKENS_AT_ONCE)]
    return _nll(logits, targets), torch.cat([-(part.exp() * part).sum(-1) for part in parts])


def _nll(logits: Any, targets: Any) -> Any:
    torch = need("torch", extra="train")
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")


def _response_logits(model: Any, rows: Sequence[Row], *, pad_id: int) -> tuple[Any, Any]:
    """The logits before every response token, (tokens, vocabulary) float32, and the tokens, row after row.

    The LM head is applied to the window of positions that holds the rows' responses, not to the prompts before
    it; rows of similar length make it narrow.
    """
    torch = need("torch", extra="train")
    device = next(model.parameters()).device
    longest = max(row.length for row in rows)
    padded = [row.given + row.response + [pad_id] * (longest - row.length) for row in rows]
    ids = torch.tensor(padded, device=device)
    lengths = torch.tensor([row.length for row in rows], device=device)
    givens = torch.tensor([len(row.given) for row in rows], device=device)
    first = min(len(row.given) for row in rows) - 1  # the position before a token predicts it
    window = torch.arange(first, longest - 1, device=device)
    attention = (torch.arange(longest, device=device) < lengths[:, None]).long()
    logits = model(input_ids=ids, attention_mask=attention, use_cache=False, logits_to_keep=window).logits
    predicted = window + 1
    asked = (predicted >= givens[:, None]) & (predicted < lengths[:, None])
    targets = ids[:, first + 1 :]
    return logits[asked].float(), targets[asked]


@contextmanager
def cpu_threads(model: Any, *, count: int | None = None) -> Iterator[None]:
    """torch's CPU threads set to `count` inside the block; by default to one for a model below 5 M parameters.

    Such a model gains little from threads, and on a busy machine their waiting costs it ten times and more. One
    thread also means the same weights on any number of cores.
    """
    torch = need("torch", extra="train")
    before = torch.get_num_threads()
    small = sum(weights.numel() for weights in model.parameters()) < _SMALL
    torch.set_num_threads(count or (1 if small else before))
    try:
        yield
    finally:
        torch.set_num_threads(before)
