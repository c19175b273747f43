"""Generated calls: they cover every pair of arguments of the public surface, and each answer is compared whole."""
