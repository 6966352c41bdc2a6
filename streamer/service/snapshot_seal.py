"""Encrypt a session between two servers, so that only who has its resume key can have it opened.

Knows keys and bytes. Knows no file and nothing of what the bytes mean.

The resume key is 128 random bits, so HKDF derives from it what is needed, no slow function of
passwords. One server forgets the key when it ends; the next gets it from the sender. In between
the disk has a name and a sealed content, of which neither gives the key or the other.
"""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..core.errors import TamulagError

_FORM = b"tamulag handover 1"
"""Begins each sealed content, and is authenticated with it."""

_NONCE = 12
"""Bytes; a key seals a few contents, one for each restart of its session."""


class SealError(TamulagError):
    """This content was not sealed with that key, or it has changed since."""


def name_of(key: str) -> str:
    """Return the name under which the content of a resume key is found, 32 hexadecimal digits."""
    return _derived(key, b"name", 16).hex()


def seal(key: str, *parts: bytes) -> list[bytes]:
    """Return a content encrypted and authenticated with a resume key (AES-256-GCM).

    It is taken and given in parts, which follow each other: to join them would cost several times
    what the cipher does, and hundreds of sessions are sealed in a second.
    """
    nonce = os.urandom(_NONCE)
    cipher = Cipher(AES(_derived(key, b"content", 32)), GCM(nonce)).encryptor()
    cipher.authenticate_additional_data(_FORM)
    sealed = [cipher.update(part) for part in parts]
    return [_FORM, nonce, *sealed, cipher.finalize(), cipher.tag]


def unseal(key: str, sealed: bytes) -> bytes:
    """Return what `seal` was given, both joined.

    Raises:
        SealError: If it is of another key or form, cut off or changed.
    """
    if not sealed.startswith(_FORM):
        raise SealError("no sealed session")
    nonce, rest = sealed[len(_FORM) :][:_NONCE], sealed[len(_FORM) + _NONCE :]
    try:
        return AESGCM(_derived(key, b"content", 32)).decrypt(nonce, rest, _FORM)
    except (InvalidTag, ValueError):  # ValueError: the nonce is cut off
        raise SealError("another key, or changed bytes") from None


def _derived(key: str, use: bytes, size: int) -> bytes:
    """Return bytes of a key for one use, from which those for another cannot be computed."""
    return HKDF(SHA256(), size, salt=None, info=_FORM + b" " + use).derive(key.encode())
