"""From the rows of a snapshot to rows of a training file: the messages, their length, and what is left out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import polars as pl

from balkit import answers, texts
from balkit.errors import ExportError
from balkit.frames import SNAPSHOT_ROWS, Kind, check
from balkit.recipe import Card
from balkit.tokens import Counter, estimate

RationaleForm = Literal["inline", "think", "reasoning_content", "none"]
Part = Literal["train", "validation"]
Message = dict[str, str]

_S, _I = pl.String(), pl.Int64()

_B = pl.Boolean()

#: Every row that was considered, in the snapshot's order, without its texts. `line` counts from 0 in the written file
#: and is null for a row that was left out; lengths are in tokens of the report's counter. Of the texts there are:
#: `bytes` of prompt, rationale and answer in UTF-8; `marked`: they hold control tokens; `referenced`: there is an
#: answer on file; `reasoned`: the rationale is not empty.
EXPORT_ROWS = Kind(
    "EXPORT_ROWS",
    {
        "row_id": _S, "part": _S, "line": _I, "kept": _B, "reason": _S, "snapshot": _S, "stage": _I, "domain": _S,
        "split": _S, "origin": _S, "example_id": _S, "rationale_id": _S, "copy": _I, "author": _S,
        "completion_tokens": _I, "n_tokens": _I, "bytes": _I, "marked": _B, "referenced": _B, "reasoned": _B,
    },
    frozenset({"line", "reason"}),
)  # fmt: skip

#: The texts of a row, which are read in blocks when they are needed.
TEXTS = ("prompt", "reference", "rationale", "answer")

#: What the pool says of a row. It stays out of trainers' files and goes to `rows.parquet`, keyed by `row_id`.
PROVENANCE = [name for name in EXPORT_ROWS.columns if name not in ("bytes", "marked", "referenced", "reasoned")]

#: Gives SNAPSHOT_ROWS in the order of `position`, at most `SLICE` at a time, from the first on at every call.
Blocks = Callable[[], Iterator[pl.DataFrame]]

#: The columns of the row behind every target, as `hf`, `jsonl` and `parquet` write it.
CANONICAL = [
    "row_id", "stage", "domain", "split", "messages", "rationale", "answer", "reference", "origin", "teacher",
    "example_id", "rationale_id", "copy", "snapshot", "n_tokens",
]  # fmt: skip

SLICE = 10_000  # rows held as Python objects at once, and rows of a Parquet row group

#: Strings that chat templates give a meaning of their own. They are kept as they stand, counted and reported.
CONTROL_TOKEN = re.compile(r"<\|[^|<>\s]{1,40}\|>|</?s>|\[/?INST\]|<(?:bos|eos|pad|unk|start_of_turn|end_of_turn)>")

#: Reasons to leave a validation row out that are no defect of it.
_ALWAYS_LEFT_OUT = ["prompt_in_train", "family_in_train"]
LONG = ["over_length", "over_context"]


@dataclass(frozen=True)
class Options:
    """How rows become training text.

    rationale: `inline` is "<rationale> Answer: <answer>", `think` puts the rationale between <think> tags before the
    answer, `reasoning_content` into a field of that name in every message (empty where nobody reasons), `none` leaves
    it out. system: one system message for every row. tokens: the student's counter; without one, lengths are estimates
    and the report says so. max_length: tokens; written into the target's config. A row that is longer, or longer than
    the student's context, or that the target would refuse, fails the export, unless drop_long or drop_refused leave
    such rows out. license: an identifier for the card; balkit states none by itself. card: terms that count instead
    of those in the snapshot's recipe.
    pairs: how many an example gives at most, for targets that learn from preferences.
    keep_formulas: do not escape what a spreadsheet would take for a formula. check: have the targets' own
    loaders read the files (see `checks`). overwrite: replace an earlier export (and nothing else) in the same place.
    """

    rationale: RationaleForm = "inline"
    system: str | None = None
    tokens: Counter | None = None
    max_length: int | None = None
    drop_long: bool = False
    drop_refused: bool = False
    license: str | None = None
    card: Card | None = None
    pairs: int = 1
    keep_formulas: bool = False
    check: bool = False
    overwrite: bool = False

    @property
    def counter(self) -> Counter:
        """The counter to use: the given one, or an estimate."""
        return self.tokens or estimate()


def sliced(rows: pl.DataFrame) -> Blocks:
    """SNAPSHOT_ROWS that are in memory as blocks, ordered, whatever their order is."""
    ordered = check(rows, SNAPSHOT_ROWS).sort("position", "row_id")
    return partial(ordered.iter_slices, SLICE)


def prepare(
    blocks: Blocks, *, part: Part, snapshot_id: str, options: Options, apart: Mapping[str, str] | None = None
) -> pl.DataFrame:
    """EXPORT_ROWS for each of the SNAPSHOT_ROWS, kept or not, in their order.

    `apart` says of example_ids why they must not be here, which goes before every other reason. Raises `ExportError`
    where a row comes from the wrong split or a row_id comes twice.
    """
    given = {"part": pl.lit(part), "snapshot": pl.lit(snapshot_id), "line": pl.lit(None, _I)}
    found = [EXPORT_ROWS.empty()]
    for rows in blocks():
        _right_split(rows, part=part)
        whole = rows.hstack(judged(rows, options=options, apart=apart)).with_columns(kept=pl.col("reason").is_null())
        found.append(check(whole.with_columns(**_ABOUT_TEXTS, **given), EXPORT_ROWS))
    rows = pl.concat(found)
    twice = rows.filter(rows["row_id"].is_duplicated())["row_id"]
    if twice.len():
        raise ExportError(f"the {part} rows hold row_id {twice[0]} more than once; export each row of a snapshot once")
    return rows.with_columns(line=pl.when("kept").then(pl.col("kept").cast(_I).cum_sum() - 1))


def refuse_unfit(considered: pl.DataFrame, *, options: Options) -> None:
    """Raise `ExportError` for rows that would not train as they stand and that nobody asked to leave out."""
    unfit = considered.filter(~pl.col("kept") & ~pl.col("reason").is_in(_ALWAYS_LEFT_OUT))
    long = pl.col("reason").is_in(LONG)
    for dropped, some, flag in (
        (options.drop_long, unfit.filter(long), "drop_long"),
        (options.drop_refused, unfit.filter(~long), "drop_refused"),
    ):
        if dropped or not some.height:
            continue
        counts = ", ".join(f"{reason} {n}" for reason, n in some.group_by("reason").len().sort("reason").rows())
        first = some.row(0, named=True)
        raise ExportError(
            f"{some.height} of {considered.height} rows would not train as they stand ({counts}); the first is row "
            f"{first['row_id']} of {first['domain']!r} ({first['n_tokens']} tokens): mend them, or leave them out with "
            f"{flag}=True (--{flag.replace('_', '-')})"
        )


def refuse_unheard(blocks: Iterator[pl.DataFrame], *, options: Options) -> None:
    """Raise `ExportError` where the student's chat template would leave `reasoning_content` out of the text.

    `blocks` are EXPORT_ROWS that are kept, with their texts.
    """
    if options.rationale != "reasoning_content" or options.counter.chats is None:
        return
    thought = next((some for rows in blocks if (some := rows.filter("reasoned").head(1)).height), None)
    if thought is None:
        return
    (messages,) = chats(thought, options=options)
    silent = [{**message, "reasoning_content": ""} for message in messages]
    with_it, without = options.counter.measure([messages, silent])
    if with_it.total == without.total:
        raise ExportError(
            f"rationale='reasoning_content': the chat template of {options.counter.name} does not write it, so that no "
            "rationale would be trained on; choose inline or think (--rationale)"
        )


def chats(prepared: pl.DataFrame, *, options: Options) -> Iterator[list[Message]]:
    """The messages of each row, in order; identical keys in every message."""
    for prompt, rationale, answer in prepared.select("prompt", "rationale", "answer").iter_rows():
        yield chat(prompt, rationale=rationale, answer=answer, options=options)


def chat(prompt: str, *, rationale: str, answer: str, options: Options) -> list[Message]:
    """One row's conversation: system where there is one, user, assistant."""
    turns = [] if options.system is None else [("system", options.system)]
    turns += [("user", prompt), ("assistant", completion(rationale, answer=answer, form=options.rationale))]
    if options.rationale != "reasoning_content":
        return [{"role": role, "content": content} for role, content in turns]
    thought = {"assistant": rationale.strip()}
    return [{"role": role, "content": content, "reasoning_content": thought.get(role, "")} for role, content in turns]


