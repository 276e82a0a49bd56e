"""Which GPUs torch sees."""

from __future__ import annotations

from dataclasses import dataclass

from balkit.errors import StudentError, need


@dataclass(frozen=True)
class Gpu:
    """A GPU by its name, with its whole memory in bytes."""

    name: str
    bytes: int


def gpus() -> list[Gpu]:
    """All GPUs that training may use, in torch's order. Imports torch, which takes seconds.

    Raises `MissingExtra` where torch is not installed, `StudentError` where it cannot be loaded or asked.
    """
    try:
        cuda = need("torch", extra="train").cuda
        if not cuda.is_available():
            return []
        found = [cuda.get_device_properties(number) for number in range(cuda.device_count())]
    except (ImportError, OSError, RuntimeError) as error:
        raise StudentError(f"torch is installed and does not work: {error}") from error
    return [Gpu(one.name, one.total_memory) for one in found]
