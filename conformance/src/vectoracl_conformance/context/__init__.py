"""The context of a check: an opened store, a corpus, a recorder, an oracle and assertions."""
