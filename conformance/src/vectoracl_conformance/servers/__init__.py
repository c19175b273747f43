"""For tests of servers: which ports are open, and addresses on loopback that answer wrongly."""
