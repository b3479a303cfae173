"""Convergence and stability bounds: measured quantities are inputs."""
