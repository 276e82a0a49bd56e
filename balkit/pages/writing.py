"""The page as a file: what is in it is gathered, rendered, kept below its size, and written whole."""

from __future__ import annotations

import importlib.metadata
import math
import platform
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from balkit import figures
from balkit.errors import BalkitError, RunError, need
from balkit.pages import comparing, sections
from balkit.pages import rows as of_rows
from balkit.pages.accuracy import Students
from balkit.pages.reading import Run, named
from balkit.pages.sections import Section
from balkit.pool import Pool
from balkit.reconcile import calls_of
from balkit.runs import record_of, write

#: A page is smaller than this, in bytes.
LIMIT = 3_000_000

_REFUSED_EACH, _REFUSED_CHARS = 6, 400
_PACKAGES = ("duckdb", "polars", "numpy", "matplotlib", "jinja2", "torch", "transformers", "peft", "litellm")
_BARE: Section = {"said": "", "note": ""}
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # what is not seen, or changes how the rest is read
_JOINERS = "\u200c\u200d"  # which Persian, Hindi and emoji are spelled with


@dataclass(frozen=True)
class Written:
    """A page that was written. `notes` say what in it is a part of what there is."""

    file: Path
    bytes: int
    run_id: str | None
    notes: tuple[str, ...]
    plots: tuple[Path, ...] = ()


def write_report(
    pool: Pool,
    out: str | Path | None = None,
    *,
    run: str | None = None,
    compare: tuple[str, str] | None = None,
    plots: str | Path | None = None,
) -> Written:
    """Write one page of HTML, below 3 MB, that opens without a network: what a run did with a pool, and what it cost.

    out      the file, or the folder of a file `report.html`; the pool's folder if not given
    run      a run's id, its beginning or `latest`; the newest if not given. Without any run the page shows the pool
    compare  two runs, set side by side with paired differences; the page is of the second unless `run` is given
    plots    a folder for the figures as PNG and SVG

    Where there is more than a page holds it shows a part, and says so. Vectors that the map needs and the pool lacks
    are made. Raises `RunError` for a run that is not there, `MissingExtra` without the extra `report`.
    """
    need("jinja2", extra="report")
    file = pool.path if out is None else Path(out)
    file = file / "report.html" if file.is_dir() else file
    with figures.styled(), pool.held():
        pair = [name for one in compare or () if (name := named(pool, one)) is not None]
        if compare is not None and len(pair) < 2:
            raise RunError(f"{pool.path}: no run has chosen rows yet, so there is nothing to compare")
        run_id = named(pool, run) if run is not None or not pair else pair[1]
        told = _gathered(pool, run_id, pair=pair)
        html, shown = _rendered(told)
        saved = _plots(told, Path(plots)) if plots is not None else ()
    write(file, html)
    notes = [section["note"] for section in shown.values() if section.get("note")]
    lines = shown["lookup"]
    if lines.get("total", 0) > lines.get("shown", 0):
        notes.append(f"Of {lines['total']:,} rows {lines['shown']:,} can be looked up, drawn evenly over domains.")
    size = len(html.encode())
    if size >= LIMIT:
        notes.append(f"The page is larger than {LIMIT / 1e6:g} MB: it has many stages, or long names or texts.")
    return Written(file, size, run_id, tuple(dict.fromkeys(notes)), saved)


def visible(value: Any) -> Any:
    """A text without characters that are not seen or turn its order: a sign, or their number, stands for each."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    if value.isascii() and value.isprintable():
        return value
    return "".join(char if char in "\n\t" or not _hidden(char) else _sign(char) for char in value)


def _hidden(char: str) -> bool:
    return unicodedata.category(char) in _HIDDEN and char not in _JOINERS


def _sign(char: str) -> str:
    code = ord(char)
    return chr(0x2400 + code) if code < 32 else "\u2421" if code == 127 else f"[U+{code:04X}]"


def _gathered(pool: Pool, run_id: str | None, *, pair: list[str]) -> dict[str, Any]:
    """All sections of a page but the list of rows, with the head of it."""
    calls = calls_of(pool)
    run = None if run_id is None else Run.of(pool, run_id, calls=calls)
    coverage = pool.coverage(domain_set=run.recipe.domain_set if run and run.recipe else None)
    students = Students(pool)
    others = _others(pool, run_id)
    rows = of_rows.sample(run)
    both = [run if run and name == run_id else Run.of(pool, name, calls=calls) for name in pair]
    parts = {
        "compare": comparing.of_two(both[0], both[1], students=students) if both else {"names": []},
        "tail": sections.of_tail(run, coverage),
        "quotas": sections.of_quotas(run),
        "map": of_rows.of_map(run, pool, drawn_rows=rows),
        "ifd": sections.of_ifd(run),
        "refusals": sections.of_refusals(run, each=_REFUSED_EACH, chars=_REFUSED_CHARS),
        "money": sections.of_money(run),
        "accuracy": sections.of_accuracy(run, students=students, others=others),
    }
    return {
        "run": run,
        "rows": rows,
        "parts": parts,
        "facts": _facts(pool, run, coverage),
        "recipe": _recipe(pool, run),
        "pool": pool,
    }


def _rendered(told: Mapping[str, Any]) -> tuple[str, dict[str, Section]]:
    """The page, with as many rows to look up as fit."""
    many = of_rows.ROWS
    while True:
        parts = told["parts"] | {"lookup": of_rows.of_rows(told["run"], drawn_rows=told["rows"], rows=many)}
        parts = {name: _BARE | section for name, section in parts.items()}
        html = _template().render(
            title=f"balkit: {told['pool'].path.name}", facts=told["facts"], recipe=_BARE | told["recipe"], s=parts,
            data=_data(parts["lookup"]), style=_text("report.css"), script=_text("report.js"), csp=_csp(),
        )  # fmt: skip
        if len(html.encode()) < LIMIT or not many:
            return html, parts
        many = many // 2 if many > 50 else 0


def _data(lookup: Section) -> Any:
    """The rows for the page's script, as JSON that cannot end its element."""
    rows = [[visible(value) for value in row] for row in lookup.get("rows", [])]
    body = {"columns": lookup.get("columns", ()), "rows": rows}
    return need("jinja2.utils", extra="report").htmlsafe_json_dumps(body, ensure_ascii=False)