def canonical(rows: pl.DataFrame, *, options: Options) -> Iterator[dict[str, Any]]:
    """EXPORT_ROWS with their texts as dictionaries with the keys of `CANONICAL`."""
    for row, messages in zip(rows.iter_rows(named=True), chats(rows, options=options), strict=True):
        row |= {"messages": messages, "teacher": row["author"]}
        yield {name: row[name] for name in CANONICAL}


def completion(rationale: str, *, answer: str, form: RationaleForm) -> str:
    """The assistant's text of one row."""
    if form == "inline":
        return answers.completion(rationale, answer)
    if form == "think":
        return f"<think>\n{rationale.strip()}\n</think>\n\n{answer.strip()}"
    return answer.strip()


def families(parents: pl.DataFrame) -> dict[str, str]:
    """The family of every example that has one: written examples, their demonstrations, and so on, all together.

    `parents` is EXAMPLES, or its columns example_id and parents. A family is named by its first member.
    """
    head: dict[str, str] = {}

    def top(member: str) -> str:
        while head.setdefault(member, member) != member:
            head[member] = head[head[member]]
            member = head[member]
        return member

    written = parents.filter(pl.col("parents").list.len() > 0)
    for child, demonstrations in written.select("example_id", "parents").iter_rows():
        for parent in demonstrations:
            low, high = sorted((top(child), top(parent)))
            head[high] = low
    return {member: top(member) for member in list(head)}


