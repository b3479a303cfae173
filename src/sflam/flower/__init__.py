"""A Flower app over the same stream: Flower registers and selects nodes and carries adapters, once a round."""
