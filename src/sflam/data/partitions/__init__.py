"""Ways to share samples out among devices, one a file."""
