"""For the conformance kit: the harness and mutants. Nothing else imports it."""
