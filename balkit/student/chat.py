"""Texts to tokens: the one rendering that training, generation and scoring share.

A sequence is always `prompt_ids + completion_ids`:

    prompt_ids       the user's turn and the assistant's header, by the model's chat template
    completion_ids   the assistant's text, then EOS

The two parts are tokenised apart, so the boundary is a count of tokens and never a search in text. A model
without a chat template gets the plain one of Alpaca, after BOS where its tokenizer has one:

    ### Instruction:\\n{prompt}\\n\\n### Response:\\n

What looks like a control token in a prompt or a completion ("<|im_end|>") is tokenised as the text that it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from balkit.errors import StudentError

PLAIN_PROMPT = "### Instruction:\n{prompt}\n\n"
PLAIN_HEADER = "### Response:\n"

# Llama 3's templates write today's date unless given one: the same row would be other tokens tomorrow.
_TEMPLATE_VARIABLES = {"date_string": "26 Jul 2024"}


def prompt_ids(tokenizer: Any, prompts: Sequence[str]) -> list[list[int]]:
    """The tokens of each prompt up to where the assistant begins to speak."""
    if not tokenizer.chat_template:
        opening = _bos(tokenizer)
        return [opening + _plain(tokenizer, PLAIN_PROMPT.format(prompt=text) + PLAIN_HEADER) for text in prompts]
    return _rendered(tokenizer, prompts, header=True)


def completion_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of each assistant text, EOS last."""
    return [[*response_ids(tokenizer, text), eos_id(tokenizer)] for text in texts]


def response_ids(tokenizer: Any, text: str) -> list[int]:
    """The tokens of an assistant text without EOS: what IFD and loss are means over."""
    return _plain(tokenizer, text)


def opening_ids(tokenizer: Any) -> list[int]:
    """BOS and the assistant's header without a user's turn: the context in which PPL(y) is taken.

    BOS only where the model's own rendering begins with it, and once where the header does too (SmolLM2's BOS is
    ChatML's "<|im_start|>"). A rendering with neither has EOS stand in, as the mark between documents.
    """
    if not tokenizer.chat_template:
        return _bos(tokenizer) + _plain(tokenizer, PLAIN_HEADER)
    (spoken,) = _rendered(tokenizer, ["x"], header=True)
    (silent,) = _rendered(tokenizer, ["x"], header=False)
    header = spoken[len(silent) :] if spoken[: len(silent)] == silent else []
    bos = _bos(tokenizer)
    begins = spoken[:1] == bos and header[:1] != bos
    return (bos if begins else []) + header or bos or [eos_id(tokenizer)]


def rendered(tokenizer: Any, chats: Sequence[Sequence[Mapping[str, str]]], *, header: bool) -> list[list[int]]:
    """The tokens of each conversation by the chat template, with the assistant's next header where asked."""
    if not chats:
        return []
    batch = tokenizer.apply_chat_template(
        [[dict(message) for message in chat] for chat in chats],
        add_generation_prompt=header,
        tokenize=True,
        sanitize_control_tokens=True,
        **_TEMPLATE_VARIABLES,
    )
    return [list(ids) for ids in batch["input_ids"]]


def text_of(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of generated tokens, control tokens left out, without space around it."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)).strip()


def eos_id(tokenizer: Any) -> int:
    """The id that ends a completion; raises `StudentError` for a tokenizer without one."""
    if tokenizer.eos_token_id is None:
        raise StudentError(
            f"the tokenizer of {tokenizer.name_or_path!r} has no EOS token, so a student could not learn to stop: "
            "set `eos_token` in its tokenizer_config.json"
        )
    return int(tokenizer.eos_token_id)


def _rendered(tokenizer: Any, prompts: Sequence[str], *, header: bool) -> list[list[int]]:
    if not prompts:
        return []
    return rendered(tokenizer, [[{"role": "user", "content": text}] for text in prompts], header=header)


def _plain(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))


def _bos(tokenizer: Any) -> list[int]:
    return [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
