"""The keys and headers of an endpoint, and keeping them out of everything that is stored or shown."""

from __future__ import annotations

import itertools
import json
import os
import threading
import urllib.parse

from balkit import recipe
from balkit.errors import TeacherStopped

_NO_KEY = "unused"  # what a server of the user's own gets; the openai client insists on a key
_SECRET_NAMES = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")
_ERROR_CHARACTERS = 600
_SECRET_CHARACTERS = 8  # a shorter value stands in too many texts by chance


class Keys:
    """The keys that a recipe's teacher names, used in turn, and its headers.

    Raises `TeacherStopped` where a variable is not set, or a header's value cannot be sent.
    """

    def __init__(self, section: recipe.Teacher) -> None:
        self._keys = _keys(section)
        self._turns = itertools.cycle(self._keys)
        self._lock = threading.Lock()
        self.headers = _headers(section)
        hidden = [value for value in self.headers.values() if len(value) >= _SECRET_CHARACTERS]
        self._secrets = _secrets([*self._keys, *hidden])

    def next(self) -> str | None:
        """The key for the next request; None leaves it to the client, which knows the variable of its provider."""
        with self._lock:
            return next(self._turns)

    def first(self) -> str | None:
        """One and the same key: what was uploaded with a key can often be read with that key only."""
        return self._keys[0]

    def redacted(self, text: str) -> str:
        """The text without these keys, and without what looks like credentials in the environment."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def said(self, error: Exception) -> str:
        """What an error says, in one line, without keys."""
        return " ".join(self.redacted(str(error)).split())[:_ERROR_CHARACTERS]


def _keys(section: recipe.Teacher) -> list[str | None]:
    """A server of the user's own never gets a provider's key that the recipe does not name."""
    names = section.key_names()
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise TeacherStopped(
            f"the environment variable {', '.join(missing)} (teacher.api_key_env) is not set; export it and run again"
        )
    return [os.environ[name] for name in names] or [_NO_KEY if section.base_url else None]


def _headers(section: recipe.Teacher) -> dict[str, str]:
    """The headers with their values; no message names a value."""
    variables = section.header_variables()
    missing = [f"{variable} ({name})" for name, variable in variables.items() if not os.environ.get(variable)]
    if missing:
        raise TeacherStopped(
            f"the environment variable of a header is not set: {', '.join(missing)} of teacher.headers; "
            "export it and run again"
        )
    values = {
        name: os.environ[variables[name]].strip() if name in variables else value
        for name, value in section.headers.items()
    }
    bad = [name for name, value in values.items() if not (value.isascii() and value.isprintable())]
    if bad:
        raise TeacherStopped(f"teacher.headers: the value of {', '.join(bad)} is not plain printable ASCII")
    return values


def _secrets(keys: list[str | None]) -> list[str]:
    """The keys, and what looks like credentials in the environment; plain, in a URL and in JSON, the longest first."""
    found = {value for name, value in os.environ.items() if _is_secret(name, value)}
    found |= {key for key in keys if key is not None and key != _NO_KEY}
    found |= {urllib.parse.quote(value, safe="") for value in found}
    found |= {json.dumps(value, ensure_ascii=ascii_only)[1:-1] for value in found for ascii_only in (True, False)}
    return sorted(found, key=len, reverse=True)


def _is_secret(name: str, value: str) -> bool:
    named_so = any(part in name.upper() for part in _SECRET_NAMES)
    return (
        named_so
        and len(value) >= _SECRET_CHARACTERS
        and not value.startswith("/")
        and not any(c.isspace() for c in value)
    )
