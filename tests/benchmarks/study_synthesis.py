"""What balkit's cascade makes of the rows that a real teacher composed: MATH and R52 of BALKIT_REAL_DATA.

    python tests/benchmarks/study_synthesis.py [--hashing] [--only math|r52]

prints the tables of docs/benchmarks.md, "Composed rows". MiniLM takes minutes for all texts; `--hashing` uses the
encoder without a model instead. Nothing is asked of a teacher: a row's own recorded rationale stands for its second
answer. Distinct-3 falls with the number of rows, so real rows are measured on as many as there are written ones.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import real_input as real

from balkit import diversity, texts, verify
from balkit.recipe import Answers, Synthesis
from balkit.vectors import Hashing, SentenceTransformers, Vectors

Encode = Callable[[Sequence[str]], np.ndarray]


def rows(body: Sequence[dict[str, str]], *, prompt: str, answer: str, domain: str) -> pl.DataFrame:
    """example_id, prompt, reference, domain, rationale, split."""
    made = [
        (texts.canonical(row[prompt]), texts.canonical(row[answer]), row[domain], row.get("rationale")) for row in body
    ]
    names = ("prompt", "reference", "domain", "rationale")
    frame = pl.DataFrame(made, schema=dict.fromkeys(names, pl.String), orient="row")
    ids = [texts.example_id(*pair) for pair in frame.select("prompt", "reference").iter_rows()]
    return frame.with_columns(example_id=pl.Series(ids, dtype=pl.String), split=pl.lit("train"))


def judged(
    written: pl.DataFrame, *, known: pl.DataFrame, usual: pl.DataFrame, held_out: Sequence[str], expected: Answers,
    labels: Sequence[str], encode: Encode,
) -> pl.DataFrame:  # fmt: skip
    """Every written row with the reason that the cascade gives it."""
    section = Synthesis()
    prompts = [written["prompt"].to_list(), known["prompt"].to_list(), list(held_out)]
    width = encode(prompts[0][:1]).shape[1]
    vectors = [encode(some) if some else np.empty((0, width), np.float32) for some in prompts]
    decisions = verify.new_examples(
        written,
        against=verify.Against(
            verify.Known(prompts[1]),
            verify.Known(prompts[2]),
            verify.Vectors(*vectors),
            verify.usual(usual, domains=written["domain"].unique().sort(), section=section),
        ),
        section=section,
        expected=expected,
        labels=labels,
    )
    order = written.sort("example_id", "prompt", "domain", maintain_order=True)
    return order.with_columns(decisions["reason"], decisions["kept"])


def by_domain(found: pl.DataFrame, genuine: pl.DataFrame) -> None:
    """Rows, exact duplicates and distinct-3 before and after the cascade, beside as many real rows."""
    print("| domain | written | exact duplicates | kept | yield | distinct-3 written | kept | real, as many as kept |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for (domain,), part in found.sort("domain").group_by("domain", maintain_order=True):
        kept = part.filter("kept")["prompt"].to_list()
        own = genuine.filter(pl.col("domain") == domain).sort("example_id")["prompt"].head(len(kept)).to_list()
        again = part.height - len({texts.normalised(prompt) for prompt in part["prompt"]})
        spread = (diversity.distinct_n(some) for some in (part["prompt"].to_list(), kept, own))
        numbers = " | ".join("-" if np.isnan(one) else f"{one:.2f}" for one in spread)
        print(f"| {domain} | {part.height} | {again} | {len(kept)} | {len(kept) / part.height:.2f} | {numbers} |")
    again = found.height - len({texts.normalised(prompt) for prompt in found["prompt"]})
    print(f"| all | {found.height} | {again} | {found['kept'].sum()} | {found['kept'].mean():.2f} | | | |")


def reasons(name: str, found: pl.DataFrame) -> None:
    counted = found["reason"].value_counts().sort("count", "reason", descending=[True, False])
    print(f"{name}: " + ", ".join(f"{count} {reason}" for reason, count in counted.iter_rows()), flush=True)


def math(encode: Encode) -> None:
    read, folder = real.loader("math").read, real.DATA / "long_tail_kd" / "math"
    names = {"prompt": "text", "domain": "source"}
    genuine = rows(read(folder / "corpus.jsonl"), answer="label", **names)
    held_out = rows(read(folder / "test_corpus.jsonl"), answer="label", **names)["prompt"].to_list()
    told = {"usual": genuine, "held_out": held_out, "expected": Answers(kind="math"), "labels": (), "encode": encode}
    for name in ("composed", "composed_raw"):
        written = rows(read(folder / f"math_chatgpt_cot_train_{name}.jsonl"), answer="gt_choice", **names)
        found = judged(written, known=genuine, **told)
        print(f"\nMATH, {name}\n")
        by_domain(found, genuine)
        reasons("\nreasons", found)
    alone = judged(genuine.drop("rationale"), known=genuine.clear(), **told)
    reasons("\nMATH, the 4,125 real rows taken for new ones", alone)


def r52(encode: Encode) -> None:
    module, folder = real.loader("r52"), real.DATA / "long_tail_kd" / "r52"
    natural = module.read(folder / module.NATURAL)
    genuine = rows(
        [row | {"text": module.clean(row["text"])} for row in natural], prompt="text", answer="label", domain="label"
    )
    lines = [line.split("\t") for line in (folder / "test.tsv").read_text("utf-8").splitlines() if line]
    held_out = module.examples(lines)["text"].to_list()
    genuine = genuine.filter(~pl.Series(verify.leaks(genuine["prompt"].to_list(), evaluation=held_out)))
    body = list(module.replies(folder))
    worked = {one["prompt"]: one["text"] for one in body if one["purpose"] == "rationale"}
    composed = [one | {"rationale": worked[one["prompt"]]} for one in body if one["purpose"] == "synthesis"]
    written = rows(composed, prompt="prompt", answer="answer", domain="domain")
    labels = sorted({*genuine["domain"], *written["domain"], *(label for label, _ in lines)})
    told = {"usual": genuine, "held_out": held_out, "expected": Answers(kind="label"), "labels": labels}
    found = judged(written, known=genuine, encode=encode, **told)
    print("\nR52, rows of the balanced file that are in no natural one\n")
    by_domain(found, genuine)
    reasons("\nreasons", found)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--hashing", action="store_true", help="the encoder without a model")
    arguments.add_argument("--only", choices=["math", "r52"], help="one of the two")
    given = arguments.parse_args()
    if reason := real.missing():
        sys.exit(reason)
    encoder = Hashing(dim=512) if given.hashing else SentenceTransformers(real.encoder_folder())
    with tempfile.TemporaryDirectory() as cache:
        encode = Vectors(Path(cache), encoder).of
        if given.only != "r52":
            math(encode)
        if given.only != "math":
            r52(encode)


if __name__ == "__main__":
    main()
