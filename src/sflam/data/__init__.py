"""Datasets, and who holds which sample: NumPy only; scikit-learn and Pillow are imported when used.

settings    ``[data]``: what is loaded and how it is divided
dataset     Dataset and Splits: frozen arrays
sources     a name or a path -> Splits; the registry of named datasets
local       a ``.npz`` file -> Dataset
holdout     the stratified held-out share
partition   labels -> one index array per device: IID, Dirichlet
batches     a device's mini-batches in a round
images      uint8 images -> the pixels a model expects
"""
