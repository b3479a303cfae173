"""Sums of what devices trained, made under masks while they are connected: :mod:`sflam.secure` over the network."""
