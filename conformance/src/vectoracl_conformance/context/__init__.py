"""What a check works with: an opened store, a corpus, a recorder, an oracle and assertions."""
