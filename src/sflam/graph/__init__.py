"""A device half as a list of operations; standard library only."""
