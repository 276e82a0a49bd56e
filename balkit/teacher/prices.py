"""What a model costs: the recipe's word first, then the dated table that ships with balkit (`prices.yaml`)."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml

from balkit.errors import PriceUnknown
from balkit.recipe import Price, Teacher


@dataclass(frozen=True)
class Rate:
    """An exact price, in integer pico-dollars (1e-12 US dollars) per token. One dollar per Mtok is 1,000,000."""

    input_picousd: int
    output_picousd: int

    def cost_microusd(self, input_tokens: int, output_tokens: int) -> int:
        """The cost in micro-dollars, rounded up."""
        return -(-(input_tokens * self.input_picousd + output_tokens * self.output_picousd) // 1_000_000)

    def halved(self) -> Rate:
        """What a call in a provider's batch costs; a half pico-dollar is rounded up."""
        return Rate(-(-self.input_picousd // 2), -(-self.output_picousd // 2))


FREE = Rate(0, 0)


def price_of(model: str, price: Price | Literal["free"] | None = None) -> Rate:
    """The rate of a model. `price`, from the recipe, overrides the table; `free` and a nameless model cost nothing.

    Raises `PriceUnknown` where neither the recipe nor the table knows.
    """
    if price == "free" or (price is None and not model):
        return FREE
    if price is not None:
        return _rate(price.input_usd_per_mtok, price.output_usd_per_mtok)
    table = _table()["models"]
    for name in (model, f"openai/{model}", f"anthropic/{model}"):
        if name in table:
            return _rate(*table[name])
    raise PriceUnknown(
        f"no price is known for the model {model!r}. Give it in the recipe, in US dollars per million tokens: "
        "teacher.price: {input_usd_per_mtok: 0.15, output_usd_per_mtok: 0.6}; or teacher.price: free for a local one"
    )


def rate_of(section: Teacher) -> Rate | None:
    """What a recipe's teacher costs; None where no price is known. A batch costs half."""
    if section.transport in ("recorded", "offline") and section.price is None:
        return FREE
    try:
        rate = price_of(section.model, section.price)
    except PriceUnknown:
        return None
    return rate.halved() if section.transport == "batch" else rate


def priced_models() -> dict[str, Rate]:
    """The shipped table."""
    return {name: _rate(*pair) for name, pair in _table()["models"].items()}


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = yaml.safe_load(files("balkit.teacher").joinpath("prices.yaml").read_text(encoding="utf-8"))
    return table


def _rate(input_usd_per_mtok: float, output_usd_per_mtok: float) -> Rate:
    return Rate(_pico(input_usd_per_mtok), _pico(output_usd_per_mtok))


def _pico(usd_per_mtok: float) -> int:
    return int((Decimal(str(usd_per_mtok)) * 1_000_000).to_integral_value(ROUND_CEILING))
