"""Frames as text for people."""

from balkit.report.tables import table

__all__ = ["table"]
