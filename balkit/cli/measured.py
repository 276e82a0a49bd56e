"""What `balkit eval` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from balkit.cli.show import frame_out, say
from balkit.steps import Measured
from balkit.student import Interval, compare, intervals, macro_f1, sampled, shot, summarise
from balkit.student import confusion as confused
from balkit.student import errors as wrong


def told(found: Measured, *, confusion: bool, errors: int) -> dict[str, Any]:
    """For machines: accuracies as fractions, intervals as [low, high], other estimates as [value, low, high]."""
    body: dict[str, Any] = dict(summarise(found.found, head=found.head, counts=found.counts))
    body["train_examples"] = {name: found.counts.get(name, 0) for name in body["per_domain"]}
    body["intervals"] = {name: [each.low, each.high] for name, each in _intervals(found).items()}
    if found.samples:
        drawn = sampled(found.samples, head=found.head, counts=found.counts)
        body["samples"] = {
            "samples": drawn.samples,
            "settings": found.found["settings"][0],
            "mean": _ends(drawn.mean),
            "pass_at": {str(k): _ends(each) for k, each in drawn.pass_at.items()},
        }
    if found.kind in ("label", "choice"):
        body["macro_f1"] = macro_f1(found.found, found.examples)
    if found.other is not None:
        compared = compare(found.other, found.found, head=found.head, counts=found.counts)
        body["against"] = {
            "summary": summarise(found.other, head=found.head, counts=found.counts),
            "both_right": compared.both,
            "only_other": compared.only_first,
            "only_this": compared.only_second,
            "neither": compared.neither,
            "mcnemar_p": compared.p_value,
            "differences": _ends(compared.differences),
        }
    if confusion:
        body["confusion"] = confused(found.found, found.examples).to_dicts()
    if errors:
        body["errors"] = wrong(found.found, found.examples, count=errors).to_dicts()
    return body


def shown(found: Measured, *, confusion: bool, errors: int) -> None:
    """For people."""
    summary, other = summarise(found.found, head=found.head), found.other
    before = summarise(other, head=found.head)["per_domain"] if other is not None else {}
    rows = []
    for name, domain in summary["per_domain"].items():
        beside = {"other %": 100 * before[name]["accuracy"]} if name in before else {}
        train = found.counts.get(name, 0)
        part = {"part": "head" if name in found.head else "tail", "train": train, "shots": shot(train)}
        rows.append({"domain": name, **part, "rows": domain["rows"], "%": 100 * domain["accuracy"], **beside})
    frame_out(pl.DataFrame(rows), as_json=False)
    if found.samples:
        say(f"{len(found.samples)} answers drawn to each row; the table and what follows is of the majority's.")
    say("95 % intervals, rows drawn again within domains:")
    for name, each in _intervals(found).items():
        say(f"  {name:6} {_percent(each)}")
    if found.samples:
        _drawn(found)
    if found.kind in ("label", "choice"):
        say(f"macro F1 {100 * macro_f1(found.found, found.examples):.1f} %")
    if other is not None:
        _compared(other, found)
    if confusion:
        say("What was taken for what (wrong answers only):")
        table = confused(found.found, found.examples)
        frame_out(table.filter(pl.col("predicted").ne_missing(pl.col("reference"))).head(30), as_json=False)
    if errors:
        for row in wrong(found.found, found.examples, count=errors).iter_rows(named=True):
            say(f"\n{row['domain']}, {row['example_id'][:12]}: {row['prompt'][:400]}")
            say(f"  wanted {row['reference']!r}, read {row['predicted']!r} in: {row['text'][:400]!r}")


def _intervals(found: Measured) -> dict[str, Interval]:
    return intervals(found.found, head=found.head, counts=found.counts)


def _ends(each: Mapping[str, Interval]) -> dict[str, list[float]]:
    return {name: [one.value, one.low, one.high] for name, one in each.items()}


def _drawn(found: Measured) -> None:
    drawn = sampled(found.samples, head=found.head, counts=found.counts)
    kinds = {"mean accuracy": drawn.mean} | {f"pass@{k}": each for k, each in drawn.pass_at.items() if k > 1}
    for title, each in kinds.items():
        say(f"{title} of {drawn.samples} answers a row:")
        for name, one in each.items():
            say(f"  {name:6} {_percent(one)}")


def _percent(each: Interval, *, signed: bool = False) -> str:
    form = "+.1f" if signed else ".1f"
    return f"{100 * each.value:{form}} % ({100 * each.low:{form}} to {100 * each.high:{form}})"


def _compared(other: pl.DataFrame, found: Measured) -> None:
    compared = compare(other, found.found, head=found.head, counts=found.counts)
    say(
        f"Against the other, on the same {compared.rows} rows: right here alone {compared.only_second}, there alone "
        f"{compared.only_first}, McNemar p = {compared.p_value:.2g}"
    )
    for name, each in compared.differences.items():
        say(f"  {name:6} {_percent(each, signed=True)}")
