"""`vectoracl conformance`: the command of the conformance kit, imported only when it is run."""

from __future__ import annotations

import typer

from vectoracl._util import install_hints
from vectoracl.errors import ConfigError


def conformance(context: typer.Context) -> None:
    """Certify an adapter: attack it, and report the evidence that it withstood.

    [b]conformance NAME[/b] takes an installed adapter, [b]conformance MODULE:HARNESS[/b] your own.
    [b]conformance --help[/b] lists its options.
    """
    try:
        from vectoracl_conformance.cli import start
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("vectoracl_conformance"):
            raise
        raise ConfigError(
            f"The conformance kit is not installed. To install it: {install_hints.cure('vectoracl-conformance')}"
        ) from None
    start(context.args)
