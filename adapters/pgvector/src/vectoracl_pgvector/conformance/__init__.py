"""For the conformance kit: the harness, mutants and PostgreSQL's own counters. Nothing else imports this package."""
