"""What an installation has and lacks: packages, keys, folders, room, GPUs, a pool, a teacher that answers.

A check is `ok`, a `note` (something that only some work needs is not there), or `broken`. Keys are never read out.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Literal

from balkit.errors import BalkitError, PriceUnknown
from balkit.recipe import Caps, Rationale, Teacher

#: Extras that only gather others.
_GATHERING = ("all", "dev")
_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)(?:[^;]*)(?:;.*extra == [\"']([a-z]+)[\"'])?")

_LITTLE_DISK, _NO_DISK = 2 * 2**30, 64 * 2**20
_LITTLE_MEMORY = 2 * 2**30
_CALL_TIMEOUT_S = 60.0
_CALL_TOKENS = 16


@dataclass(frozen=True)
class Check:
    """What was looked at, how it is, what was found, and the command that mends it, if anything is to be mended."""

    name: str
    state: Literal["ok", "note", "broken"]
    said: str
    mend: str = ""


def look(pool: Path | None = None) -> Iterator[Check]:
    """Every check, one after the other; the GPU's imports torch, where it is installed. Sends nothing."""
    yield from _versions()
    yield from _keys()
    yield _folder("temporary files", Path(tempfile.gettempdir()), mend="set TMPDIR to a folder that can be written")
    yield _folder("model cache", _model_cache(), mend="set HF_HOME to a folder that can be written")
    yield _disk(pool or Path.cwd())
    yield _memory()
    yield _gpu()
    if pool is not None:
        yield _guarded(f"pool {pool}", lambda: _pool(pool), mend=f"balkit check {shlex.quote(str(pool))}")


def call(teacher: Teacher) -> Check:
    """One tiny request to the teacher, by the way that a run takes, paid but kept in no pool: latency and cost.

    Latency is in seconds, from the request to the whole reply.
    """
    name = f"call {teacher.model or teacher.name}"
    if teacher.transport in ("recorded", "offline"):
        return Check(name, "ok", f"transport {teacher.transport} asks nobody")
    return _guarded(name, lambda: _asked(name, teacher), mend="check model, key and base_url of the teacher")


def _guarded(name: str, check: Callable[[], Check], *, mend: str) -> Check:
    try:
        return check()
    except (BalkitError, OSError) as error:
        return Check(name, "broken", " ".join(str(error).split()), mend)


def _versions() -> Iterator[Check]:
    from balkit import __version__

    yield Check("Python", "ok", f"{platform.python_version()} ({sys.executable})")
    extras: dict[str, list[str]] = {}
    try:
        for line in metadata.requires("balkit") or ():
            if found := _REQUIREMENT.match(line):
                extras.setdefault(found[2] or "", []).append(found[1])
    except metadata.PackageNotFoundError:
        yield Check("balkit", "note", f"{__version__}, not installed by pip, so its extras cannot be listed")
        return
    yield _installed("balkit", extras.pop("", []), first=__version__, absent="broken", mend="pip install balkit")
    for extra, packages in extras.items():
        if extra not in _GATHERING:
            yield _installed(f"extra {extra}", packages, absent="note", mend=f"pip install 'balkit[{extra}]'")


def _installed(
    name: str, packages: list[str], *, absent: Literal["note", "broken"], mend: str, first: str = ""
) -> Check:
    found = {package: _version(package) for package in packages}
    missing = [package for package, version in found.items() if version is None]
    if missing:
        return Check(name, absent, f"not installed: {', '.join(missing)}", mend)
    told = ", ".join(f"{package} {version}" for package, version in found.items())
    return Check(name, "ok", f"{first}; {told}" if first else told)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _keys() -> Iterator[Check]:
    from balkit.teacher.providers import KEY_NAMES

    there = [name for name in KEY_NAMES.values() if os.environ.get(name)]
    absent = ", ".join(name for name in KEY_NAMES.values() if name not in there)
    if there:
        yield Check("keys", "ok", f"set: {', '.join(there)}; not set: {absent or 'none'}")
    else:
        yield Check("keys", "note", f"not set: {absent}", "export OPENAI_API_KEY=..., for a teacher at OpenAI")


