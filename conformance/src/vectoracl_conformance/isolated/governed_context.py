"""A context under a registry.

It has a store to itself, since a store that a registry has marked is opened by no client without it. The registry is a
file that the adapter's process opens.
"""

from __future__ import annotations

import shutil
import tempfile
from typing import Any

from vectoracl.errors import RefusedError
from vectoracl_conformance.context.assertions import Unsupported
from vectoracl_conformance.context.governed import BRIEF_SECONDS, GOVERNORS, LEVELS
from vectoracl_conformance.isolated.remote import RemoteClient, RemoteContext

PROVISION = """
from vectoracl import VectorACL
from vectoracl.client.registry_setup import provision_registry

def work(client):
    first = VectorACL(client.config)
    try:
        provision_registry(first, list(client.config.stores))
    finally:
        first.close()
"""


class GovernedContext(RemoteContext):
    """A context whose clients have `[registry]`; *folder* is that of the registry's file."""

    def __init__(self, *args: Any, folder: str, **given: Any) -> None:
        super().__init__(*args, **given)
        self._folder = folder

    def registry(self, **changed: Any) -> dict[str, Any]:
        """Return the table `[registry]`, with some settings *changed*."""
        return {
            "url": f"sqlite:///{self._folder}/registry.db",
            "single_host": True,
            "default_label": "open",
            "governors": {"role": GOVERNORS},
            "max_read_seconds": 0,
            "attributes": {"sensitivity": {"levels": LEVELS}, "region": {}},
            "rules": [
                {
                    "allow": {
                        "label.sensitivity": "<= principal.clearance",
                        "label.region": "in principal.regions",
                    },
                    "write": True,
                }
            ],
            "sources": {
                "brief": {"max_age_seconds": BRIEF_SECONDS},
                "served": {"max_age_seconds": BRIEF_SECONDS, "stale": "serve"},
                "lasting": {"max_age_seconds": 86_400},
            },
            **changed,
        }

    def config(self, *, single: bool = False, **more: Any) -> dict[str, Any]:
        """Return the configuration of a governed client."""
        return super().config(single=single, **{"registry": self.registry(), **more})

    def ungoverned(self) -> RemoteClient:
        """Return a client without the registry."""
        return RemoteClient(self, super().config(), None)

    async def open(self) -> None:
        """Bring the store under the registry and open the context's own client.

        Raises: Unsupported for a store that no registry can govern, and that was seen to be refused.
        """
        self.client = self.new_client()
        try:
            await self.client.run(PROVISION)
        except RefusedError as error:
            if error.field != "registry" or self._declared() != "none":
                raise
            raise Unsupported("relabel") from None
        await self.client.open()

    def _declared(self) -> str:
        """Return what the adapter declares of re-labelling, as a client without the registry sees it."""
        declared: str = self.ungoverned().adapter.capabilities.relabel
        return declared


def folder() -> str:
    """Return a new folder for a registry; its name says nothing of the kit."""
    return tempfile.mkdtemp(prefix="registry-")


def removed(path: str) -> None:
    """Remove the folder of a registry."""
    shutil.rmtree(path, ignore_errors=True)
