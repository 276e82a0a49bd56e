"""What is wrong with a data set, row by row, each finding with its reason: any pool, any file.

Nothing is changed; `retire` takes what was found in a pool out of use.
"""

from balkit.auditing.fixing import Fixed
from balkit.auditing.kinds import kind_of, label_set
from balkit.auditing.reading import Named, by_name, rows_of_files
from balkit.auditing.rows import REASONS, Rows
from balkit.auditing.running import MAX_TOKENS, Audit, Options, audit, pool_of, retire

__all__ = [
    "MAX_TOKENS",
    "REASONS",
    "Audit",
    "Fixed",
    "Named",
    "Options",
    "Rows",
    "audit",
    "by_name",
    "kind_of",
    "label_set",
    "pool_of",
    "retire",
    "rows_of_files",
]
