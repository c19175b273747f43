"""The command `vectoracl demo`."""
