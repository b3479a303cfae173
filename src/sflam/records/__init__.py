"""What a run leaves and others read."""
