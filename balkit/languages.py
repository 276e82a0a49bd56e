"""Which natural language a text is in: offline, by byte n-grams, and silent where it is not sure.

What is in no language (formulas, LaTeX, code, addresses, numbers) is taken out first. py3langid is loaded at the first
text. Texts are told apart by their language, not by their domain, so that a short or odd text counts as unknown.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from balkit.errors import need

#: Probability from which a language is named. Of 12,085 English texts (MATH, R52, the quickstart's tickets) none is
#: called another language from 0.9 on, and 2 are from 0.7 on (docs/benchmarks.md).
SURE = 0.9
_LETTERS = 20  # fewer say nothing; a sign of Chinese, Japanese or Korean is worth four
_READ = 2000  # characters of a text that are looked at

_NO_LANGUAGE = re.compile(
    r"```.*?```|\$\$.*?\$\$|\$[^$]*\$|\\\[.*?\\\]|\\\(.*?\\\)|\[asy\].*?\[/asy\]|\\begin\{.*?\\end\{\w+\*?\}"
    r"|\\[A-Za-z]+|(?:https?://|www\.)\S+|\S+@\S+|[\d_^{}=+*/<>|&%#~\\-]+",
    re.DOTALL,
)
_DENSE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_WRITTEN_ALIKE = {"wuu": "zh", "yue": "zh", "pcm": "en"}  # told apart by too little to accuse a text of it


def language(text: str, *, sure: float = SURE) -> str | None:
    """The ISO 639 code of the language that a text is in, or None where no language reaches the probability `sure`.

    Raises `MissingExtra` without py3langid.
    """
    prose = _NO_LANGUAGE.sub(" ", text[:_READ])
    letters = sum(map(str.isalpha, prose)) + 3 * len(_DENSE.findall(prose))
    if letters < _LETTERS:
        return None
    together: dict[str, float] = {}
    for code, probability in _identifier().rank(prose):
        code = _WRITTEN_ALIKE.get(code, code)
        together[code] = together.get(code, 0.0) + probability
    best = max(together, key=together.__getitem__)
    return None if together[best] < sure or best == "zxx" else best


def spoken(texts: Sequence[str], *, share: float = 0.05) -> frozenset[str]:
    """The languages that at least `share` (0-1) of the texts with a sure language are in; empty where none has one.

    Raises `MissingExtra` without py3langid.
    """
    found = Counter(code for code in map(language, texts) if code is not None)
    return frozenset(code for code, count in found.items() if count >= share * found.total())


@lru_cache(maxsize=1)
def _identifier() -> Any:
    """Loaded once (50 ms); it is not changed by what it reads."""
    langid = need("py3langid.langid", extra="check")
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
