"""How figures look, and how they are written: as files, or as SVG that takes the colours and letters of its page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from balkit.errors import need

#: By what they stand for (of Okabe and Ito, which colour-blind readers tell apart); a page names its own by `--<name>`.
COLOURS = {
    "ink": "#1c1c21",
    "faint": "#c4c4cc",
    "real": "#0072b2",
    "synthetic": "#e69f00",
    "repeats": "#8a8a93",
    "refused": "#d55e00",
    "chosen": "#009e73",
}

_STYLE = {
    "font.size": 8,
    "svg.hashsalt": "balkit",
    "text.color": COLOURS["ink"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.edgecolor": COLOURS["faint"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": COLOURS["ink"],
    "ytick.color": COLOURS["ink"],
    "legend.frameon": False,
    "legend.fontsize": 7.5,
}


@contextmanager
def styled() -> Iterator[None]:
    """Figures made and written inside look alike, whatever the user has set for matplotlib. Raises `MissingExtra`."""
    mpl = need("matplotlib", extra="report")
    need("matplotlib.figure", extra="report")
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that the font lacks: a box stands for each
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def blank(width: float, height: float, **more: Any) -> tuple[Any, Any]:
    """A figure of so many inches, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots(**more)
    return figure, axes


def save(figure: Any, file: Path) -> None:
    """Write an .svg or .png, on white; the same figure gives the same bytes of SVG."""
    metadata = {"Date": None} if file.suffix == ".svg" else {"Software": None}
    figure.savefig(file, metadata=metadata, dpi=200, facecolor="white")


def inline(figure: Any, *, name: str) -> str:
    """SVG to stand in a page: its colours by the page's variables, its letters the page's, its ids after `name`."""
    import matplotlib as mpl

    body = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none"}):
        figure.savefig(body, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = body.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r"<[^>]*>", lambda tag: _of_page(tag[0], name), svg)
    width = re.search(r'viewBox="0 0 ([\d.]+)', svg)
    size = f'class="figure" style="max-width: {float(width[1]) * 1.34:.0f}px"' if width else 'class="figure"'
    return re.sub(r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", rf"<svg \1 {size}>", svg, count=1).replace("\n", "")


def _of_page(tag: str, name: str) -> str:
    """A tag with the page's colours and letters, and ids of its own. Texts between tags, which name domains, stay."""
    for role, colour in COLOURS.items():
        tag = tag.replace(colour, f"var(--{role})")
    tag = re.sub(r'\bid="(?!keep-)', f'id="{name}-', tag)
    tag = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", tag)
    return re.sub(r"(font: [\d.]+px)[^;\"]*", r"\1 var(--font)", tag)
