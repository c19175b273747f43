"""What an application holds: connections, scoped retrievers and bulk loads."""
