"""From a network file to a plan."""
