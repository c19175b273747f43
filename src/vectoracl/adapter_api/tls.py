"""Certificates that are trusted for a self-hosted server: `ca_file` in a store's configuration."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NamedTuple

from vectoracl.errors import ConfigError


class Authority(NamedTuple):
    """The only trusted certificates, as PEM, and as a context that requires them and checks the host's name."""

    pem: bytes
    context: ssl.SSLContext


def authority(base: Path, file: Path | None) -> Authority | None:
    """Read *file*, relative to *base*; None if there is no file: then the certificates of the system count.

    Raises: ConfigError if it cannot be read or holds no certificate.
    """
    if file is None:
        return None
    try:
        pem = (base / file).read_bytes()
        if b"-----BEGIN CERTIFICATE-----" not in pem:  # an empty text would mean the certificates of the system
            raise ValueError
        # Certificates are ASCII; the text around them may have any encoding.
        text = pem.decode("ascii", "ignore")
        return Authority(text.encode(), ssl.create_default_context(cadata=text))
    except (ValueError, ssl.SSLError):  # before OSError, the base class of SSLError
        problem = "it contains no complete certificate in PEM form"
    except OSError as error:
        problem = error.strerror or type(error).__name__
    raise ConfigError(
        f"ca_file cannot be used ({problem}). Pass a PEM file, relative to the configuration's folder, with the "
        "certificate of the authority that signed the server's."
    )
