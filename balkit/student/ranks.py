"""The processes that train together: this one alone, or all that `accelerate launch` started."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, TypeVar

from balkit.errors import need

T = TypeVar("T")

#: What a launcher tells each of its processes.
_COUNT, _RANK = "WORLD_SIZE", "RANK"


def is_main() -> bool:
    """Whether this process is the one that writes and reports."""
    return os.environ.get(_RANK, "0") == "0"


@contextmanager
def main_first() -> Iterator[None]:
    """The main process goes through the block, then the others, which find what it made."""
    if int(os.environ.get(_COUNT, "1")) == 1:
        yield
        return
    ranks = Ranks()
    if not ranks.main:
        ranks.wait()
    try:
        yield
    finally:
        if ranks.main:
            ranks.wait()


class Ranks:
    """One process's view of all. With several, each holds the whole model and takes its share of every step's rows.

    Gradients are added up once a step, after the last pass. So the number of passes may differ between processes,
    and the result is that of one process but for rounding.
    """

    def __init__(self) -> None:
        torch, accelerate = need("torch", extra="train"), need("accelerate", extra="train")
        self.kind: Literal["cpu", "cuda"] = "cuda" if torch.cuda.is_available() else "cpu"
        self._state = accelerate.PartialState(cpu=self.kind == "cpu")
        self.count: int = self._state.num_processes
        self.rank: int = self._state.process_index
        self.main: bool = self._state.is_main_process

    def share(self, rows: Sequence[T]) -> list[T]:
        """This process's part: every n-th, so that rows in order of length are dealt out evenly."""
        return list(rows[self.rank :: self.count])

    def total(self, value: float) -> float:
        """The sum of a number over all processes."""
        if self.count == 1:
            return value
        torch = need("torch", extra="train")
        mine = torch.tensor([value], dtype=torch.float64, device=self._state.device)
        torch.distributed.all_reduce(mine)
        return float(mine.item())

    def add_gradients(self, weights: Sequence[Any]) -> None:
        """Every weight's gradient becomes its sum over all processes; one without any counts as zero."""
        if self.count == 1:
            return
        torch = need("torch", extra="train")
        for weight in weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        flat = torch.cat([weight.grad.reshape(-1).float() for weight in weights])
        torch.distributed.all_reduce(flat)
        for weight, summed in zip(weights, flat.split([weight.numel() for weight in weights]), strict=True):
            weight.grad.copy_(summed.view_as(weight))

    def precision(self, wanted: Literal["auto", "bf16", "float32"]) -> AbstractContextManager[Any]:
        """bfloat16 where it is wanted, or by itself on a GPU; weights and their sums stay as they are."""
        torch = need("torch", extra="train")
        half = wanted == "bf16" or (wanted == "auto" and self.kind == "cuda")
        return torch.autocast(self.kind, dtype=torch.bfloat16) if half else nullcontext()

    def wait(self) -> None:
        """Until every process is here."""
        self._state.wait_for_everyone()
