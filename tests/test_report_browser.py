"""`balkit report` as people meet it: in a headless Chromium, clicked, searched, narrow, dark and on paper.

make test-browser                                   an installed chromium, or the one that BALKIT_CHROMIUM names
BALKIT_SCREENSHOTS=shots make test-browser          keeps a picture of each width and colour
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import report_pool

from balkit.pages import write_report
from balkit.pool import Pool

pytestmark = pytest.mark.browser

CHROMIUM = os.environ.get("BALKIT_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
#: As root, and so that the browser itself asks for nothing.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
VIEWS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1200, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1200, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="the extra `browser` is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium: install one, or name it in BALKIT_CHROMIUM")
    with playwright.sync_playwright() as running:
        found = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return report_pool.make(tmp_path_factory.mktemp("browser") / "pool")


@pytest.fixture(scope="module")
def first(pool: Pool) -> str:
    return str(pool.snapshots().sort("version")["run_id"][0])


@pytest.fixture(scope="module")
def file(pool: Pool, first: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    second = str(pool.snapshots().sort("version")["run_id"][-1])
    out = tmp_path_factory.mktemp("page") / "report.html"
    write_report(pool, out, run=first, compare=(first, second))
    return out


class Opened:
    """A page, and what it said and asked for meanwhile."""

    def __init__(self, context: Any, file: Path) -> None:
        self.page = context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.as_uri())

    def shown(self, selector: str) -> list[str]:
        """The texts of the elements that are seen."""
        return [one.inner_text() for one in self.page.locator(selector).all() if one.is_visible()]


@pytest.fixture(params=VIEWS)
def view(request: pytest.FixtureRequest, browser: Any, file: Path) -> Iterator[tuple[str, Opened]]:
    context = browser.new_context(**VIEWS[request.param])
    yield request.param, Opened(context, file)
    context.close()


@pytest.fixture
def opened(browser: Any, file: Path) -> Iterator[Opened]:
    context = browser.new_context(**VIEWS["light"])
    found = Opened(context, file)
    yield found
    assert found.said == []
    context.close()


def test_a_page_opens_in_silence_and_asks_for_nothing(view: tuple[str, Opened], file: Path) -> None:
    name, opened = view
    for box in opened.page.locator("details > summary").all():
        box.click()
    opened.page.fill("#row-search", "apple")
    if folder := os.environ.get("BALKIT_SCREENSHOTS"):
        opened.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
    assert opened.said == []
    assert opened.asked == [file.as_uri()]
    assert opened.page.title() == "balkit: pool"


def test_a_page_is_never_wider_than_the_window(view: tuple[str, Opened]) -> None:
    _, opened = view
    opened.page.fill("#row-search", "apple")
    wide = opened.page.evaluate("document.documentElement.scrollWidth")
    assert wide <= opened.page.evaluate("innerWidth")


def test_dark_is_dark_in_the_figures_too(browser: Any, file: Path) -> None:
    seen = {}
    for name in ("light", "dark"):
        context = browser.new_context(**VIEWS[name])
        page = Opened(context, file).page
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        ink = page.evaluate("getComputedStyle(document.querySelector('#map svg text')).fill")
        seen[name] = paper, ink
        context.close()
    assert seen["light"] == ("rgb(255, 255, 255)", "rgb(28, 28, 33)")
    assert seen["dark"] == ("rgb(22, 23, 27)", "rgb(232, 232, 238)")


def test_the_domain_filter_leaves_the_domains_that_fit_in_every_table(opened: Opened) -> None:
    opened.page.fill("#domain-filter", "TOOL")
    assert set(opened.shown("table.domains tbody th")) == {"tool"}
    assert opened.page.locator("#domain-count").inner_text() == "1 of 4"
    opened.page.fill("#domain-filter", "")
    assert len(opened.shown("#tail tbody tr")) == 4


def test_a_click_on_a_head_sorts_and_another_turns_it_round(opened: Opened) -> None:
    head = opened.page.locator("#tail thead th", has_text="Pool, real")
    first = "#tail tbody tr:first-child th"
    head.click()
    assert (head.get_attribute("aria-sort"), opened.shown(first)) == ("descending", ["fruit"])
    head.click()
    assert (head.get_attribute("aria-sort"), opened.shown(first)) == ("ascending", ["bird"])
    by_name = opened.page.locator("#tail thead th", has_text="Domain")
    by_name.focus()
    opened.page.keyboard.press("Enter")
    assert opened.shown(first) == ["tool"]


def test_one_stage_is_shown_at_a_time(opened: Opened) -> None:
    said = "[data-panel=quota-stage] > p"
    assert opened.shown(said)[0].startswith("Stage 2 asked for 12 rows")
    opened.page.select_option("#quota-stage", "1")
    assert [text[:7] for text in opened.shown(said)] == ["Stage 1"]


def test_layers_of_the_map_go_and_come_back(opened: Opened) -> None:
    layer = opened.page.locator("#keep-map-head")
    box = opened.page.locator("input[data-layer=head]")
    assert layer.evaluate("it => it.querySelectorAll('use').length") > 5
    box.uncheck()
    assert layer.evaluate("it => getComputedStyle(it).display") == "none"
    box.check()
    assert layer.evaluate("it => getComputedStyle(it).display") != "none"


def test_refused_samples_are_searched(opened: Opened) -> None:
    every = opened.page.locator(".sample").count()
    opened.page.fill("#refusal-filter", "pear")
    left = opened.shown(".sample")
    assert 0 < len(left) <= every
    assert all("pear" in text for text in left)
    assert opened.page.locator("#refusal-count").inner_text() == f"{len(left)} of {every} samples"
    opened.page.fill("#refusal-filter", "nothing like this")
    assert opened.shown(".sample") == []


def test_a_row_is_found_by_its_id_and_leads_to_its_call(opened: Opened, pool: Pool, first: str) -> None:
    row = pool.sql("SELECT * FROM lineage WHERE run_id = ? AND call_key <> 'given' LIMIT 1", [first]).row(0, named=True)
    opened.page.fill("#row-search", row["row_id"])
    (text,) = opened.shown("#row-results .row")
    assert row["snapshot_id"] in text
    assert row["call_key"][:16] in text
    assert opened.page.locator("#row-count").inner_text() == "1 of 24 rows"
    opened.page.fill("#row-search", "tool box")
    assert all("tool" in text for text in opened.shown("#row-results .row"))


def test_hostile_texts_are_texts(opened: Opened) -> None:
    opened.page.fill("#row-search", "<script>")
    assert any(report_pool.SCRIPT in text for text in opened.shown("#row-results .row"))
    opened.page.fill("#row-search", "\u05e9\u05dc\u05d5\u05dd")
    turned = opened.page.locator("#row-results bdi", has_text="\u05e9\u05dc\u05d5\u05dd").first
    assert turned.evaluate("it => getComputedStyle(it).direction") == "rtl"
    assert opened.page.locator("#row-results img, #refusals img, #refusals script").count() == 0
    assert report_pool.DOMAIN in opened.shown("#tail tbody th")
    assert opened.page.title() == "balkit: pool"


def test_a_bar_says_what_it_is_made_of(opened: Opened) -> None:
    bar = opened.page.locator("#quotas .bar:visible").first
    bar.scroll_into_view_if_needed()
    opened.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    bar.hover()
    tip = opened.page.locator("#tip")
    assert tip.is_visible()
    assert tip.inner_text().startswith("real: ")
    assert "quota: " in tip.inner_text()


def test_two_runs_stand_side_by_side(opened: Opened) -> None:
    text = opened.page.locator("#compare").inner_text()
    assert "Not both of their last students have answered eval" in text
    assert "balance.policy" in text


def test_paper_has_the_tables_and_no_controls(opened: Opened) -> None:
    opened.page.emulate_media(media="print", color_scheme="dark")
    assert opened.shown("nav, .control, #lookup") == []
    assert len(opened.shown("#tail tbody tr")) == 4
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert opened.page.locator("#tail .scroll").evaluate("it => getComputedStyle(it).overflow") == "visible"
    assert len(opened.page.pdf()) > 20_000
