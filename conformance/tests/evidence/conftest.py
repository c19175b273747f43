"""Makes the supports importable and lends the fixtures of the pgvector adapter's tests: a real PostgreSQL."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

if "evidence_support" not in sys.modules:
    _here = Path(__file__).parent
    _folders = {
        "pgvector_support": _here.parents[2] / "adapters" / "pgvector" / "tests" / "support",
        "evidence_support": _here / "support",
    }
    for _name, _folder in _folders.items():
        if _name in sys.modules:
            continue
        _spec = importlib.util.spec_from_file_location(
            _name, _folder / "__init__.py", submodule_search_locations=[str(_folder)]
        )
        assert _spec is not None
        assert _spec.loader is not None
        _package = importlib.util.module_from_spec(_spec)
        sys.modules[_name] = _package
        _spec.loader.exec_module(_package)

from evidence_support.shop import shop

from pgvector_support.fixtures import server
from pgvector_support.stores import provisioned

__all__ = ["provisioned", "server", "shop"]