def _model_cache() -> Path:
    """Where downloaded models lie, as huggingface_hub finds it."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()


def _folder(name: str, folder: Path, *, mend: str) -> Check:
    nearest = next(one for one in (folder, *folder.parents) if one.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        return Check(name, "broken", f"{folder} cannot be written: {error.strerror}", mend)
    made = "" if nearest == folder else ", made when it is needed"
    models = len(list(folder.glob("models--*")))
    return Check(name, "ok", f"{folder}{made}{f', {models} models' if models else ''}")


def _disk(folder: Path) -> Check:
    nearest = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    free = shutil.disk_usage(nearest).free
    state: Literal["ok", "note", "broken"] = "broken" if free < _NO_DISK else "note" if free < _LITTLE_DISK else "ok"
    return Check("disk", state, f"{_gib(free)} free at {nearest}", "make room on it" if state != "ok" else "")


def _memory() -> Check:
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(encoding="ascii"), re.MULTILINE)
        if found:
            free = int(found[1]) * 1024
            return Check("memory", "ok" if free >= _LITTLE_MEMORY else "note", f"{_gib(free)} available")
    try:
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return Check("memory", "note", "this system does not say")
    return Check("memory", "ok" if whole >= _LITTLE_MEMORY else "note", f"{_gib(whole)} in all")


def _gpu() -> Check:
    if util.find_spec("torch") is None:
        return Check("GPU", "note", "torch is not installed: no student can be trained", "pip install 'balkit[train]'")
    from balkit.student.devices import gpus

    try:
        found = gpus()
    except BalkitError as error:
        return Check("GPU", "broken", str(error), "pip install --force-reinstall torch")
    if found:
        return Check("GPU", "ok", ", ".join(f"{gpu.name}, {_gib(gpu.bytes)}" for gpu in found))
    if shutil.which("nvidia-smi"):
        return Check(
            "GPU", "note", "nvidia-smi is here, and torch sees no GPU", "nvidia-smi; see pytorch.org for torch"
        )
    return Check("GPU", "ok", "none; students are trained on the CPU")


def _pool(path: Path) -> Check:
    from balkit.pool import Pool
    from balkit.reconcile import calls_of

    pool = Pool.open(path)
    coverage, calls = pool.coverage(), calls_of(pool).height
    rows = int(coverage["train"].sum())
    said = f"version {pool.version}: {rows:,} train examples in {coverage.height} domains, {calls:,} teacher calls"
    if not os.access(path, os.W_OK):
        return Check(f"pool {path}", "note", f"{said}; the folder can be read only")
    return Check(f"pool {path}", "ok", f"{said} (balkit check proves every row)")


def _asked(name: str, teacher: Teacher) -> Check:
    from balkit.teacher import Ledger, Pace, Request, make_teacher, price_of
    from balkit.teacher.remote import load_litellm

    load_litellm()  # takes seconds, which are no latency
    one = teacher.model_copy(update={"transport": "litellm", "timeout_s": min(teacher.timeout_s, _CALL_TIMEOUT_S)})
    question = (("user", "Say ok."),)
    temperature = Rationale().temperature
    request = Request("rationale", one.name, one.model, question, "doctor", 0, _CALL_TOKENS, temperature)
    try:
        price_of(one.model, one.price)
        known = True
    except PriceUnknown:
        known = False
    with (
        tempfile.TemporaryDirectory(prefix="balkit-doctor-") as folder,
        Ledger(Path(folder) / "calls.sqlite") as ledger,
    ):
        door = ledger.door(
            make_teacher(one),
            run_id="doctor",
            price=one.price if known else "free",
            model=one.model,
            caps=Caps(calls=2),
            tries=1,
            pace=Pace(rate_limit_deadline_s=0.0),
        )
        began = time.perf_counter()
        (reply,) = door.ask([request])
        latency_s = time.perf_counter() - began
    if reply.outcome != "ok":
        return Check(name, "broken", reply.error, "check the model's name and what it takes")
    cost = f"${reply.cost_microusd / 1e6:.6f}" if known else "cost unknown (give teacher.price in the recipe)"
    tokens = f"{reply.input_tokens} + {reply.output_tokens} tokens"
    return Check(name, "ok", f"{reply.author} answered in {latency_s:.2f} s, {tokens}, {cost}")


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"
