"""A job as a run: assemble it, run it, finish it, predict with it."""
