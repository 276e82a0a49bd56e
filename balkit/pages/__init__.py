"""One page of HTML that shows what a pool and its runs hold: `balkit report`."""

from balkit.pages.writing import Written, write_report

__all__ = ["Written", "write_report"]
