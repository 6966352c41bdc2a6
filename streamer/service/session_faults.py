"""What goes wrong in one session: the close code of its sender, and one place in the log.

Knows errors and close codes of RFC 6455. Knows no session from inside and no connection.
"""

import logging
from dataclasses import dataclass

from ..core.errors import TamulagError
from ..core.estimate import NotFinite
from ..protocol.ingest import BAD_DATA, IngestError

logger = logging.getLogger("tamulag.serve")

OURS = 1011
"""Close code: the fault is the server's."""

_REASON = "an error of this server ended the session: its log has the cause"


class SessionFault(TamulagError):
    """A session cannot go on, by an error that was raised in another process.

    Args:
        detail: What went wrong.
        trace: Traceback of the other process; "": the fault is the sender's.
    """

    def __init__(self, detail: str, trace: str = "") -> None:
        super().__init__(detail)
        self.trace = trace


@dataclass(frozen=True)
class Fault:
    """Why a sender is closed.

    Attributes:
        code: 1007 where its data are at fault, 1011 where this program is.
        reason: For the sender; of our own faults it says nothing.
    """

    code: int
    reason: str


def fault_of(error: Exception) -> Fault:
    """Return the close code and the reason of an error."""
    if isinstance(error, IngestError):
        return Fault(error.code, str(error))
    if isinstance(error, NotFinite) or (isinstance(error, SessionFault) and not error.trace):
        return Fault(BAD_DATA, str(error)[:100])
    return Fault(OURS, _REASON)


def log_fault(where: str, error: Exception, log: logging.Logger = logger) -> Fault:
    """Log an error once, ours with its traceback, and return what its sender is closed with.

    Args:
        where: Session or sender.
        error: That ended it.
        log: That takes the line.
    """
    fault = fault_of(error)
    if fault.code != OURS:
        log.warning("%s is closed: %s", where, fault.reason)
    elif isinstance(error, SessionFault):
        log.error("%s is closed, the others go on: %s\n%s", where, error, error.trace)
    else:
        log.error("%s is closed, the others go on", where, exc_info=error)
    return fault
