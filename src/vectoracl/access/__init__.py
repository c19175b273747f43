"""Access control: scopes and policies."""
