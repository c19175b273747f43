"""The Weaviate adapter of vectoracl: a tenant is a shard, and the server refuses requests that name none."""

from __future__ import annotations

import logging
import warnings

# Libraries of the client warn about one another when they are imported, one of them past every filter; a user can do
# nothing about it.
with warnings.catch_warnings(record=True):
    import weaviate as _weaviate  # noqa: F401 - imported here first, so that the rest imports it in silence

# The client logs complete objects of a failed batch, and httpx every address; both would show ids and texts. To see
# them, give these loggers a handler and a level.
for _name in ("weaviate-client", "httpx", "httpcore"):
    _logger = logging.getLogger(_name)
    _logger.addHandler(logging.NullHandler())
    _logger.propagate = False
