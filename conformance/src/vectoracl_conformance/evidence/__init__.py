"""E2, evidence from the wire: a recording tap, decoders that read it, and three grades over what they read."""
