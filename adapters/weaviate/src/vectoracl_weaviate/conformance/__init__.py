"""For the conformance kit: the harness, mutants and readers of the wire. Nothing else imports it."""
