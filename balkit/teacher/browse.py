"""Looking into the ledger: one request, the parts of its key, why it was or was not bought, what came back."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from balkit.errors import PoolError
from balkit.teacher.calls import Ledger
from balkit.teacher.protocol import PARTS, Reply

_ATTEMPT = (
    "attempt run_id domain stage example_id input_picousd output_picousd cost_microusd batch "
    "outcome text finish_reason input_tokens output_tokens author provider_id error raw"
)
_SHOWN = 8  # lines of a difference between two texts


def listed(ledger: Ledger) -> pl.DataFrame:
    """CALLS, with `status` `open` for what is in a batch that was not fetched."""
    calls = ledger.calls()
    ledger.batches.load()
    held = [key for key in calls["key"].unique() if ledger.batches.held(key)]
    is_open = pl.col("key").is_in(held) & (pl.col("status") == "unknown")
    return calls.with_columns(status=pl.when(is_open).then(pl.lit("open")).otherwise("status"))


def key_of(ledger: Ledger, start: str) -> str:
    """The one key that begins so. Raises `PoolError` where none or several do."""
    found = [row[0] for row in ledger.query("keys_like", (start, start + "g"))]
    if len(found) == 1:
        return str(found[0])
    if not found:
        raise PoolError(f"{ledger.path}: no request's key begins with {start!r}; `balkit calls list` shows them")
    shown = ", ".join(key[: len(start) + 6] for key in found[:5])
    raise PoolError(f"{ledger.path}: several keys begin with {start!r}: {shown} ...; give more of it")


def shown(ledger: Ledger, key: str) -> dict[str, Any]:
    """A request: `parts` (all that its key is made of), `attempts` with states and raw replies, `used_by` runs."""
    states: dict[int, list[dict[str, Any]]] = {}
    for attempt, state, at in ledger.query("events_at", (key,)):
        states.setdefault(attempt, []).append({"state": state, "at": at})
    attempts = [dict(zip(_ATTEMPT.split(), row, strict=True)) for row in ledger.query("attempts_at", (key,))]
    return {
        "key": key,
        "parts": _parts(ledger.query("body", (key,))[0][0]),
        "attempts": [one | {"states": states[one["attempt"]]} for one in attempts],
        "used_by": [row[0] for row in ledger.query("uses_at", (key,))],
    }


def explained(ledger: Ledger, key: str) -> dict[str, Any]:
    """Why a request was bought, and for whom it was a cache hit.

    `closest` is the stored request of the same purpose that was asked earlier and has the fewest other parts; of those
    the one whose messages are alike for longest. `differs` holds [there, here] by part, texts as lines of a diff.
    """
    body = shown(ledger, key)
    first = body["attempts"][0]
    lines = [f"run {first['run_id'][:12]} bought it: no stored request had this key"]
    for before, one in zip(body["attempts"], body["attempts"][1:], strict=False):
        why = before["error"] or before["states"][-1]["state"]
        lines.append(
            f"run {one['run_id'][:12]} made attempt {one['attempt']}: the one before brought no answer ({why})"
        )
    lines += [
        f"run {run_id[:12]} was answered from the ledger: every part of the key was equal" for run_id in body["used_by"]
    ]
    if body["attempts"][-1]["batch"] and body["attempts"][-1]["outcome"] is None:
        lines.append("it is in a batch that was not fetched; the next run fetches it and does not buy it again")
    return {"key": key, "why": lines, "closest": _closest(ledger, body["parts"], key=key, before=first["attempt"])}


def retry(ledger: Ledger, keys: Iterable[str]) -> dict[str, list[str]]:
    """Clear the way for a new attempt by the next run that needs these requests.

    `given_up`: it was in a batch; its attempt is `unknown` from now on and stays charged. `asked_again`: it failed or
    is unknown, so that the next run asks again anyway. `kept`: it has a paid reply, which nothing buys a second time.
    Raises `PoolLocked` while another process asks the teacher.
    """
    done: dict[str, list[str]] = {"given_up": [], "asked_again": [], "kept": []}
    with ledger.paying():
        for key in keys:
            attempt = ledger.batches.held(key)
            if attempt is not None:
                ledger.settle(attempt, Reply(attempt.request, "unknown", error="given up by `balkit calls retry`"))
                done["given_up"].append(key)
            else:
                done["kept" if ledger.cached([key]) else "asked_again"].append(key)
        ledger.flush()
    return done


def _parts(body: str) -> dict[str, Any]:
    return dict(zip(PARTS, json.loads(body), strict=True))


def _closest(ledger: Ledger, mine: dict[str, Any], *, key: str, before: int) -> dict[str, Any] | None:
    best: tuple[tuple[int, int, str], dict[str, Any]] | None = None
    text = _text(mine["messages"])
    for other, body, _ in ledger.query("asked_before", (mine["purpose"], key, before)):
        parts = _parts(body)
        different = [name for name in PARTS if parts[name] != mine[name]]
        rank = (len(different), -_alike(_text(parts["messages"]), text), other)
        if best is None or rank < best[0]:
            best = (rank, parts)
    if best is None:
        return None
    (_, _, other), parts = best
    differs = {name: _difference(parts[name], mine[name]) for name in PARTS if parts[name] != mine[name]}
    return {"key": other, "differs": differs}


def _alike(one: str, other: str) -> int:
    """Characters that both begin with."""
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _difference(there: Any, here: Any) -> Any:
    if not isinstance(there, list):
        return [there, here]
    lines = difflib.unified_diff(_text(there).split("\n"), _text(here).split("\n"), lineterm="", n=0)
    changed = [line for line in lines if not line.startswith(("---", "+++", "@@"))]
    more = [f"... {len(changed) - _SHOWN} more lines"] if len(changed) > _SHOWN else []
    return changed[:_SHOWN] + more


def _text(messages: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"{role}: {text}" for role, text in messages)
