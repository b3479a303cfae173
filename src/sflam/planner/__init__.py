"""From a network file to a decision."""
