"""A device in NumPy and the standard library alone."""
