"""What a run has spent, for whoever only looks on: the ledger is read as it is, never made, mended or locked."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from balkit.teacher.caps import Amount, Spent, Totals
from balkit.teacher.ledger_file import sql


def spent_so_far(path: Path, run_id: str) -> Spent | None:
    """What all attempts of a run are charged until now; None where there is no ledger or it cannot be read now."""
    if not path.exists():
        return None
    totals = Totals()
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True, timeout=1)) as db:
            for stage, domain, *amount in db.execute(sql("spent"), (run_id,)):
                totals.add(Amount(*amount), stage=stage, domain=domain)
    except sqlite3.Error:
        return None
    return totals.spent()
