"""Receipts of erasures as signed JSON, which can be checked offline.

A receipt is JSON in the canonical form of RFC 8785. Where `[registry] receipt_key` names a key, it is signed by
Ed25519: `signature` covers everything else, the fingerprint of the key included. Without a key both are null.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from vectoracl.errors import ConfigError, InvalidInputError, without_context

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

VERSION = 1


class Signer:
    """Makes receipts of what is given, with the key of *pem*; unsigned ones where that is None."""

    def __init__(self, pem: str | None) -> None:
        self._key = None if pem is None else _private_key(pem)
        if pem is not None:
            canonical({})  # fails where the packages are missing, before anything is erased

    def receipt(self, content: Mapping[str, Any]) -> bytes:
        """Return *content* as a receipt; nothing without a key where the packages of the extra are missing."""
        if self._key is None and find_spec("rfc8785") is None:
            return b""
        signing = None if self._key is None else fingerprint(self._key.public_key())
        whole: dict[str, Any] = {"vectoracl_receipt": VERSION, **content, "key": signing}
        signature = None
        if self._key is not None:
            signature = base64.b64encode(self._key.sign(canonical(whole))).decode()
        return canonical({**whole, "signature": signature}) + b"\n"


@without_context
def canonical(content: Mapping[str, Any]) -> bytes:
    """Return *content* in the form of RFC 8785. Raises: ConfigError."""
    try:
        import rfc8785
    except ModuleNotFoundError:
        raise _missing() from None
    return rfc8785.dumps(dict(content))


def _missing() -> ConfigError:
    return ConfigError("Receipts need the extra `receipts`: pip install 'rfc8785>=0.1.4' 'cryptography>=42'")


@without_context
def _private_key(pem: str) -> Ed25519PrivateKey:
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ModuleNotFoundError:
        raise _missing() from None
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(
            "registry.receipt_key is not an Ed25519 private key in PEM without a password. Make one with "
            "`openssl genpkey -algorithm ed25519`."
        )
    return key


@without_context
def public_key(pem: str) -> Ed25519PublicKey:
    """Return the key of *pem*. Raises: InvalidInputError, ConfigError."""
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ModuleNotFoundError:
        raise _missing() from None
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidInputError(
            "The key is not an Ed25519 public key in PEM, as `openssl pkey -pubout` writes it.", field="key"
        )
    return key


def fingerprint(key: Ed25519PublicKey) -> str:
    """Return the SHA-256 of the raw public key as hex digits."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def check(data: bytes, key: Ed25519PublicKey | None) -> tuple[dict[str, Any], bool]:
    """Return the content of a receipt, and whether it is signed by *key*; False for one that is unsigned.

    Raises: InvalidInputError for a file that is not a receipt in canonical form, one that was changed, one that
    another key has signed, and a signed one without a *key* to compare with.
    """
    content = _parsed(data)
    signature = content.pop("signature")
    if signature is None and content["key"] is None:
        return content, False
    if key is None:
        raise InvalidInputError(
            "The receipt is signed. Pass the public key that you trust; its own word would prove nothing.", field="key"
        )
    if content["key"] != fingerprint(key) or not _signed(content, signature, key):
        raise InvalidInputError("The receipt was changed, or another key has signed it.", field="signature")
    return content, True


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        content = json.loads(data)
        whole = isinstance(content, dict) and canonical(content) == data.removesuffix(b"\n")
    except (ValueError, RecursionError):
        whole = False
    if not whole or content.get("vectoracl_receipt") != VERSION or not {"key", "signature"} <= set(content):
        raise InvalidInputError("The file is not a receipt in canonical form: it was changed or damaged.", field="file")
    return dict(content)


def _signed(content: Mapping[str, Any], signature: object, key: Ed25519PublicKey) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(base64.b64decode(str(signature), validate=True), canonical(content))
    except (ValueError, InvalidSignature):
        return False
    return True
