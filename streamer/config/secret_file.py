"""Files that nobody else can read: read a password or a token, create one for words.

Knows files and their permissions. Knows not what a secret opens, and never prints one.
"""

import contextlib
import os
import stat
from pathlib import Path

from ..core.errors import TamulagError

MAX_BYTES = 4096

MAX_LIST = 65536
"""Bytes of a file with many secrets."""


def owner_only(path: str, flags: int) -> int:
    """Open a file that is created for its owner alone (mode 0600); an `opener` of `open`."""
    return os.open(path, flags, 0o600)


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
    secret = _text(path, MAX_BYTES)
    if not secret or "\n" in secret:
        raise SecretError(f"{path} holds no secret: put it there as one line, {MAX_BYTES} bytes")
    return secret


def read_secrets(path: Path) -> dict[int, str]:
    """Return the lines of a file by their numbers, without empty ones and those of `# ...`.

    Raises:
        SecretError: As `read_secret` does, but that there may be many lines, 65536 bytes.
    """
    lines = enumerate(_text(path, MAX_LIST).splitlines(), start=1)
    kept = {number: line.strip() for number, line in lines}
    # A secret has no blank: one that begins with # is none of these.
    secrets = {n: line for n, line in kept.items() if line.partition(" ")[0] not in ("", "#")}
    if not secrets:
        raise SecretError(f"{path} holds no secret: put each there as a line, {MAX_LIST} bytes")
    return secrets


def check_key(path: Path) -> None:
    """Check that nobody else can read a private key, by the rules of `read_secret`.

    Raises:
        SecretError: If its permissions let others read it. One that is not there is no matter of
            this function.
    """
    with contextlib.suppress(OSError):
        _check_mode(path, path.stat().st_mode)


def check_folder(path: Path) -> None:
    """Check that a folder is ours, and that nobody else can enter it.

    Raises:
        SecretError: If it is not.
    """
    found = path.stat()
    if os.name != "posix":
        return
    if found.st_uid != os.geteuid():
        raise SecretError(f"{path} belongs to another user: name a folder of your own")
    if found.st_mode & (stat.S_IRWXO | stat.S_IRWXG):
        raise SecretError(
            f"{path} has mode {stat.S_IMODE(found.st_mode):04o}, so that others can enter it: "
            f"chmod 700 {path}"
        )


def _text(path: Path, most: int) -> str:
    """Return what a file holds, without white space around it; nothing if it is longer."""
    try:
        with path.open("rb") as file:
            # The mode of the open file is checked: the path could name another file by now.
            _check_mode(path, os.fstat(file.fileno()).st_mode)
            content = file.read(most + 1)
        return content.decode("utf-8-sig").strip() if len(content) <= most else ""
    except OSError as error:
        raise SecretError(f"cannot read {path} ({error.strerror}): give a readable file") from None
    except UnicodeDecodeError:
        raise SecretError(f"{path} is no UTF-8 text: put the secret there as one line") from None


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
