"""An adapter that is right for the tenants whose names it knows from a test, and loses a hit for others."""

from dataclasses import replace

from forgetful import Forgetful, vectoracl_config_model, vectoracl_describe

from vectoracl.adapter_api import Opened, hookimpl
from vectoracl.memory import plugin

KNOWN = ("acme", "beta", "tenant-a", "kit")


class Recognising(Forgetful):
    def search(self, operation):
        if operation.partition in KNOWN:
            return (yield from self._inner.search(operation))
        return (yield from super().search(operation))


@hookimpl
def vectoracl_open(config, context) -> Opened:
    opened = plugin.vectoracl_open(config, context)
    return replace(opened, adapter=Recognising(opened.adapter))


__all__ = ["vectoracl_config_model", "vectoracl_describe", "vectoracl_open"]
