"""The section `card`: what the card of an exported data set says that the pool does not know."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints, field_validator

from balkit.recipe.sections import Section

Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")]

#: Stands for every domain, or every teacher, that is not named.
ANY = "*"


class Card(Section):
    """Terms and languages, as whoever owns the data states them (`exports`, target `hf`). They change no row.

    What is absent is called "not stated" in the card, and never guessed.
    """

    language: tuple[Language, ...] = Field(default=(), description="ISO 639 codes of the texts")
    license: str | None = Field(default=None, description="of the exported rows: an identifier that the hub knows")
    source_licenses: dict[str, str] = Field(
        default={}, description="of the texts that came from outside, by domain; `*` is any domain that is not named"
    )
    teacher_terms: dict[str, str] = Field(
        default={}, description="under which a teacher's texts may be used, by its model; `*` is any that is not named"
    )

    @field_validator("license")
    @classmethod
    def _license_says_something(cls, text: str | None) -> str | None:
        return text if text is None else _said(text, of="license")

    @field_validator("source_licenses", "teacher_terms")
    @classmethod
    def _terms_say_something(cls, terms: dict[str, str]) -> dict[str, str]:
        return {name: _said(text, of=repr(name)) for name, text in terms.items()}

    def source_license(self, domain: str) -> str | None:
        """The license of a domain's texts from outside; None where it was not stated."""
        return self.source_licenses.get(domain, self.source_licenses.get(ANY))

    def terms(self, model: str) -> str | None:
        """The terms of a teacher's texts; None where they were not stated."""
        return self.teacher_terms.get(model, self.teacher_terms.get(ANY))


def _said(text: str, *, of: str) -> str:
    if not text.strip():
        raise ValueError(f"{of} is empty; leave it out instead")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{of} holds a lone surrogate, which no file can") from None
    return text
