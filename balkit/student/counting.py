"""A tokenizer as a counter of tokens, for whoever must not import transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from balkit.errors import StudentError, need
from balkit.student import chat, model
from balkit.tokens import Chat, Counter, Length

_NO_LIMIT = 1 << 30  # tokenizers that know no limit say 10^30


def counter(source: str | Path) -> Counter:
    """The counter of a tokenizer: a folder of one (a student, a model), or a model's name on the hub.

    Conversations are counted as the tokenizer's chat template writes them; what looks like a control token in a text
    counts as the text that it is. The context is that of the config beside it, or the tokenizer's own limit. Raises
    `StudentError` for what is no tokenizer.
    """
    tokenizer = _loaded(source)
    return Counter(
        name=f"the tokenizer of {source}",
        exact=True,
        count=lambda text: len(chat.response_ids(tokenizer, text)),
        chats=(lambda chats: _lengths(tokenizer, chats)) if tokenizer.chat_template else None,
        context=_context(source, tokenizer),
    )


def _lengths(tokenizer: Any, chats: Sequence[Chat]) -> list[Length]:
    whole = chat.rendered(tokenizer, chats, header=False)
    before = chat.rendered(tokenizer, [each[:-1] for each in chats], header=True)
    return [Length(len(ids), len(ids) - len(prompt)) for ids, prompt in zip(whole, before, strict=True)]


def _loaded(source: str | Path) -> Any:
    folder = Path(source)
    own = ("tokenizer.json", "tokenizer_config.json", "manifest.json")
    if folder.is_file() or (folder.is_dir() and not any((folder / name).is_file() for name in own)):
        raise StudentError(f"tokenizer {source}: no such folder with a tokenizer.json in it, and no name on the hub")
    try:
        with model.quiet():
            if folder.is_dir():
                return model.load_tokenizer(folder)
            return need("transformers", extra="train").AutoTokenizer.from_pretrained(str(source))
    except (OSError, ValueError, KeyError) as error:
        said = str(error).strip().split("\n")[0]
        raise StudentError(
            f"tokenizer {source}: cannot be read ({said}); name a folder that holds tokenizer.json, or a hub name"
        ) from error


def _context(source: str | Path, tokenizer: Any) -> int | None:
    limits = [int(tokenizer.model_max_length)] if tokenizer.model_max_length < _NO_LIMIT else []
    try:
        config = need("transformers", extra="train").AutoConfig.from_pretrained(str(source))
        limits.append(model.context_of(config))
    except (OSError, ValueError):  # a folder with a tokenizer and no model
        pass
    known = [limit for limit in limits if limit < _NO_LIMIT]
    return min(known) if known else None
