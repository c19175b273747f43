"""Finds, installs and starts `needledb`, an independent engine with Pinecone's data-plane API.

It is not Pinecone, and is never presented as Pinecone. `vectoracl demo` uses it if no index is named; the kit's harness
runs the same program with counters.
"""

from __future__ import annotations

import json
import urllib.request

from vectoracl.adapter_api.local_servers.start import Running, ServerSpec

VERSION = "0.1.0"
SPEC = ServerSpec(
    "needledb",
    VERSION,
    address="VECTORACL_PINECONE_HOST",
    ports=("http",),
    binary="needledb",
    wheel=f"needledb=={VERSION}",
    kind="independent",
    arguments=lambda place: ["serve", "--data", place.folder, "--host", place.host, "--port", str(place.ports["http"])],
    environment=lambda place: {"NEEDLEDB_API_KEY": place.key},
    ready="/health",
)


def create_index(server: Running, name: str, dimension: int) -> str:
    """Create an index with the metric cosine and return its address; the client cannot, since it asks in a newer form.

    Raises: OSError, of which the errors of urllib are.
    """
    body = json.dumps({"name": name, "dimension": dimension, "metric": "cosine"}).encode()
    headers = {"api-key": server.key, "content-type": "application/json"}
    request = urllib.request.Request(f"{server.url}/indexes", data=body, headers=headers)  # noqa: S310 - on loopback
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=30):
        return f"{server.url}/indexes/{name}"
