"""What a person sees of a run.

progress    a live bar on stderr, or a plain line per round
table       the rounds and their totals at the end
totals      sums over the rounds, and numbers written for people
curves      accuracy and loss against round and traffic, one PNG
events      the same scalars for TensorBoard
card        the model card beside the adapter
"""
