"""The tests of governance on Weaviate, and on an engine with Pinecone's API, where they can be started."""

from __future__ import annotations

import pytest

from tests import test_governed_stores

globals().update({name: one for name, one in vars(test_governed_stores).items() if not name.startswith("_")})
pytestmark = pytest.mark.server


@pytest.fixture(params=["weaviate", "pinecone"])
def kind(request):
    return request.param
