"""Datasets, and which device has which sample: NumPy only; datasets, scikit-learn and Pillow are imported when used.

settings    ``[data]``: what is loaded and how it is divided
dataset     Dataset and Splits: frozen arrays
sources     a name, a path or a hub name -> Splits; the registry of named datasets
local       a ``.npz`` file -> Dataset
tables      parquet, CSV, JSON lines, hub -> tables; ``columns`` and ``rows`` choose what is read of them
folders     a folder of images per class -> samples as stored
raw         samples as stored -> Dataset, by ``texts``, ``decode`` and ``labels``
preprocessor      a model's tokenizer and image sizes for that
holdout     the stratified held-out share
partition   labels -> one index array per device: IID, Dirichlet, shards
batches     a device's mini-batches in a round
images      uint8 images -> the pixels a model expects
"""
