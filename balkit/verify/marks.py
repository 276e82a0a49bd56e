"""What no example should hold: refusals, and the control tokens of chat templates. One table for all who look."""

from __future__ import annotations

import re

_CANNOT = (
    r"\bi(?: (?:cannot|can['’]?t|won['’]?t|will not|could not)|(?:['’]?m| am) (?:unable|not able) to)"
    r" (?:help|assist|comply|fulfil+|provide|create|generate|produce|write|do that|answer|continue|complete|solve"
    r"|determine|offer|discuss|engage)\b"
)
_SORRY = r"(?:(?:i['’]?m (?:very |truly |so )?|i am (?:very )?)?(?:sorry|afraid)\b|i apologi[sz]e\b)"
_SPEAKS_OF_ITSELF = r"\bas an ai (?:(?:language )?model|assistant)\b|\bas an ai, i\b|\bas a large language model\b"

#: A text that is a refusal from its first word on, or whose author speaks of itself as a model.
REFUSES = re.compile(rf"^\W*(?:{_SORRY}[^.\n]{{0,30}}?|unfortunately,? )?{_CANNOT}|{_SPEAKS_OF_ITSELF}", re.IGNORECASE)
#: Refusals anywhere in the first sentences of an answer. "I'm sorry, but your parcel is late" is none.
REFUSES_WITHIN = re.compile(
    rf"{_CANNOT}|{_SPEAKS_OF_ITSELF}"
    rf"|{_SORRY},? but i(?: (?:cannot|can['’]?t|won['’]?t|will not)\b|(?:['’]?m| am) (?:unable|not able) to\b)"
    r"|\bit is (?:not possible|impossible) (?:for me )?to (?:answer|assign|determine|classify)"
    r"|\b(?:against|violates?) (?:my|our|openai['’]s) (?:guidelines|policy|policies|programming)",
    re.IGNORECASE,
)
#: Control tokens of chat templates, bytes of a tokenizer, and characters that are no text.
CONTROL_TOKENS = re.compile(
    r"<[|｜][\w▁ /-]{2,40}[|｜]>|</?s>|\[/?INST\]|<</?SYS>>|<(?:bos|eos|pad|unk|start_of_turn|end_of_turn)>"
    r"|<unused\d+>|<0x[0-9A-Fa-f]{2}>|\[/?(?:AVAILABLE_TOOLS|TOOL_CALLS|SYSTEM_PROMPT)\]"
    r"|[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufffd\ufffe]"
)
