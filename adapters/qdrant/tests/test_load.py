"""A load with several batches in flight: one request of it fails, at each place, and it is resumed."""

from __future__ import annotations

import pytest

from vectoracl_conformance.adapter_tests.load_failures import FAILURES, check_failed_load


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(("sent", "performed"), FAILURES)
def test_a_load_whose_requests_fail_is_exact_and_resumed(provisioned, tmp_path, sent, performed, is_async):
    config = provisioned().config
    requests = check_failed_load(config, tmp_path / "journal", None, sent, performed=performed, is_async=is_async)
    assert requests >= 4 * 4  # each of four batches reads, writes, reads again and takes its marks off
    for at in range(0, requests, 1 if performed else 2):
        check_failed_load(config, tmp_path / "journal", at, sent, performed=performed, is_async=is_async)
