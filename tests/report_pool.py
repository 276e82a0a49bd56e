"""A pool with a run, and rows that a page must not obey."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from small import Rule, make_pool, make_recipe

from balkit.pool import Pool
from balkit.stages import run
from balkit.teacher import Scripted

SCRIPT = '<script>document.title="obeyed"</script>'
CLOSING = "</script></textarea><img src=x onerror=\"document.title='obeyed'\">"
TURNED = "\u202eright to left\u2066"
HEBREW = "\u05e9\u05dc\u05d5\u05dd apple"
DOMAIN = 'fruit <b>"bold"</b> & more $x^2$'
HOSTILE = [SCRIPT, CLOSING, TURNED, HEBREW, "{{ 7 * 7 }} {% raw %}", "wide " * 400]
PRICED = {
    "name": "rule", "transport": "offline", "model": "rule-1",
    "price": {"input_usd_per_mtok": 0.5, "output_usd_per_mtok": 1.5},
}  # fmt: skip


class Turning(Rule):
    """Rules, and a worked answer that no page may obey."""

    def __call__(self, request):  # type: ignore[no-untyped-def]
        said = super().__call__(request)
        return said if request.purpose == "synthesis" else f"{CLOSING} {TURNED}\n{said}"


def make(folder: Path) -> Pool:
    """Two trained stages over a pool with hostile prompts and a domain of a hostile name, then an untrained run."""
    pool = make_pool(folder)
    prompts = [f"{text} an apple" for text in HOSTILE]
    answer = pl.DataFrame({"q": prompts, "a": ["fruit"] * len(prompts), "d": [DOMAIN] * len(prompts)})
    pool.add(answer, prompt="q", answer="a", domain="d")
    labels = {"kind": "label", "labels": ["fruit", "tool", "bird"]}
    tiny = {"max_steps": 1, "batch_size": 4, "max_length": 256, "threads": 1, "over_length": "drop"}
    shared = {"teacher": PRICED, "answers": labels, "synthesis": {"per_call": 2, "max_tokens": 256, "calls_per_row": 4}}
    student = {"layers": 1, "width": 32, "heads": 2, "vocabulary": 300, "context": 256}
    select = {"first": "facility_location", "then": "ifd", "candidates": 2, "response": "reference", "max_ifd": 9}
    first = make_recipe(
        budget_rows=24, select=select, train=tiny, student=student, evaluate={"max_new_tokens": 2}, **shared
    )
    run(pool, first, teacher=Scripted(Turning(wrong="pear")))
    second = make_recipe(
        name="natural", balance={"policy": "natural"}, stages=1, select={"first": "k_center"}, **shared
    )
    run(pool, second, teacher=Scripted(Turning()), train=False)
    return pool
