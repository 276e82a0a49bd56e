"""Where a run stands: followed while it goes, kept in its folder, and looked up from another process."""

from balkit.standing.keeping import Keeper
from balkit.standing.looking import RunStatus, Status, look
from balkit.standing.tracking import Meter, Standing, Tracker

__all__ = ["Keeper", "Meter", "RunStatus", "Standing", "Status", "Tracker", "look"]
