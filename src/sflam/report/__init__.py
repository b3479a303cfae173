"""What a person sees of a run: progress, a table, curves, TensorBoard events, the adapter's card."""
