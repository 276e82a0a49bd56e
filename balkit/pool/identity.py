"""The digests of `texts` for whole columns: the same hex digits, made by polars where the text is plain.

Plain is ASCII without control characters other than tab and line end. Any other text goes through `texts` itself, one
by one: Unicode's tables differ between libraries, and an identity may not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import polars as pl

from balkit import texts

#: Texts with one of these go through `texts`.
_NOT_PLAIN = r"[^\t\n\r -~]"

#: What the rules call a sign: neither letter, digit, underscore nor space.
_SIGNS = [sign for sign in map(chr, range(33, 127)) if not sign.isalnum() and sign != "_"]

_ESCAPES = (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\t", "\\t"), ("\r", "\\r"))


def canonical(column: pl.Series) -> pl.Series:
    """`texts.canonical` of every text; nulls stay."""
    return _by_kind(column, plain=_canonical, other=texts.canonical)


def prompt_keys(prompts: pl.Series) -> pl.Series:
    """The digests of `texts.normalised` of every prompt, by which leaks are found."""
    normalised = _by_kind(prompts, plain=_normalised, other=texts.normalised)
    found = _sha256(normalised.to_frame().select(_json(pl.col(normalised.name))).to_series())
    rows = _odd_rows(normalised)
    return found.scatter(rows, [texts.digest(text) for text in normalised[rows]]) if len(rows) else found


def digests(frame: pl.DataFrame) -> pl.Series:
    """`texts.digest` of every row as a list of its cells: texts, integers, or nulls."""
    cells = [_cell(name, dtype) for name, dtype in frame.schema.items()]
    made = pl.concat_str(pl.lit("["), pl.concat_str(cells, separator=","), pl.lit("]"))
    found = _sha256(frame.select(made.alias("digest")).to_series())
    odd = [pl.col(name).str.contains(_NOT_PLAIN) for name, dtype in frame.schema.items() if dtype == pl.String]
    rows = frame.select(pl.any_horizontal(pl.lit(False), *odd).fill_null(False).alias("odd"))["odd"].arg_true()
    if not len(rows):
        return found
    return found.scatter(rows, [texts.digest(list(row)) for row in frame[rows].iter_rows()])


def example_ids(prompts: pl.Series, references: pl.Series) -> pl.Series:
    """`texts.example_id` of every pair."""
    return digests(pl.DataFrame({"prompt": canonical(prompts), "reference": canonical(references)}))


def _canonical(text: pl.Series) -> pl.Series:
    text = text.str.replace_all("\r\n", "\n", literal=True).str.replace_all("\r", "\n", literal=True)
    return _where(text, r"[ \t]\n", _without_line_ends).str.strip_chars(" \t\n")


def _without_line_ends(text: pl.Series) -> pl.Series:
    return text.str.replace_all(r"[ \t]+\n", "\n")


def _normalised(column: pl.Series) -> pl.Series:
    """`texts.normalised` for ASCII, without looking around: what stands beside a sign is matched and put back."""
    text = column.str.to_lowercase()
    signed = text.str.contains(r"[0-9]") | ~text.str.contains(r"[a-z]")
    words = text.filter(~signed).str.replace_all(r"[^a-z0-9]+", " ").str.strip_chars(" ")
    folded = text.filter(signed)
    bare = folded.str.replace_all(r"[${}]|\\(?:left|right)\b|\\[!,;: ]", "")
    bare = bare.str.replace_many([f".{digit}" for digit in range(10)], [f"\0{digit}" for digit in range(10)])
    bare = bare.str.replace_all(r"[\"'`?;:,.]", " ").str.replace_all("\0", ".", literal=True)
    bare = _where(bare, r"[!()\[\]]", _without_prose_signs)
    bare = _one_space(bare).str.replace_many([f" {sign}" for sign in _SIGNS], _SIGNS)
    bare = bare.str.replace_many([f"{sign} " for sign in _SIGNS], _SIGNS)
    bare = bare.zip_with(bare != "", _one_space(folded))
    found = text.scatter((~signed).arg_true(), words).scatter(signed.arg_true(), bare)
    return found.rename(column.name)


def _without_prose_signs(text: pl.Series) -> pl.Series:
    text = text.str.replace_all(r"([a-z]{2})!+(\s|$)", "${1} ${2}")
    text = text.str.replace_all(r"(^|\s)[(\[]([a-z]{2})", "${1} ${2}")
    return text.str.replace_all(r"([a-z]{2})[)\]](\s|$)", "${1} ${2}")


def _one_space(text: pl.Series) -> pl.Series:
    return text.str.replace_all(r"[ \t\n\r]+", " ").str.strip_chars(" ")


def _where(text: pl.Series, pattern: str, change: Callable[[pl.Series], pl.Series]) -> pl.Series:
    """The texts, changed where the pattern is found."""
    rows = text.str.contains(pattern).arg_true()
    return text.clone().scatter(rows, change(text[rows])) if len(rows) else text


def _by_kind(column: pl.Series, *, plain: Callable[[pl.Series], pl.Series], other: Callable[[str], str]) -> pl.Series:
    rows = _odd_rows(column)
    if not len(rows):
        return plain(column)
    held = column.clone().scatter(rows, "")  # `scatter` changes its series
    return plain(held).scatter(rows, [other(text) for text in column[rows]])


def _odd_rows(column: pl.Series) -> pl.Series:
    return column.str.contains(_NOT_PLAIN).fill_null(False).arg_true()


def _cell(name: str, dtype: pl.DataType) -> pl.Expr:
    text = _json(pl.col(name)) if dtype == pl.String else pl.col(name).cast(pl.String)
    return pl.when(pl.col(name).is_null()).then(pl.lit("null")).otherwise(text)


def _json(text: pl.Expr) -> pl.Expr:
    """Plain text as JSON."""
    for sign, escaped in _ESCAPES:
        text = text.str.replace_all(sign, escaped, literal=True)
    return pl.concat_str(pl.lit('"'), text, pl.lit('"'))


def _sha256(column: pl.Series) -> pl.Series:
    found = [hashlib.sha256(text.encode()).hexdigest() for text in column]
    return pl.Series("digest", found, dtype=pl.String)
