"""The final answer of a worked answer: reading it, comparing it, writing it.

A worked answer declares its final answer ("Answer: 42", "the correct topic is "earn"", `\\boxed{42}`, "(C)").
Only what is declared is read, and only as whole words: a label is never found inside another word, and prose
that merely mentions a label declares nothing.
"""

from balkit.answers.comparing import grouped, same
from balkit.answers.reading import completion, letter, offered, options, parse, restated

__all__ = ["completion", "grouped", "letter", "offered", "options", "parse", "restated", "same"]
