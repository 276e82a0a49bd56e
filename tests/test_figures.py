"""Figures: names that a drawing must not obey, and sizes that do not grow with the pool."""

from __future__ import annotations

from xml.etree import ElementTree

from balkit import figures

HOSTILE = ["font: 12px bold", "#0072b2", 'id="x" y', "url(#z)", 'href="#a"', "<b>bold</b>", "</text></svg>", "$x^2$"]


def texts(svg: str) -> list[str]:
    whole = svg.replace("xlink:href", "href")  # a page knows the prefix, an XML file has to declare it
    return [one.text or "" for one in ElementTree.fromstring(whole).iter("text")]


def test_the_names_of_domains_stand_in_a_figure_as_they_are() -> None:
    with figures.styled():
        figure = figures.tail({"real": [3] * len(HOSTILE)}, domains=HOSTILE, most=3)
        svg = figures.inline(figure, name="tail")
    assert [name for name in HOSTILE if name not in texts(svg)] == []


def test_a_figure_of_many_domains_is_no_larger_than_one_of_some_hundred_and_says_so() -> None:
    many = 2_000
    rows = {"real": [*range(many, 0, -1)], "synthetic": [7] * many, "repeats": [0] * many, "refused": [3] * many}
    with figures.styled():
        figure = figures.tail(rows, domains=[f"d{n}" for n in range(many)], most=many, least=3)
        svg = figures.inline(figure, name="tail")
    assert "2,000 domains, the largest of the pool first; 300 are drawn" in texts(svg)
    assert len(svg) < 100_000