def kept_apart(train: Iterator[pl.DataFrame], validation: Blocks, *, family: Mapping[str, str]) -> dict[str, str]:
    """Why rows may not be in the validation part, by example_id: their prompt or one of their family is in train.

    `train` are blocks with prompts of the rows that are kept.
    """
    wanted = {texts.normalised(prompt) for rows in validation() for prompt in rows["prompt"]}
    taken, related = set(), set()
    for rows in train:
        taken |= {text for text in map(texts.normalised, rows["prompt"]) if text in wanted}
        related |= {family[example] for example in rows["example_id"] if example in family}
    said = {}
    for rows in validation():
        for example, prompt in rows.select("example_id", "prompt").iter_rows():
            if texts.normalised(prompt) in taken:
                said[example] = "prompt_in_train"
            elif family.get(example) in related:
                said[example] = "family_in_train"
    return said


_READ = pl.col("prompt", "rationale", "answer")
_ABOUT_TEXTS = {
    "bytes": pl.sum_horizontal(_READ.str.len_bytes().cast(_I)),
    "marked": pl.any_horizontal(_READ.str.contains(CONTROL_TOKEN.pattern)),
    "referenced": pl.col("reference").is_not_null(),
    "reasoned": pl.col("rationale").str.strip_chars() != "",
}


def judged(some: pl.DataFrame, *, options: Options, apart: Mapping[str, str] | None = None) -> pl.DataFrame:
    """Of each row why it is left out (null: it is not), and its lengths: reason, completion_tokens, n_tokens.

    `some` has example_id, prompt, rationale, answer; `apart` is as in `prepare`.
    """
    apart = apart or {}
    lengths = options.counter.measure(list(chats(some, options=options)))
    asked = some.select("example_id", "prompt", "rationale", "answer").iter_rows()
    reasons = [
        apart.get(example) or _reason(prompt, rationale=rationale, answer=answer, length=length.total, options=options)
        for (example, prompt, rationale, answer), length in zip(asked, lengths, strict=True)
    ]
    columns = {
        "reason": reasons,
        "completion_tokens": [length.trained for length in lengths],
        "n_tokens": [length.total for length in lengths],
    }
    return pl.DataFrame(columns, schema={"reason": _S, "completion_tokens": _I, "n_tokens": _I})


def _reason(prompt: str, *, rationale: str, answer: str, length: int, options: Options) -> str | None:
    if not prompt.strip():
        return "empty_prompt"
    if not answer.strip():
        return "empty_answer"
    if options.rationale == "think" and "think>" in rationale:
        return "think_tag_in_rationale"
    if options.max_length is not None and length > options.max_length:
        return "over_length"
    if options.counter.context is not None and length > options.counter.context:
        return "over_context"
    return None


def _right_split(rows: pl.DataFrame, *, part: Part) -> None:
    right = "train" if part == "train" else "dev"
    wrong = rows.filter(pl.col("split") != right)
    if wrong.height:
        first = wrong.row(0, named=True)
        raise ExportError(
            f"{wrong.height} of the {part} rows come from another split than {right!r}: "
            f"row {first['row_id']} is {first['split']!r}; eval rows are never exported"
        )


def quantiles(lengths: Sequence[int]) -> dict[str, int]:
    """p50, p95 (nearest rank) and max of the lengths, 0 for none."""
    ordered = sorted(lengths) or [0]
    at = {"p50": 50, "p95": 95, "max": 100}
    return {name: ordered[max(0, -(-percent * len(ordered) // 100) - 1)] for name, percent in at.items()}
