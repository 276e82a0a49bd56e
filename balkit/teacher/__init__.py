"""Asking a large model: what is asked, who is asked, and the ledger that keeps and pays for every call."""

from __future__ import annotations

from balkit import recipe
from balkit.teacher.batch import Batch
from balkit.teacher.calls import Ledger
from balkit.teacher.caps import Spent
from balkit.teacher.door import Door, Progress
from balkit.teacher.glance import spent_so_far
from balkit.teacher.prices import price_of
from balkit.teacher.protocol import Reply, Request, Teacher
from balkit.teacher.recorded import Recorded
from balkit.teacher.retry import Pace
from balkit.teacher.scripted import Scripted

__all__ = [
    "Batch",
    "Door",
    "Ledger",
    "Pace",
    "Progress",
    "Recorded",
    "Reply",
    "Request",
    "Scripted",
    "Spent",
    "Teacher",
    "make_teacher",
    "price_of",
    "spent_so_far",
]


def make_teacher(section: recipe.Teacher) -> Teacher:
    """The transport that a recipe names. Nothing is sent and no key is read before the first request."""
    if section.transport == "recorded":
        assert section.file is not None
        return Recorded(section.file)
    if section.transport == "offline":
        from balkit.teacher.offline import Offline

        return Offline()
    if section.transport == "batch":
        return Batch(section)
    from balkit.teacher.remote import Remote

    return Remote(section)
