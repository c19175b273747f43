"""Who may see what: scopes and policies."""
