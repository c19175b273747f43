"""Parts of the tests that adapters of one kind share: each store's test files state only what differs."""
