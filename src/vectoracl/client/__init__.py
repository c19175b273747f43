"""The application's objects: connections, scoped retrievers and bulk loads."""
