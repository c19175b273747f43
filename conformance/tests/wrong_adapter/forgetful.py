"""An adapter that loses a hit: the memory adapter with a fault. A folder with it on the path has it installed."""

from dataclasses import replace

from vectoracl.adapter_api import Opened, hookimpl
from vectoracl.memory import plugin


class Forgetful:
    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def search(self, operation):
        found = yield from self._inner.search(operation)
        return found._replace(hits=found.hits[: max(1, operation.k - 1)])


vectoracl_config_model = plugin.vectoracl_config_model
vectoracl_describe = plugin.vectoracl_describe


@hookimpl
def vectoracl_open(config, context) -> Opened:
    opened = plugin.vectoracl_open(config, context)
    return replace(opened, adapter=Forgetful(opened.adapter))
