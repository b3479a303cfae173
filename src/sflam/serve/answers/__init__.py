"""A finished run answers devices that predict with its first blocks: the blocks behind the cut, and no training."""
