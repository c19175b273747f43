"""For the conformance kit: the harness, mutants and what PostgreSQL counts. Nothing else imports it."""
