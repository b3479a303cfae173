"""Operations of a graph in NumPy: each writes into the arrays it is given."""
