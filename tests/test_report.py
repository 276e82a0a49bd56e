"""`balkit report`: one page, whole, small, closed to what stands in the pool, with every section."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
import report_pool
from small import Rule, make_pool, make_recipe
from typer.testing import CliRunner

from balkit import pages as made
from balkit.cli import app
from balkit.discovery import discover
from balkit.errors import RunError
from balkit.events import Event
from balkit.pages import rows, writing
from balkit.pages.reading import Run
from balkit.pool import Pool
from balkit.stages import run
from balkit.teacher import Scripted
from balkit.vectors import Vectors
from balkit.vectors.encoders import Hashing

SECTIONS = ["tail", "quotas", "map", "ifd", "refusals", "money", "accuracy", "lookup", "recipe"]
_VOID = {"meta", "link", "input", "br", "img"}


class Page(HTMLParser):
    """What a browser would find: elements, ids, texts, and what does not fit together."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.problems: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.problems += [f"{tag} is never closed" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> at {self.getpos()} closes nothing")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def ids(self) -> list[str]:
        return [attrs["id"] or "" for _, attrs in self.found if "id" in attrs]

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.found if name == tag]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return report_pool.make(tmp_path_factory.mktemp("pages") / "pool")


@pytest.fixture(scope="module")
def first(pool: Pool) -> str:
    """The id of the run that was trained."""
    return str(pool.snapshots().sort("version")["run_id"][0])


