"""Problem B: several servers."""
