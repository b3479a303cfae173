"""What moves the global adapters by the change that was averaged, an optimiser per file."""
