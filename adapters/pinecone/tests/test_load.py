"""A load with several batches in flight: one request of it fails, at each place, and it is resumed."""

from __future__ import annotations

import pytest

from vectoracl_conformance.adapter_tests.load_failures import FAILURES, check_failed_load

from pinecone_support.stub import KEY, stub


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(("sent", "performed"), FAILURES)
def test_a_load_whose_requests_fail_is_exact_and_resumed(tmp_path, sent, performed, is_async):
    with stub() as server:
        main = {"adapter": "pinecone", "host": server.host, "api_key": KEY, "dimension": 8, "kind": server.kind}
        config = {"version": 1, "stores": {"main": main}}
        requests = check_failed_load(config, tmp_path / "journal", None, sent, performed=performed, is_async=is_async)
        assert requests >= 3 * 4  # each of four batches looks, writes and looks again
        for at in range(0, requests, 1 if performed else 2):
            check_failed_load(config, tmp_path / "journal", at, sent, performed=performed, is_async=is_async)
