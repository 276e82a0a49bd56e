"""The pool: examples, rationales, decisions and snapshots in one DuckDB file, append-only, versioned.

The only room that imports duckdb, and only when a pool is opened.
"""

from balkit.pool.commits import Commit
from balkit.pool.ingest import AddReport
from balkit.pool.overview import Overview
from balkit.pool.reads import View
from balkit.pool.reviewed import Reviewed
from balkit.pool.snapshots import Snapshot, SnapshotDraft, SnapshotScan
from balkit.pool.store import Pool
from balkit.pool.training import ANSWERED, answered, training_rows

__all__ = [
    "ANSWERED",
    "AddReport",
    "Commit",
    "Overview",
    "Pool",
    "Reviewed",
    "Snapshot",
    "SnapshotDraft",
    "SnapshotScan",
    "View",
    "answered",
    "training_rows",
]
