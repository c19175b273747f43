"""Parts of the tests that adapters of one kind share: each store's test files state only what differs.

Tests are shared by importing them; they take the fixtures `acl` and `pair` of the file that imports them.
"""

import pytest

for _name in ("differing", "interleaved", "kept_embedder", "lost_rows", "operations", "shapes"):
    pytest.register_assert_rewrite(f"{__name__}.{_name}")
