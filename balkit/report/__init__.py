"""What people read: frames as text, what calls cost, how far a run is."""

from balkit.report.live import progress
from balkit.report.spending import against, by_endpoint, cascades
from balkit.report.tables import printed, table
from balkit.report.tail import drawn

__all__ = ["against", "by_endpoint", "cascades", "drawn", "printed", "progress", "table"]
