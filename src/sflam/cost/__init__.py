"""Seconds, joules and bytes of a plan."""
