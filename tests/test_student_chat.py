"""Texts to tokens, apart from what training, scoring and generation say of it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from student_toys import small_base

from balkit.student import chat, model


@pytest.mark.parametrize("template", ["own", "none"])
def test_a_text_beyond_the_context_is_tokenised_without_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, template: str
) -> None:
    tokenizer = model.load_tokenizer(small_base(tmp_path / "base"))
    if template == "none":
        tokenizer.chat_template = None
    logging.getLogger("transformers").addHandler(caplog.handler)  # it does not pass its records on
    try:
        (ids,) = chat.prompt_ids(tokenizer, ["red " * 200])
    finally:
        logging.getLogger("transformers").removeHandler(caplog.handler)
    assert len(ids) > tokenizer.model_max_length
    assert caplog.text == ""
