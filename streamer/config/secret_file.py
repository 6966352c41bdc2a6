"""Read a password or a token from a file that nobody else can read.

Knows files and their permissions. Knows not what a secret opens, and never prints one.
"""

import os
import stat
from pathlib import Path

from ..core.errors import TamulagError

MAX_BYTES = 4096


class SecretError(TamulagError):
    """A secret cannot be used; the text names the file and the remedy, never the secret."""


def read_secret(path: Path) -> str:
    """Return the text of a file without the white space around it.

    Files of systemd's credentials folder may be group-readable, because ACLs appear that way in the
    mode; the folder itself is closed.

    Raises:
        SecretError: If the file cannot be read, is empty, longer than 4096 bytes or no text, or if
            its permissions let others read it.
    """
    try:
        with path.open("rb") as file:
            # The mode of the open file is checked: the path could name another file by now.
            _check_mode(path, os.fstat(file.fileno()).st_mode)
            content = file.read(MAX_BYTES + 1)
        secret = content.decode("utf-8-sig").strip()
    except OSError as error:
        raise SecretError(f"cannot read {path} ({error.strerror}): give a readable file") from None
    except UnicodeDecodeError:
        raise SecretError(f"{path} is no UTF-8 text: put the secret there as one line") from None
    if not secret or len(content) > MAX_BYTES or "\n" in secret:
        raise SecretError(f"{path} holds no secret: put it there as one line, {MAX_BYTES} bytes")
    return secret


def _check_mode(path: Path, mode: int) -> None:
    if os.name != "posix":
        return
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    is_credential = credentials is not None and path.resolve().is_relative_to(credentials)
    open_to = stat.S_IRWXO if is_credential else stat.S_IRWXO | stat.S_IRWXG
    if mode & open_to:
        raise SecretError(
            f"{path} has mode {stat.S_IMODE(mode):04o}, so that others can read or change it: "
            f"chmod 600 {path}"
        )
