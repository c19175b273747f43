"""The collection keeps whose vectors it holds; another embedder is refused with the cure."""

from __future__ import annotations

from typing import Any

import pytest

from vectoracl import PostureError, RefusedError, connect
from vectoracl_conformance.adapter_tests import kept_embedder
from vectoracl_conformance.adapter_tests.kept_embedder import One, Other, provision


def test_an_existing_store_learns_its_embedder_at_the_next_provision(stores: Any) -> None:
    store = stores()
    kept_embedder.write_before(store.config)
    provision(store.config, One())
    provision(store.config, One())
    kept_embedder.assert_kept(store.config, One(), Other())


@pytest.mark.parametrize("changed", [{"dimension": 7}, {"metric": "l2"}, {"vector": "other"}], ids=str)
def test_another_dimension_metric_or_name_is_said_everywhere(stores: Any, changed: dict[str, Any]) -> None:
    store = stores()
    config = store.with_(**changed)
    with pytest.raises(RefusedError, match="copy the chunks there"):
        provision(config)
    with pytest.raises(PostureError, match="WV0"):
        connect(config)
    connect(store.config).close()
