"""Operator access to a store, shared by `provision` and `tenants`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.text import Text

from vectoracl.adapter_api.contract import Operator
from vectoracl.cli.common import (
    opened,
    out,
    plain,
    print_json,
)
from vectoracl.client.connect import VectorACL


@contextmanager
def operating(config: Path, store: str | None) -> Iterator[tuple[VectorACL, Operator]]:
    """Open a configuration with the operator's access to a store; its posture is not checked."""
    with opened(config, store, contact=False) as acl:
        operator = acl.operator(store)
        try:
            yield acl, operator
        finally:
            operator.close()


def tell(lines: list[str], *, as_json: bool, stays: str = "") -> None:
    """Print *lines*, the steps that were done, and *stays*: the traces that the store's operator cannot remove."""
    if as_json:
        print_json({"done": lines, **({"stays": stays} if stays else {})})
        return
    console = out()
    for line in lines:
        console.print(Text.assemble(("✓ ", "green"), plain(line)), soft_wrap=True)
    if stays:
        console.print(Text(stays, "dim"), soft_wrap=True)
