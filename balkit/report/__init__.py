"""What people read: frames as text, what calls cost."""

from balkit.report.spending import against, by_endpoint, cascades
from balkit.report.tables import table

__all__ = ["against", "by_endpoint", "cascades", "table"]
