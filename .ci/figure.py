"""docs/quotas.svg, the figure of docs/method.md, from the quickstart's rows and the policies. `make pages` draws it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from html import escape
from pathlib import Path

import polars as pl

from balkit import balance
from balkit.recipe import Balance

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docs" / "quotas.svg"
BUDGET, STAGES = 552, 3

_LEFT, _TOP, _ROW, _WIDTH, _SCALE = 150, 64, 24, 790, 2.1  # pixels; the scale is pixels a row
_COLOURS = ("#9ecae1", "#4292c6", "#08519c")  # a stage each
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f } .n { text-anchor: end }
.written { fill: none; stroke: #d55e00; stroke-width: 2 } .natural { stroke: #24292f; stroke-width: 2 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .natural { stroke: #e6edf3 } }
"""


def counts() -> dict[str, int]:
    """Train rows of each topic of the quickstart, the largest first."""
    lines = (ROOT / "data" / "quickstart" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return dict(Counter(json.loads(line)["topic"] for line in lines).most_common())


def quotas(policy: str, given: dict[str, int]) -> dict[str, list[int]]:
    """The rows of each domain in each stage."""
    plan = balance.schedule(given, budget_rows=BUDGET, stages=STAGES, policy=Balance(policy=policy))  # type: ignore[arg-type]
    return {domain: plan.filter(pl.col("domain") == domain).sort("stage")["quota"].to_list() for domain in given}


def drawing() -> str:
    """The SVG."""
    given = counts()
    height = _TOP + _ROW * len(given) + 16
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" role="img">'
    title = f"Quotas of {len(given)} topics over {STAGES} stages, adaptive, {BUDGET} rows"
    body = [head, f"<title>{title}</title>", f"<style>{_STYLE}</style>", *_legend(), *_bars(given), "</svg>", ""]
    return "\n".join(body)


def _legend() -> Iterator[str]:
    yield f'<text x="{_LEFT - 8}" y="44" class="n">topic, real rows</text>'
    for stage, colour in enumerate(_COLOURS, 1):
        x = _LEFT + 80 * (stage - 1)
        yield f'<rect x="{x}" y="12" width="14" height="12" fill="{colour}"/>'
        yield f'<text x="{x + 19}" y="23">stage {stage}</text>'
    yield f'<rect x="{_LEFT + 240}" y="12" width="14" height="12" class="written"/>'
    yield f'<text x="{_LEFT + 259}" y="23">more than there is: the teacher writes it</text>'
    yield f'<path d="M{_LEFT + 535} 10v16" class="natural"/><text x="{_LEFT + 542}" y="23">natural share</text>'


def _bars(given: dict[str, int]) -> Iterator[str]:
    adaptive, natural = quotas("adaptive", given), quotas("natural", given)
    for place, (domain, real) in enumerate(given.items()):
        y, x = _TOP + _ROW * place, float(_LEFT)
        yield f'<text x="{_LEFT - 8}" y="{y + 12}" class="n">{escape(domain)}, {real:,}</text>'
        for quota, colour in zip(adaptive[domain], _COLOURS, strict=True):
            yield f'<rect x="{x:.1f}" y="{y}" width="{quota * _SCALE:.1f}" height="15" fill="{colour}"/>'
            x += quota * _SCALE
        total = sum(adaptive[domain])
        if total > real:
            written = (total - real) * _SCALE
            yield f'<rect x="{x - written:.1f}" y="{y}" width="{written:.1f}" height="15" class="written"/>'
        yield f'<path d="M{_LEFT + sum(natural[domain]) * _SCALE:.1f} {y - 3}v21" class="natural"/>'
        yield f'<text x="{x + 6:.1f}" y="{y + 12}">{total}</text>'


if __name__ == "__main__":
    FILE.write_text(drawing(), encoding="utf-8")
