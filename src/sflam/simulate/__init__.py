"""Rounds over a fleet on a virtual clock: fading, a plan, its bits on the wire, and what the model charges for it."""
