"""A person's word on worked answers: cases in question, verdicts, and files of both.

A verdict is stored as DECISIONS (step `review`) and, where it changes something, as RATIONALES and an example of its
own, in one new version. Nothing is deleted: what was refused stays, and a verdict can be taken back by another.
"""

from balkit.review.cases import Case, cases, cases_of
from balkit.review.files import read_verdicts, write_cases
from balkit.review.judging import Known, Undone, Verdict, judge, problems_of, undo

__all__ = [
    "Case",
    "Known",
    "Undone",
    "Verdict",
    "cases",
    "cases_of",
    "judge",
    "problems_of",
    "read_verdicts",
    "undo",
    "write_cases",
]
