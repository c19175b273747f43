"""Run by `nox -s packages` in an environment that holds one distribution, installed from its wheel, and what it needs.

The argument is what was installed: a distribution (`vectoracl-qdrant`), or the core with extras (`vectoracl[qdrant]`).
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np

import vectoracl
from vectoracl import ALWAYS, Chunk, F, testing
from vectoracl.adapter_api.contract import OpenContext
from vectoracl.adapter_api.operations import Search
from vectoracl.filters.validation import check_fields
from vectoracl.model.queries import VectorQuery

STORES = {
    "pgvector": {"dsn": "postgresql://localhost/db"},
    "qdrant": {"url": "http://localhost:6333"},
    "pinecone": {"host": "http://localhost:1", "api_key": "none"},
    "weaviate": {"url": "http://localhost:8080"},
}
CLIENTS = {"pgvector": "psycopg", "qdrant": "qdrant_client", "pinecone": "pinecone", "weaviate": "weaviate"}

want = sys.argv[1]
name, _, rest = want.partition("[")
extras = rest.rstrip("]").split(",") if rest else []
expected = {store for store in STORES if name == f"vectoracl-{store}" or store in extras}
with_kit = name == "vectoracl-conformance" or "conformance" in extras
with_registry = with_kit or "registry" in extras
script = str(Path(sys.executable).with_name("vectoracl"))


def installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def whole(distribution: str) -> None:
    """Demand that *distribution* comes from its wheel with types and licence, and that all its modules import."""
    module = importlib.import_module(distribution.replace("-", "_"))
    package = Path(str(module.__file__)).parent
    assert "site-packages" in package.parts, f"not the installed wheel: {package}"
    assert (package / "py.typed").exists(), f"py.typed is missing in the wheel of {distribution}"
    assert importlib.metadata.metadata(distribution)["License-Expression"] == "Apache-2.0"
    files = importlib.metadata.files(distribution) or []
    assert any(file.name == "LICENSE" for file in files), f"the licence is missing in the wheel of {distribution}"
    # A store's harness needs the kit, which the extra `conformance` brings; the registry needs SQLAlchemy and Alembic.
    left_out = () if with_kit else (f"{module.__name__}.conformance",)
    left_out += () if with_registry else ("vectoracl.registry",)
    for one in pkgutil.walk_packages([str(package)], f"{module.__name__}."):
        # Alembic runs what is in `migrations` by itself.
        if not one.name.startswith((*left_out, "vectoracl.registry.migrations.")):
            importlib.import_module(one.name)


def the_core_works() -> None:
    config = {
        "version": 1,
        "stores": {"main": {"adapter": "memory", "dimension": 384, "metadata": {"year": "number"}}},
        "embedder": {"use": "hashed"},
    }
    with vectoracl.connect(config) as acl:
        for tenant in ("acme", "beta"):
            handle = acl.scoped(testing.principal("a", tenant))
            handle.upsert([Chunk("c1", "handbook", f"the handbook of {tenant}", metadata={"year": 2024})])
        result = acl.scoped(testing.principal("a", "acme")).search("handbook", where=F.year >= 2020)
        assert [hit.tenant for hit in result] == ["acme"], result
    shown = subprocess.run([script, "adapters", "--json"], capture_output=True, text=True, check=True).stdout
    assert {store for store in STORES if f'"{store}"' in shown} == expected, shown
    assert '"memory"' in shown, shown


def a_missing_adapter_is_named() -> None:
    try:
        vectoracl.connect({"version": 1, "stores": {"main": {"adapter": "pgvector"}}})
    except vectoracl.AdapterNotFoundError as error:
        assert error.install == "pip install ./vectoracl_pgvector-0.1.0-py3-none-any.whl", error.install
    else:
        raise AssertionError("a missing adapter has to be refused")


def the_registry_works() -> None:
    if with_registry:
        run = subprocess.run(
            [script, "demo", "--governance", "--store", "memory"], capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stdout + run.stderr
        return
    config = {"version": 1, "registry": {}, "stores": {"main": {"adapter": "memory", "dimension": 3}}}
    try:
        vectoracl.connect(config)
    except vectoracl.ConfigError as error:
        assert "pip install 'sqlalchemy" in str(error), error
    else:
        raise AssertionError("a registry without SQLAlchemy has to be refused")


def the_adapter_compiles(store: str) -> None:
    """Read a configuration and compile a search, which contacts nothing."""
    plugin = importlib.import_module(f"vectoracl_{store}.plugin")
    config = plugin.vectoracl_config_model().model_validate({**STORES[store], "dimension": 2})
    opened = plugin.vectoracl_open(config, OpenContext("main", check_fields({"year": "number"}), "."))
    query = VectorQuery(np.ones(2, np.float32))
    request = next(opened.adapter.search(Search("acme", ALWAYS, F.year >= 2020, query, 3, frozenset())))
    assert request.partition == "acme", request


def the_missing_kit_is_named() -> None:
    run = subprocess.run([script, "conformance", "memory"], capture_output=True, text=True, check=False)
    assert run.returncode == 2, run.stdout + run.stderr
    assert "pip install ./vectoracl_conformance-0.1.0-py3-none-any.whl" in " ".join(run.stderr.split()), run.stderr


def the_kit_runs() -> None:
    run = subprocess.run([script, "conformance", "memory", "--only", "R1"], capture_output=True, text=True, check=False)
    assert run.returncode == 2, run.stdout + run.stderr  # 2: one check is not a certification
    assert "R1" in run.stdout, run.stdout


for distribution in ("vectoracl", *(f"vectoracl-{store}" for store in sorted(expected))):
    whole(distribution)
assert installed("vectoracl_conformance") == with_kit, "only its own extra brings the kit"
for store, client in CLIENTS.items():
    assert installed(client) == (store in expected), f"{want}: the client {client}"
the_core_works()
the_registry_works()
for store in expected:
    the_adapter_compiles(store)
if "pgvector" not in expected:
    a_missing_adapter_is_named()
if with_kit:
    whole("vectoracl-conformance")
    the_kit_runs()
else:
    the_missing_kit_is_named()
print(f"{want}: works from its wheel ({importlib.metadata.version('vectoracl')})")
