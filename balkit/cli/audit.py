"""The command that looks for what is wrong with a data set: audit."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from balkit.cli.show import Json, frame_out, json_out, progress, say

if TYPE_CHECKING:
    from balkit.auditing import Audit, Fixed
    from balkit.tokens import Counter
    from balkit.vectors import Encoder

#: What the command ends with where something was found; 1 and 2 are for what went wrong.
FINDINGS = 3

_LARGE = 2**22  # bytes of files, from which on progress is worth a word


def register(app: typer.Typer) -> None:
    """Adds this module's command to the app."""
    app.command()(audit)


def _list_reasons(asked: bool) -> None:
    if asked:
        from balkit.auditing import REASONS

        width = max(map(len, REASONS))
        say("\n".join(f"{reason:{width}}  {about}" for reason, about in REASONS.items()))
        raise typer.Exit


def audit(
    sources: Annotated[
        list[str],
        typer.Argument(help="A pool's folder, or files and whatever else balkit add takes.", metavar="POOL|FILE..."),
    ],
    prompt: Annotated[str | None, typer.Option(help="A column, path or template, as balkit add takes.")] = None,
    answer: Annotated[str | None, typer.Option(help="The reference answer; of chats, the last turn.")] = None,
    rationale: Annotated[str | None, typer.Option(help="The worked answer.")] = None,
    domain: Annotated[str | None, typer.Option(help="The domain.")] = None,
    split: Annotated[
        str | None, typer.Option(help="The split: train, dev or eval; else the files' names tell it.")
    ] = None,
    kind: Annotated[
        Literal["number", "math", "choice", "label", "text"] | None,
        typer.Option(help="Of the answers; else told from them."),
    ] = None,
    labels: Annotated[str | None, typer.Option(help="The label set, with commas; else told from the rows.")] = None,
    student: Annotated[
        str | None, typer.Option(help="The student's tokenizer, for exact lengths: a folder, or a name on the hub.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Tokens of a row at most; else what the student reads, else 4,096.", min=1)
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A sentence-transformers model for meanings: a folder, or a name on the hub.")
    ] = None,
    semantic: Annotated[float | None, typer.Option(help="Cosine from which two prompts mean the same.")] = None,
    only: Annotated[str | None, typer.Option(help="Reasons to look for, with commas.")] = None,
    skip: Annotated[str | None, typer.Option(help="Reasons not to look for, with commas.")] = None,
    show: Annotated[int, typer.Option(help="Rows to print; --json prints all.", min=0)] = 50,
    fix: Annotated[
        bool, typer.Option("--fix", help="Of a pool: retire what was found in its train rows, as one version.")
    ] = False,
    held_out: Annotated[bool, typer.Option("--held-out", help="Let --fix touch dev and eval too.")] = False,
    exit_zero: Annotated[bool, typer.Option("--exit-zero", help="End with 0 whatever was found.")] = False,
    reasons: Annotated[
        bool, typer.Option("--reasons", callback=_list_reasons, is_eager=True, help="List the reasons and exit.")
    ] = False,
    as_json: bool = Json,
) -> None:
    """Look for what is wrong with a data set: answers, labels, rationales, duplicates, leaks, lengths, languages.

    Ends with 0 where nothing was found or all of it was retired, 3 where something was. docs/audit.md tells of every
    reason.

    Example: balkit audit train.jsonl test.jsonl --prompt question --answer answer --rationale cot
    """
    from balkit.auditing import audit as look
    from balkit.auditing import pool_of, retire

    source: object = sources if len(sources) > 1 else sources[0]
    pool = pool_of(source)
    if fix and pool is None:
        _refuse_fix(sources)
    large = sum(Path(one).stat().st_size for one in sources if Path(one).is_file()) > _LARGE
    with progress(quiet=as_json or not (large or pool is not None)) as notify:
        found = look(
            pool or source,
            prompt=prompt,
            answer=answer,
            rationale=rationale,
            domain=domain,
            split=split,
            kind=kind,
            labels=_listed(labels),
            tokens=_counter(student),
            max_tokens=max_tokens,
            encoder=_encoder(model),
            semantic=semantic,
            only=_listed(only) or (),
            skip=_listed(skip) or (),
            notify=notify,
        )
    fixed = retire(pool, found, held_out=held_out) if fix and pool is not None else None
    if as_json:
        json_out(found.document() | ({} if fixed is None else {"fixed": asdict(fixed)}))
    else:
        _say(found, sources, show=show, fixed=fixed)
    done = found.clean or (fixed is not None and not fixed.left)
    raise typer.Exit(0 if done or exit_zero else FINDINGS)


def _say(found: Audit, sources: list[str], *, show: int, fixed: Fixed | None) -> None:
    summary = found.summary
    named = ", ".join(sources)
    about = f"{summary['kind']} answers{_columns(summary['columns'])}"
    if found.clean:
        say(f"{named}: nothing wrong in {summary['rows']:,} rows ({about})")
        return
    title = f"{named}: {summary['flagged']:,} of {summary['rows']:,} rows ({about})"
    frame_out(found.by_reason(), as_json=False, title=title)
    shown = found.findings if len(summary["files"]) > 1 else found.findings.drop("file")
    if show:
        import polars as pl

        rows = shown.head(show).with_columns(pl.col("example_id").str.head(12))
        frame_out(rows, as_json=False, title="\nrows, counted from 0")
    if shown.height > show:
        say(f"... and {shown.height - show:,} more; --json prints all")
    if fixed is not None:
        rejected = f", {fixed.rejected:,} worked answers rejected" if fixed.rejected else ""
        left = f"; {fixed.left:,} of dev and eval left (--held-out)" if fixed.left else ""
        say(f"version {fixed.version}: {fixed.retired:,} examples retired{rejected}, none deleted{left}")


def _columns(columns: list[dict[str, str]]) -> str:
    """Which columns were read, where all files have the same."""
    if not columns or any(one != columns[0] for one in columns):
        return ""
    told = (part if part == name else f"{part}: {name}" for part, name in columns[0].items())
    return f"; {', '.join(told)}".replace("\n", "\\n")


def _refuse_fix(sources: list[str]) -> None:
    from balkit.errors import BalkitError

    raise BalkitError(
        f"--fix retires examples of a pool, and {sources[0]} is none: files are never changed. Add the rows to a pool "
        "(balkit add) and audit that, or leave out the rows that --json names"
    )


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _counter(student: str | None) -> Counter | None:
    if student is None:
        return None
    from balkit.student import counter

    return counter(student)


def _encoder(model: str | None) -> Encoder | None:
    if model is None:
        return None
    from balkit.vectors import SentenceTransformers

    return SentenceTransformers(model)