@pytest.fixture(scope="module")
def html(pool: Pool, first: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("html") / "report.html"
    made.write_report(pool, file, run=first[:10])
    return file.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


@pytest.mark.long
def test_every_element_is_closed_and_every_id_is_its_own(page: Page) -> None:
    assert page.problems == []
    assert len(page.ids()) == len(set(page.ids()))


def test_every_section_is_there_with_data(page: Page) -> None:
    assert [attrs["id"] for attrs in page.of("section")] == SECTIONS
    assert {"tail-pool", "tail-stage-1", "tail-stage-2", "map", "ifd", "money", "accuracy"} <= {
        name.split("-figure_1")[0] for name in page.ids() if name.endswith("-figure_1")
    }
    assert {attrs["data-domain"] for attrs in page.of("tr") if "data-domain" in attrs} == {
        "fruit", "tool", "bird", report_pool.DOMAIN,
    }  # fmt: skip


def test_a_page_fetches_nothing_and_runs_its_own_script_alone(page: Page, html: str) -> None:
    assert len(html.encode()) < writing.LIMIT
    assert {attrs["href"] for attrs in page.of("link")} == {"data:,"}
    assert not [attrs for _, attrs in page.found if "src" in attrs or any(name.startswith("on") for name in attrs)]
    assert all((attrs.get("xlink:href") or "#").startswith("#") for _, attrs in page.found)
    assert not re.search(r"url\((?!#)|@import|https?://", html)
    (policy,) = (attrs["content"] for attrs in page.of("meta") if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy
    assert policy.startswith("default-src 'none';")
    assert "script-src 'sha256-" in policy
    assert [attrs.get("type") for attrs in page.of("script")] == ["application/json", None]


def test_texts_of_the_pool_are_shown_and_never_obeyed(page: Page, html: str) -> None:
    assert report_pool.SCRIPT not in html
    assert report_pool.CLOSING not in html
    assert "{{ 7 * 7 }}" in html
    assert any(report_pool.CLOSING in text for text in page.texts)  # of a refused worked answer
    assert "\u202e" not in html
    assert "[U+202E]" in html
    assert "\u05e9\u05dc\u05d5\u05dd" in html
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", html)


def test_what_is_not_seen_is_a_sign_where_no_word_needs_it() -> None:
    assert writing.visible("a\u200bb\x00\u2066c") == "a[U+200B]b\u2400[U+2066]c"
    persian, family = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\U0001f468\u200d\U0001f467"
    assert [writing.visible(word) for word in (persian, family)] == [persian, family]


def test_the_rows_to_look_up_are_all_there_and_lead_to_their_calls(html: str, pool: Pool, first: str) -> None:
    body = re.search(r'<script type="application/json" id="rows">(.*?)</script>', html, re.DOTALL)
    assert body
    held = json.loads(body[1])
    found = pl.DataFrame(held["rows"], schema=held["columns"], orient="row")
    expected = pool.sql("SELECT row_id, left(call_key, 16) AS call_key FROM lineage WHERE run_id = ?", [first])
    assert dict(found.select("row_id", "call_key").iter_rows()) == dict(expected.iter_rows())


def test_numbers_are_those_of_the_pool(html: str, pool: Pool, first: str) -> None:
    refused = pool.sql(
        "SELECT sum(rows)::BIGINT FROM rejections WHERE run_id = ? AND reason <> 'surplus'", [first]
    ).item()
    assert f"<dt>Refused</dt><dd><bdi>{refused} rows</bdi>" in html
    assert "24 of 24 asked for" in html
    usd = pool.sql("SELECT sum(cost_usd) FROM spend WHERE run_id = ?", [first]).item()
    assert f"{writing._usd(usd)} in all" in html


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """A run over discovered domains, with several worked answers an example."""
    said, pool = Rule(), make_pool(tmp_path_factory.mktemp("grouped") / "pool")
    discover(pool, Vectors(pool.path / "vectors", Hashing(dim=64)), domain_set="topics", k=2, min_rows=5)
    recipe = make_recipe(
        budget_rows=30, stages=1, domain_set="topics", balance={"policy": "natural"}, select={"first": "k_center"},
        rationale={"per_example": 3}, answers={"kind": "label", "labels": ["fruit", "tool", "bird"]},
    )  # fmt: skip
    teacher = Scripted(lambda request: f"By way {request.key[:6]}.\n{said(request)}")
    run(pool, recipe, teacher=teacher, train=False)
    made.write_report(pool)
    return pool


@pytest.mark.long
def test_the_share_of_the_pool_counts_examples_and_not_their_worked_answers(grouped: Pool) -> None:
    taken = grouped.sql("SELECT count(DISTINCT example_id) FROM lineage WHERE origin = 'source'").item()
    assert taken < 15
    share = f"{100 * taken / grouped.coverage()['real'].sum():.0f} % of its real examples"
    assert share in (grouped.path / "report.html").read_text(encoding="utf-8")


def test_domains_are_those_of_the_runs_set(grouped: Pool) -> None:
    assert "<dt>Domains</dt><dd><bdi>2; " in (grouped.path / "report.html").read_text(encoding="utf-8")


@pytest.mark.long
def test_a_run_that_is_not_through_has_a_page(tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if (event.stage, event.step) == (2, "data"):
            raise KeyboardInterrupt

    pool = make_pool(tmp_path / "pool")
    tiny = {"max_steps": 1, "batch_size": 4, "max_length": 128, "threads": 1}
    recipe = make_recipe(
        budget_rows=16, train=tiny, student={"layers": 1, "width": 16, "heads": 2, "vocabulary": 300, "context": 128},
        select={"first": "k_center", "response": "reference", "max_ifd": 9}, evaluate={"max_new_tokens": 1},
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        run(pool, recipe, teacher=Scripted(Rule()), notify=stop)
    assert pool.scores().height > 0
    made.write_report(pool, tmp_path / "report.html")
    assert "1 of 2 stages" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_run_without_training_and_a_pool_without_a_run_say_what_is_missing(pool: Pool, tmp_path: Path) -> None:
    made.write_report(pool, tmp_path / "untrained.html")
    untrained = (tmp_path / "untrained.html").read_text(encoding="utf-8")
    assert "No student of this run has answered the eval split" in untrained
    assert "No candidate of this run has an IFD" in untrained
    written = made.write_report(make_pool(tmp_path / "pool"), tmp_path / "pool.html")
    bare = (tmp_path / "pool.html").read_text(encoding="utf-8")
    assert written.run_id is None
    assert Page(bare).problems == []
    for said in ("No run has chosen rows", "Nothing was spent", "No student was trained", "No recipe has run"):
        assert said in bare
    made.write_report(Pool.create(tmp_path / "blank"), tmp_path / "blank.html")
    assert "The pool has no train examples yet" in (tmp_path / "blank.html").read_text(encoding="utf-8")


@pytest.mark.long
def test_two_runs_stand_side_by_side_with_paired_differences(pool: Pool, first: str, tmp_path: Path) -> None:
    second = str(pool.snapshots().sort("version")["run_id"][-1])
    written = made.write_report(pool, tmp_path / "two.html", compare=(first, second[:9]))
    two = (tmp_path / "two.html").read_text(encoding="utf-8")
    assert written.run_id == second
    assert Page(two).problems == []
    assert "Not both of their last students have answered eval" in two
    assert "<code>balance.policy</code>" in two
    made.write_report(pool, tmp_path / "same.html", compare=(first, first))
    same = (tmp_path / "same.html").read_text(encoding="utf-8")
    assert "the first alone 0, the second alone 0" in same
    assert "McNemar&#39;s p = 1" in same or "McNemar's p = 1" in same
    with pytest.raises(RunError, match="nothing to compare"):
        made.write_report(make_pool(tmp_path / "pool"), tmp_path / "no.html", compare=("latest", "latest"))


@pytest.mark.long
def test_a_page_with_too_many_rows_holds_fewer_and_says_so(
    pool: Pool, first: str, html: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "ROWS", 10)
    written = made.write_report(pool, tmp_path / "few.html", run=first)
    assert "Of 24 rows 10 can be looked up, drawn evenly over domains." in written.notes
    assert "10 of 24 rows are in this page" in (tmp_path / "few.html").read_text(encoding="utf-8")
    monkeypatch.setattr(writing, "LIMIT", len(html.encode()) - 1_000)
    monkeypatch.setattr(rows, "ROWS", 24)
    assert made.write_report(pool, tmp_path / "small.html", run=first).bytes < writing.LIMIT


@pytest.mark.long
def test_the_command_writes_the_page_beside_the_pool_and_figures_where_they_are_asked_for(
    pool: Pool, first: str, tmp_path: Path
) -> None:
    done = CliRunner().invoke(app, ["report", str(pool.path), first[:8], "--plots", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert told["file"] == str(pool.path / "report.html")
    assert Path(told["file"]).stat().st_size == told["bytes"]
    assert {Path(file).suffix for file in told["plots"]} == {".png", ".svg"}
    assert all(Path(file).stat().st_size > 1_000 for file in told["plots"])
    assert made.write_report(pool, tmp_path, run=first).file == tmp_path / "report.html"


def test_a_run_that_is_not_there_is_named(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"0 runs of .* have ids that begin with 'zz'; there are: "):
        made.write_report(pool, tmp_path / "no.html", run="zz")


def test_a_run_whose_recipe_cannot_be_read_keeps_its_name(pool: Pool, first: str, tmp_path: Path) -> None:
    copy = Pool.open(shutil.copytree(pool.path, tmp_path / "pool"))
    (copy.path / "runs" / first[:12] / "recipe.yaml").write_text("no: recipe", encoding="utf-8")
    found = Run.of(copy, first, calls=copy.calls())
    assert found.recipe is None
    assert found.name == f"small {first[:8]}"
