"""Sums of whole numbers of many devices, of which the server learns the sum alone: pairwise masks."""
