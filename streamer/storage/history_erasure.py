"""Take deleted rows off the disk: free pages, and the write-ahead log with what it still holds.

Knows SQLite's log and who keeps it. Knows no table.

While another program reads, SQLite keeps the state that it began to read, words included: in the
log, or in the file where the log was not written back yet. That is finished at the next open.
"""

import sqlite3
from contextlib import suppress


def shrink(db: sqlite3.Connection) -> bool:
    """Return free pages and the log to the disk; False: somebody who reads kept it from that.

    Raises:
        sqlite3.Error: If the file cannot be written.
    """
    # A script, because `execute` runs a single step of it, which frees one page.
    db.executescript("PRAGMA incremental_vacuum")
    return _empty_log(db)


def finish(db: sqlite3.Connection, busy_timeout: float) -> None:
    """Overwrite what an earlier `shrink` had to leave, if nobody reads now; waits for nobody.

    Args:
        db: The history, just opened.
        busy_timeout: Seconds that it waits for others in all that follows.
    """
    db.execute("PRAGMA busy_timeout = 0")
    with suppress(sqlite3.Error):  # A full disk can be read none the less.
        _empty_log(db)
    db.execute(f"PRAGMA busy_timeout = {busy_timeout * 1000:.0f}")


def _empty_log(db: sqlite3.Connection) -> bool:
    is_busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not is_busy
