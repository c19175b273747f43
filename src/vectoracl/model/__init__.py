"""Values without I/O: identifiers, actions, principals, records and queries."""
