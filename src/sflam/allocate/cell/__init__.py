"""Problem A: one server."""
