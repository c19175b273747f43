"""Run by `nox -s packages` inside an environment that holds only the built wheels: they have to work on their own."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import vectoracl
from vectoracl import Chunk, F, testing

want = sys.argv[1]
extras = want.partition("[")[2].rstrip("]").split(",") if "[" in want else []
package = Path(vectoracl.__file__).parent
assert "site-packages" in str(package), f"not the installed wheel: {package}"
assert (package / "py.typed").exists(), "py.typed is missing in the wheel"

config = {
    "version": 1,
    "stores": {"main": {"adapter": "memory", "dimension": 384, "metadata": {"year": "number"}}},
    "embedder": {"use": "hashed"},
}
with vectoracl.connect(config) as acl:
    for tenant in ("acme", "beta"):
        handle = acl.scoped(testing.principal("a", tenant))
        handle.upsert([Chunk("c1", "handbook", f"the handbook of {tenant}", metadata={"year": 2024})])
    found = acl.scoped(testing.principal("a", "acme")).search("handbook", where=F.year >= 2020)
    assert [hit.tenant for hit in found] == ["acme"], found

if "pgvector" in extras:
    names = {one.adapter for one in vectoracl.adapter_api.loading.installed()}
    assert names == {"memory", "pgvector"}, names
    importlib.import_module("vectoracl_pgvector.plugin")
elif "qdrant" in extras:
    importlib.import_module("vectoracl_qdrant.plugin")
elif "weaviate" in extras:
    importlib.import_module("vectoracl_weaviate.plugin")
elif "pinecone" in extras:
    importlib.import_module("vectoracl_pinecone.plugin")
else:
    assert importlib.util.find_spec("psycopg") is None, "the core must not depend on a store's client"
    try:
        vectoracl.connect({"version": 1, "stores": {"main": {"adapter": "pgvector"}}})
    except vectoracl.AdapterNotFoundError as error:
        assert error.install == "pip install ./vectoracl_pgvector-0.1.0-py3-none-any.whl", error.install
    else:
        raise AssertionError("a missing adapter has to be refused")

script = Path(sys.executable).with_name("vectoracl")
shown = subprocess.run([str(script), "adapters", "--json"], capture_output=True, text=True, check=True).stdout
assert '"memory"' in shown, shown
print(f"{want}: works from its wheel ({importlib.metadata.version('vectoracl')})")