@cache
def _template() -> Any:
    jinja2 = need("jinja2", extra="report")
    surroundings = jinja2.Environment(
        loader=jinja2.PackageLoader("balkit.pages"),
        autoescape=True,
        finalize=visible,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    surroundings.filters |= {"percent": _percent, "usd": _usd, "count": lambda n: f"{n:,}", "rows": _rows, "cut": _cut}
    return surroundings.get_template("report.html")


def _text(name: str) -> Any:
    """A file of ours that goes into the page as it is."""
    body = (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")
    return need("markupsafe", extra="report").Markup(body)


def _csp() -> str:
    """Nothing is fetched, and no script runs but ours."""
    import base64
    import hashlib

    script = str(_text("report.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _percent(fraction: float | None, digits: int = 1) -> str:
    return "–" if fraction is None else f"{100 * fraction:.{digits}f} %"


def _rows(number: int) -> str:
    return f"{number:,} row" + ("" if number == 1 else "s")


def _usd(amount: float | None) -> str:
    if amount is None:
        return "unknown"
    digits = 2 if amount >= 1 or not amount else 4 if amount >= 0.001 else 1 - math.floor(math.log10(amount))
    return f"${amount:,.{digits}f}"


def _cut(text: str | None, chars: int) -> str:
    said = text or ""
    return said if len(said) <= chars else said[: chars - 1] + "…"


def _others(pool: Pool, run_id: str | None) -> list[dict[str, Any]]:
    """The other runs, the newest first: run_id, stage and rows (of the last), recipe, name."""
    found = []
    for last in pool.snapshots().sort("stage").group_by("run_id").last().sort("version", descending=True).to_dicts():
        try:
            recipe = record_of(pool.path, run_id=last["run_id"]).name
        except BalkitError:
            recipe = ""
        name = f"{recipe} {last['run_id'][:8]}".strip()
        found.append(
            {"run_id": last["run_id"], "stage": last["stage"], "rows": last["rows"], "recipe": recipe, "name": name}
        )
    return [one for one in found if one["run_id"] != run_id]


def _facts(pool: Pool, run: Run | None, coverage: pl.DataFrame) -> list[tuple[str, str]]:
    real = coverage["real"].to_list()
    ends = f"{max(real, default=0):,} real examples, the smallest {min(real, default=0):,}"
    facts = [
        ("Pool", f"{pool.path.name}, version {pool.version}"),
        ("Train examples", f"{sum(real):,} real, {coverage['synthetic'].sum():,} written"),
        ("Other splits", f"{coverage['dev'].sum():,} dev, {coverage['eval'].sum():,} eval"),
        ("Domains", f"{len(real):,}; the largest has {ends}"),
    ]
    if run is None:
        return [*facts, ("Run", "none yet")]
    asked = f" of {run.recipe.budget_rows:,} asked for" if run.recipe else ""
    some = f", {len(run.stages_shown)} of them shown" if len(run.stages_shown) < len(run.stages) else ""
    kinds = ", ".join(f"{run.rows[kind].sum():,} {kind}" for kind in ("real", "synthetic", "repeats"))
    share = int(run.rows["examples"].sum()) / max(sum(run.counts.values()), 1)
    cost = int(run.calls["cost_microusd"].sum()) / 1e6
    return [
        *facts,
        ("Run", f"{run.name}, {len(run.stages)} of {run.stages_asked} stages{some}"),
        ("Rows", f"{int(run.snapshots['rows'][-1]):,}{asked}: {kinds}"),
        ("Share of the pool taken", f"{100 * share:.0f} % of its real examples"),
        ("Refused", _rows(int(run.refused["rows"].sum()))),
        ("Teacher", f"{run.calls.height:,} requests, {_usd(cost)}"),
    ]


def _recipe(pool: Pool, run: Run | None) -> Section:
    """The recipe as the pool keeps it, and the versions of what made the page and the students."""
    packages = []
    for name in _PACKAGES:
        try:
            packages.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            continue
    versions = [("balkit", importlib.metadata.version("balkit")), ("Python", platform.python_version()), *packages]
    made = datetime.now(UTC).isoformat(timespec="minutes")
    if run is None:
        return {"said": "No recipe has run on this pool.", "versions": versions, "made": made}
    try:
        text = re.sub(r"^\s*\n", "", (run.folder / "recipe.yaml").read_text(encoding="utf-8"))
    except OSError:
        text = ""
    record = run.record
    return {
        "text": text,
        "run_id": run.run_id,
        "digest": record.recipe_digest if record else "",
        "base_version": run.version,
        "started": record.started if record else "",
        "snapshots": run.snapshots.select("stage", "snapshot_id", "rows", "digest").to_dicts(),
        "versions": versions,
        "made": made,
    }


def _plots(told: Mapping[str, Any], folder: Path) -> tuple[Path, ...]:
    """Every figure as PNG and as SVG."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for section in told["parts"].values():
        for one in section.get("figures", ()):
            for end in (".png", ".svg"):
                figures.save(one["figure"], folder / f"{one['name']}{end}")
                written.append(folder / f"{one['name']}{end}")
    return tuple(written)
