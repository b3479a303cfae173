"""What papers claim, measured: a study file of several parts, claims about their numbers, and verdicts."""
