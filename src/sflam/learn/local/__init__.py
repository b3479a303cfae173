"""What a device adds to its own learning, a rule per file."""
