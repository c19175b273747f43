"""Real servers on this machine, for demonstrations, harnesses and tests: found, or installed and started."""
