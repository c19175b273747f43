"""The certificates by which a server of one's own is trusted: `ca_file` in a store's configuration."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NamedTuple

from vectoracl.errors import ConfigError


class Authority(NamedTuple):
    """Certificates that are trusted, and no others: as PEM, and as a context that asks for them and the host's name."""

    pem: bytes
    context: ssl.SSLContext


def authority(base: Path, file: Path | None) -> Authority | None:
    """Read *file*, relative to *base*; None where none is named: those that the machine trusts count then.

    Raises: ConfigError where it cannot be read, or holds no certificate.
    """
    if file is None:
        return None
    try:
        pem = (base / file).read_bytes()
        if b"-----BEGIN CERTIFICATE-----" not in pem:  # an empty text would mean those that the machine trusts
            raise ValueError
        # Around a certificate there may be any text, in any encoding: of what is trusted, all is ASCII.
        text = pem.decode("ascii", "ignore")
        return Authority(text.encode(), ssl.create_default_context(cadata=text))
    except (ValueError, ssl.SSLError):  # before OSError, of which SSLError is one
        problem = "it holds no whole certificate in PEM form"
    except OSError as error:
        problem = error.strerror or type(error).__name__
    raise ConfigError(
        f"ca_file cannot be used ({problem}). Name a PEM file with the certificate of the authority that signed the "
        "server's, relative to the configuration's folder."
    )
